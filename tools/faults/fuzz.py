"""Files with mutations without end: audio, manifests, recipes and encoder files, read in a process that may die."""

import json
import math
import multiprocessing
import os
import resource
import traceback
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soundfile
import torch
from safetensors.torch import save_file

from faults.verdict import CRASHED, KINDS, LOST, SAFE, WRONG, Verdict, judged, same
from faults.workshop import RECIPE, SAMPLE_RATE_HZ, Workshop, equal
from melmask.audio import read_audio
from melmask.data.log_mel_files import log_mel_blocks
from melmask.data.manifest import read_manifest
from melmask.evaluation.task import read_task
from melmask.files import read_tensors
from melmask.logmel import LogMelSpec
from melmask.nn.encoder_file import EncoderFile, FrontEnd
from melmask.nn.vit import Size, random_encoder
from melmask.train.recipe import Recipe

MAX_S = 20.0  # for one file
MEMORY_BYTES = 4 * 2**30
EXTREMES = (
    b"\x00" * 4,
    b"\xff" * 4,
    b"\xff\xff\xff\x7f",
    b"\x00\x00\x00\x80",
    b"\x01\x00\x00\x00",
    b"\x7f\xff\xff\xff",
)
Rng = np.random.Generator


class Fuzzer(Protocol):
    """Makes mutations of one kind of file, and reads them. Made in the process that reads, with its folder."""

    def __call__(self, rng: Rng) -> Verdict:
        """Write one mutation, read it and judge."""


def mutated(content: bytes, rng: Rng) -> bytes:
    """One to three changes of bytes: flips, cuts, insertions, zeros, repetitions, extreme numbers in the header."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        size = max(1, len(changed))
        at, length = int(rng.integers(size)), int(rng.integers(1, 1 + max(1, size // 4)))
        near = int(rng.integers(min(size, 128)))
        match rng.integers(7):
            case 0:
                for place in rng.integers(size, size=rng.integers(1, 9)):
                    changed[place : place + 1] = rng.bytes(1)
            case 1:
                changed[near : near + 1] = rng.bytes(1)
            case 2:
                del changed[at:]
            case 3:
                changed[at:at] = rng.bytes(min(length, 512))
            case 4:
                changed[at : at + length] = bytes(len(changed[at : at + length]))
            case 5:
                changed[at:at] = changed[at : at + length]
            case _:
                changed[near : near + 4] = EXTREMES[rng.integers(len(EXTREMES))]
    return bytes(changed)


FORMATS = {
    "wav": ("WAV", "PCM_16"), "float.wav": ("WAV", "FLOAT"), "24.wav": ("WAV", "PCM_24"), "ulaw.wav": ("WAV", "ULAW"),
    "ima.wav": ("WAV", "IMA_ADPCM"), "ms.wav": ("WAV", "MS_ADPCM"), "gsm.wav": ("WAV", "GSM610"),
    "w64": ("W64", "PCM_16"), "rf64": ("RF64", "PCM_16"), "aiff": ("AIFF", "PCM_16"), "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"), "flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}  # fmt: skip
OF_LIBAV = {"m4a": ("mp4", "aac"), "webm": ("webm", "libopus"), "mka": ("matroska", "flac")}


class Audio:
    """Sounds of a tenth of a second in each format, and log-mels in .npy."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.spec = folder, LogMelSpec()
        rng = np.random.default_rng(0)
        wave = (0.3 * np.sin(np.arange(1600) * 0.2) + 0.05 * rng.standard_normal(1600)).astype(np.float32)
        self.files: list[tuple[str, bytes]] = []
        for name, (container, codec) in FORMATS.items():
            rate = 48_000 if codec == "OPUS" else SAMPLE_RATE_HZ
            soundfile.write(folder / f"a.{name}", wave, rate, format=container, subtype=codec)
            self.files.append((name, (folder / f"a.{name}").read_bytes()))
        for name, (container, codec) in OF_LIBAV.items():
            encode(folder / f"a.{name}", wave, container, codec)
            self.files.append((name, (folder / f"a.{name}").read_bytes()))
        np.save(folder / "a.npy", rng.uniform(-12, -2, (80, 20)).astype(np.float32))
        self.files.append(("npy", (folder / "a.npy").read_bytes()))

    def __call__(self, rng: Rng) -> Verdict:
        name, content = self.files[rng.integers(len(self.files))]
        path = self.folder / f"x.{name}"
        path.write_bytes(mutated(content, rng))
        if name == "npy":
            read: Callable[[], Any] = lambda: np.concatenate(list(log_mel_blocks(path, self.spec)))  # noqa: E731
        else:
            read = lambda: read_audio(path, SAMPLE_RATE_HZ)  # noqa: E731
        judge = lambda wave: same(len(wave) > 0 and bool(np.isfinite(wave).all()), "not finite")  # noqa: E731
        return judged(read, judge, (path,))


def encode(path: Path, wave: np.ndarray, container: str, codec: str) -> None:
    """Write a sound by FFmpeg's libraries."""
    import av

    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=48_000)
        stream.layout = "mono"
        form = "s16" if codec in ("flac", "libopus") else "fltp"
        samples = (wave * 32767).astype(np.int16) if form == "s16" else wave
        frame = av.AudioFrame.from_ndarray(samples[None], format=form, layout="mono")
        frame.sample_rate = 48_000
        for packet in (*stream.encode(frame), *stream.encode(None)):
            file.mux(packet)


WORDS = (
    b'"',
    b'""',
    b",",
    b";",
    b"\t",
    b"|",
    b"\n",
    b"\r",
    b"\r\n",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"=1+1",
    b"'",
    b"../",
)


class Manifests:
    """Tables of recordings, with labels, folds and groups."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "x.csv"
        rows = [f"a/{number}.wav,{'xy'[number % 2]},{number % 3 + 1},g{number}" for number in range(12)]
        self.contents = [
            "\n".join(["path,label,fold,group", *rows]).encode(),
            "\r\n".join(["path;label;split", *(f"{n}.wav;c;{('train', 'test')[n % 2]}" for n in range(6))]).encode(),
            "\n".join(['"path","label"', *(f'"{n}, or so.wav","a ""b"" c"' for n in range(6))]).encode(),
            "\n".join(["path\tlabel", *(f"é{n}.wav\tü" for n in range(6))]).encode("utf-16"),
        ]

    def __call__(self, rng: Rng) -> Verdict:
        content = bytearray(self.contents[rng.integers(len(self.contents))])
        if rng.random() < 0.5:
            content = bytearray(mutated(bytes(content), rng))
        for _ in range(rng.integers(0, 4)):
            at = int(rng.integers(len(content) + 1))
            content[at:at] = WORDS[rng.integers(len(WORDS))]
        self.path.write_bytes(content)
        verdict = judged(lambda: read_manifest(self.path), partial(self._judge, bytes(content)), (self.path,))
        if verdict.kind != SAFE:
            return verdict
        return judged(lambda: read_task(self.path), lambda task: Verdict(SAFE), (self.path, "task x"))

    @staticmethod
    def _judge(content: bytes, clips: Any) -> Verdict:
        """Every line below the header is a clip, where no quote joins lines."""
        if b'"' in content or content[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return Verdict(SAFE)
        lines = content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        text = [line.decode(errors="surrogateescape").strip(" ,;\t|\r\x0b\x0c") for line in lines]
        rows = len([line for line in text if line.strip()]) - 1
        return Verdict(LOST, f"{rows - len(clips)} of {rows} rows") if len(clips) < rows else Verdict(SAFE)


VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**70, 10**400, 0.5, -0.5, 1e308, math.nan, math.inf, "", "x", "micro", [], [1], [[1]],
    [1, 2, 3], {}, {"x": 1}, {"x": [None]}, "\x00", "package.module:Class", ":", "a" * 5000,
)  # fmt: skip


def with_other_values(values: dict[str, Any], rng: Rng) -> dict[str, Any]:
    """One to three fields removed, added, renamed, or with another value, in the object or in objects within it."""
    changed = json.loads(json.dumps(values))
    for _ in range(rng.integers(1, 4)):
        inner = [value for value in changed.values() if isinstance(value, dict)]
        target = inner[rng.integers(len(inner))] if inner and rng.random() < 0.3 else changed
        names = list(target) or ["x"]
        name = names[rng.integers(len(names))]
        match rng.integers(6):
            case 0:
                target.pop(name, None)
            case 1:
                target[f"{name}_"] = deepcopy(VALUES[rng.integers(len(VALUES))])
            case _:
                target[name] = deepcopy(VALUES[rng.integers(len(VALUES))])
    return changed


class Recipes:
    """Recipes, as runs keep them: other values, and other bytes."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "recipe.json"
        RECIPE.save(self.path)
        self.values, self.content = json.loads(self.path.read_text()), self.path.read_bytes()

    def __call__(self, rng: Rng) -> Verdict:
        if rng.random() < 0.7:
            self.path.write_text(json.dumps(with_other_values(self.values, rng)))
        else:
            self.path.write_bytes(mutated(self.content, rng))
        return judged(lambda: Recipe.load(self.path), lambda recipe: Verdict(SAFE), (self.path,))


class EncoderFiles:
    """Small encoder files: other bytes, which must not give another encoder; and other metadata, without a checksum."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "encoder.safetensors"
        encoder = random_encoder(Size(8, 1, 2), (16, 16), seed=0)
        EncoderFile(encoder, FrontEnd(LogMelSpec(), -7.0, 4.0), 96).save(self.path)
        _sort_header(self.path)
        self.content, (self.tensors, self.metadata) = self.path.read_bytes(), read_tensors(self.path)
        self.file = EncoderFile.load(self.path)

    def __call__(self, rng: Rng) -> Verdict:
        if rng.random() < 0.5:
            self.path.write_bytes(mutated(self.content, rng))
            return judged(lambda: EncoderFile.load(self.path), self._judge, (self.path,))
        tensors, metadata = dict(self.tensors), dict(self.metadata)
        for name in ("form", "front_end"):
            if rng.random() < 0.6:
                metadata[name] = json.dumps(with_other_values(json.loads(metadata[name]), rng))
        if rng.random() < 0.2:
            metadata.pop(list(metadata)[rng.integers(len(metadata))])
        if rng.random() < 0.2:
            tensors.pop(list(tensors)[rng.integers(len(tensors))])
        if rng.random() < 0.2:
            tensors[list(tensors)[rng.integers(len(tensors))]] = torch.zeros(
                tuple(rng.integers(0, 4, rng.integers(0, 4)))
            )
        save_file(tensors, self.path, metadata)
        return judged(lambda: EncoderFile.load(self.path), lambda file: Verdict(SAFE), (self.path,))

    def _judge(self, found: EncoderFile) -> Verdict:
        is_equal = equal(found.encoder.state_dict(), self.file.encoder.state_dict())
        rest = (found.front_end, found.crop_frames, found.stated) == (
            self.file.front_end, self.file.crop_frames, self.file.stated,
        )  # fmt: skip
        return Verdict(SAFE) if is_equal and rest else Verdict(WRONG, "another encoder")


def _sort_header(path: Path) -> None:
    """Sort the metadata of a file of tensors, which are in any order, so that a mutation of a number is always it."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True, separators=(",", ":"))
    path.write_bytes(content[:8] + header.encode().ljust(size) + content[8 + size :])


FUZZERS: dict[str, Callable[[Path], Fuzzer]] = {
    "fuzz-audio-files": Audio,
    "fuzz-manifests": Manifests,
    "fuzz-recipes": Recipes,
    "fuzz-encoder-files": EncoderFiles,
}


def serve(kind: str, folder: Path, first: int, num: int, seed: int, answers: Connection) -> None:
    """Read mutations from number ``first`` on, and tell of each what became of it; runs in a process of its own."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries tell of damage there
    torch.set_num_threads(1)
    fuzzer = FUZZERS[kind](folder)
    for number in range(first, num):
        try:
            verdict = fuzzer(np.random.default_rng([seed, number]))
        except Exception:
            verdict = Verdict(CRASHED, traceback.format_exc(limit=-4))
        answers.send((number, verdict.kind, verdict.why[-600:]))


def fuzz(kind: str, shop: Workshop, num: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Read ``num`` mutations of one kind of file.

    Returns:
        How many became what, and examples of those that are not safe.
    """
    counts, examples, first = Counter[str](), list[str](), 0
    seen: set[str] = set()
    context = multiprocessing.get_context("spawn")
    while first < num:
        folder = shop.root / f"{kind}-{first}"
        folder.mkdir()
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=serve, args=(kind, folder, first, num, seed, sender))
        process.start()
        sender.close()
        limit = 120.0  # for the imports of the process
        is_alive = True
        while first < num and is_alive:
            try:
                is_alive = receiver.poll(limit)
                found = receiver.recv() if is_alive else (first, CRASHED, f"no answer within {limit:g} s")
            except EOFError:
                process.join()
                is_alive, found = False, (first, CRASHED, f"the process that read it ended with {process.exitcode}")
            first, limit = found[0] + 1, MAX_S
            counts[found[1]] += 1
            short = found[2][:120]
            if found[1] != SAFE and short not in seen:
                seen.add(short)
                examples.append(f"{found[1]}, number {found[0]}: {found[2]}")
        process.join(1)
        process.kill()
    assert set(counts) <= set(KINDS)
    return counts, examples


FUZZED: dict[str, Callable[[Workshop, int, int], tuple[Counter[str], list[str]]]] = {
    kind: partial(fuzz, kind) for kind in FUZZERS
}
