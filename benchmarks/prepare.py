"""How fast files become a store: `make bench`, or `python benchmarks/prepare.py --help`."""

import hashlib
import itertools
import math
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from page import Table, options_of, publish
from recordings import write_noise
from timing import Times, in_turns, machine, ratio
from torch import Tensor
from torch.nn import functional as F

from melmask.data.prepare import prepare
from melmask.logmel import EPSILON, LogMelSpec, mel_filterbank

SPEC = LogMelSpec()


@dataclass(frozen=True)
class Kind:
    """A kind of files.

    Args:
        name: for the tables.
        extension: of the files.
        rate_hz: of the sound in them.
        num_clips: in the full benchmark.
    """

    name: str
    extension: str
    rate_hz: int
    num_clips: int


KINDS = (Kind("wav, 16 kHz", "wav", 16_000, 1500), Kind("flac, 44.1 kHz", "flac", 44_100, 300))
CLIP_S, QUICK_SHARE = 5.0, 0.4
BUDGET_S, QUICK_S = 6.0, 1.5

ABOUT = (
    "Files of 5 s of coloured noise in 16 bits become log-mels of 80 bands. Ours is `melmask prepare`'s own function; "
    "the plain form is one process in which every file is read by soundfile, transformed by a convolution with "
    "windowed cosines and sines, multiplied with the mel filterbank, and saved as a float32 .npy file. Both run on one "
    "core and one thread, in turns; ours also with a worker for every core, start-up of the processes and all."
)
COLUMNS = {
    "files": "",
    "clips": "",
    "a core": "seconds of audio that ours prepares in a second of one core",
    "plain": "the same of the plain form",
    "ratio": "times as fast as the plain form, on a core each",
    "floor": "share of the time that libsndfile, soxr, the Fourier transforms and the hash of the files' content take "
    "alone, without which there is no store",
    "cores": "seconds of audio in a second with a worker for every core",
    "start-up": "seconds until workers are there, of which those figures include one",
}


def main(arguments: list[str] | None = None) -> None:
    options = options_of(__doc__, arguments, "fewer files: under 55 s on two cores")
    measured_on, num_threads = machine(), torch.get_num_threads()
    print(measured_on)
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            rows = [measure(kind, Path(folder) / kind.extension, options.quick) for kind in KINDS]
    finally:
        torch.set_num_threads(num_threads)
    about = f"{ABOUT} Measured on {measured_on}."
    publish("prepare", "How fast files become a store", about, [table_of(rows)], rows, options)


def measure(kind: Kind, folder: Path, quick: bool) -> dict[str, Any]:
    """The figures of one kind of files."""
    num_clips = math.ceil(kind.num_clips * (QUICK_SHARE if quick else 1))
    files = write_noise(folder / "files", [CLIP_S] * num_clips, kind.rate_hz, kind.extension)
    paths, numbers = sorted(files.iterdir()), itertools.count()

    def ours(num_workers: int) -> float:
        start = time.perf_counter()
        prepare([files], folder / f"store-{next(numbers)}", num_workers=num_workers)
        return time.perf_counter() - start

    plain = PlainPrepare(folder / "plain")
    calls = {"ours": lambda: ours(0), "plain": lambda: plain(paths), "floor": lambda: floor(paths)}
    for call in calls.values():
        call()
    times = in_turns(calls, QUICK_S if quick else BUDGET_S)
    few = write_noise(folder / "few", [CLIP_S], kind.rate_hz, kind.extension)
    start = time.perf_counter()
    prepare([few], folder / "few-store", num_workers=1)
    return row_of(kind, num_clips, times, ours(num_cores()), time.perf_counter() - start)


def num_cores() -> int:
    return len(os.sched_getaffinity(0))


class PlainPrepare:
    """The plain form: a convolutional short-time Fourier transform, and a .npy file for every clip."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        angle = 2 * np.pi * torch.arange(SPEC.n_fft // 2 + 1).double()[:, None] * torch.arange(SPEC.n_fft) / SPEC.n_fft
        window = torch.hann_window(SPEC.n_fft, dtype=torch.float64)
        self.kernels = torch.cat([angle.cos() * window, angle.sin() * window]).float()[:, None]
        self.filterbank = mel_filterbank(SPEC)

    def __call__(self, paths: list[Path]) -> None:
        for path in paths:
            np.save(self.folder / f"{path.stem}.npy", self.log_mel(decoded(path, "float32")).numpy())

    @torch.no_grad()
    def log_mel(self, wave: Tensor) -> Tensor:
        """A waveform's log-mel [mel, frame]."""
        padded = F.pad(wave[None, None], (SPEC.n_fft // 2, SPEC.n_fft // 2), mode="reflect")
        real, imaginary = F.conv1d(padded, self.kernels, stride=SPEC.hop_length)[0].chunk(2)
        return (self.filterbank @ (real**2 + imaginary**2) + EPSILON).log()


def decoded(path: Path, dtype: str) -> Tensor:
    """A file's sound at the front end's rate."""
    samples, rate_hz = soundfile.read(path, dtype=dtype)
    if rate_hz != SPEC.sample_rate_hz:
        samples = soxr.resample(samples, rate_hz, SPEC.sample_rate_hz)
    return torch.from_numpy(samples)


@torch.no_grad()
def floor(paths: list[Path]) -> None:
    """What no preparation can do without: decode, resample, transform, and read the content for its hash."""
    window = torch.hann_window(SPEC.n_fft)
    for path in paths:
        wave = decoded(path, "int16").float()
        torch.stft(wave, SPEC.n_fft, SPEC.hop_length, window=window, center=False, return_complex=True)
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")


def row_of(kind: Kind, num_clips: int, times: Times, all_cores_s: float, start_up_s: float) -> dict[str, Any]:
    """The figures of one row; `COLUMNS` says what they mean."""
    audio_s = CLIP_S * num_clips
    ours_s, plain_s = statistics.median(times["ours"]), statistics.median(times["plain"])
    return {
        "framework": "prepare",
        "size": kind.name,
        "dtype": "float32",
        "clips": num_clips,
        "samples_per_s": num_clips / ours_s,
        "baseline_samples_per_s": num_clips / plain_s,
        "ratio": ratio(times["plain"], times["ours"]),
        "ceiling_share": ratio(times["floor"], times["ours"]),
        "audio_s_per_s_per_core": audio_s / ours_s,
        "baseline_audio_s_per_s_per_core": audio_s / plain_s,
        "audio_s_per_s": audio_s / all_cores_s,
        "cores": num_cores(),
        "start_up_s": start_up_s,
    }


def table_of(rows: list[dict[str, Any]]) -> Table:
    cells = [
        [
            row["size"], str(row["clips"]), f"{row['audio_s_per_s_per_core']:,.0f}",
            f"{row['baseline_audio_s_per_s_per_core']:,.0f}", f"{row['ratio']:.2f}", f"{row['ceiling_share']:.0%}",
            f"{row['audio_s_per_s']:,.0f}", f"{row['start_up_s']:.1f}",
        ]
        for row in rows
    ]  # fmt: skip
    return Table("Seconds of audio a second", COLUMNS, cells)


if __name__ == "__main__":
    main()
