"""Faults of settings and of inputs beyond all bounds."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from faults.catalogue import fault
from faults.verdict import Verdict, judged, same
from faults.workshop import RECIPE, SAMPLE_RATE_HZ, Bench
from melmask.data.prepare import prepare
from melmask.data.store import Store
from melmask.encoders.fixed_length import fixed_length
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.logmel import LogMelSpec
from melmask.train.loop import pretrain

BOUNDS, AUDIO = "bounds", "recordings and tables"
NAN = float("nan")

SETTINGS: dict[str, dict[str, Any]] = {
    "batch_size 1e9": {"batch_size": 10**9}, "crop_frames 1e12": {"crop_frames": 10**12},
    "steps 1e18": {"steps": 10**18, "batch_size": 10**9}, "mask_ratio NaN": {"mask_ratio": NAN},
    "mask_ratio 1": {"mask_ratio": 1.0}, "learning_rate NaN": {"learning_rate": NAN},
    "learning_rate infinite": {"learning_rate": float("inf")}, "warmup NaN": {"warmup": NAN},
    "seed -1": {"seed": -1}, "seed 2^70": {"seed": 2**70}, "decoder_dim 1e9": {"decoder_dim": 10**9},
    "decoder_depth 1e9": {"decoder_depth": 10**9}, "decoder_heads 0": {"decoder_heads": 0},
    "patches of 0": {"patch_shape": (0, 16)}, "patches beyond the mels": {"patch_shape": (4096, 16)},
    "save_every 0": {"save_every": 0}, "betas of 2": {"betas": (2.0, 0.9)}, "weight_decay NaN": {"weight_decay": NAN},
    "grad_clip NaN": {"grad_clip": NAN}, "hint_power NaN": {"hint_power": NAN}, "accumulate 1e9": {"accumulate": 10**9},
    "muon_iterations 1e9": {"optimiser": "muon", "muon_iterations": 10**9},
}  # fmt: skip


@fault(BOUNDS, "a recipe with", SETTINGS.items())
def setting_beyond(bench: Bench, case: dict[str, Any]) -> Verdict:
    """Refused before anything long or large begins."""
    names = (*case, *(str(value) for value in case.values()), *(name.partition("_")[0] for name in case))
    call = lambda: pretrain(  # noqa: E731
        dataclasses.replace(RECIPE, **case), Store.open(bench.store), bench.folder / "new", num_threads=1
    )
    return judged(call, lambda _: same(False), names, must="refuse")


SPECS: dict[str, dict[str, Any]] = {
    "sample_rate_hz 1e12": {"sample_rate_hz": 10**12}, "n_fft 2e9": {"n_fft": 2 * 10**9},
    "num_mels 1e9": {"num_mels": 10**9}, "hop_length 0": {"hop_length": 0}, "fmin_hz NaN": {"fmin_hz": NAN},
    "fmax_hz infinite": {"fmax_hz": float("inf")},
}  # fmt: skip


@fault(BOUNDS, "a front end with", SPECS.items())
def spec_beyond(bench: Bench, case: dict[str, Any]) -> Verdict:
    return judged(lambda: LogMelSpec(**case), lambda _: same(False), tuple(case), must="refuse")


@fault(BOUNDS, "clips of", [("1e9 s", 1e9), ("NaN s", NAN), ("-1 s", -1.0), ("infinite length", float("inf"))])
def clip_beyond(bench: Bench, case: float) -> Verdict:
    store, encoder = Store.open(bench.store), PretrainedEncoder.load(bench.run)
    call = lambda: encoder.embed_store(fixed_length(store, case))  # noqa: E731
    return judged(call, lambda _: same(False), (case, f"{case:g}", f"{case:,.0f}"), must="refuse")


@fault(BOUNDS, "workers", [("-1", -1), ("1e6", 10**6)], slow=True)
def workers_beyond(bench: Bench, case: int) -> Verdict:
    call = lambda: len(prepare([bench.audio / "task.csv"], bench.folder / "new", num_workers=case))  # noqa: E731
    return judged(call, lambda num: same(num == 8), (case, f"{case:,}"))


WAVES: dict[str, Callable[[], np.ndarray]] = {
    "NaN": lambda: np.full(8000, np.nan), "infinite": lambda: np.full(8000, np.inf),
    "far beyond full scale": lambda: np.full(8000, 1e30) * np.resize([1, -1], 8000), "empty": lambda: np.zeros(0),
    "digital silence": lambda: np.zeros(8000),
}  # fmt: skip


@fault(AUDIO, "one of nine recordings is", WAVES.items())
def strange_recording(bench: Bench, case: Callable[[], np.ndarray]) -> Verdict:
    """It is listed among the rejected, and the others are used."""
    soundfile.write(bench.audio / "8.wav", case(), SAMPLE_RATE_HZ, subtype="DOUBLE")
    (bench.audio / "task.csv").unlink()
    call = lambda: prepare([bench.audio], bench.folder / "new", num_workers=0)  # noqa: E731
    judge = lambda store: same((len(store), [one.path.name for one in store.rejected]) == (8, ["8.wav"]))  # noqa: E731
    return judged(call, judge, must="work")


TABLES: dict[str, bytes] = {
    "no rows": b"path,label\n", "no header": b"0.wav,a\n", "nothing": b"", "bytes without sense": bytes(range(256)) * 9,
    "a quote that is not closed": b'path,label\n"0.wav,a\n1.wav,b\n', "UTF-16 cut in a character": b"\xff\xfep\0a\0t",
    "two columns of one name": b"path,path\n0.wav,1.wav\n", "more cells than columns": b"path\n0.wav,a,b\n",
    "a null byte": b"path,label\n0\0.wav,a\n1.wav,b\n", "a million columns": b"path" + b",a" * 10**6 + b"\n0.wav\n",
    "a cell of 10 MB": b"path,label\n0.wav," + b"a" * 10**7 + b"\n", "a file twice": b"path,label\n0.wav,a\n0.wav,b\n",
}  # fmt: skip


@fault(AUDIO, "a table with", TABLES.items())
def strange_table(bench: Bench, case: bytes) -> Verdict:
    table = bench.audio / "task.csv"
    table.write_bytes(case)

    def use() -> int:
        store = prepare([table], bench.folder / "new", num_workers=0)
        return len(store) + len(store.rejected)

    rows = len([line for line in case.split(b"\n")[1:] if line])
    return judged(use, lambda num: same(num == rows, f"{num} of {rows} rows"), (table.name,))


SOURCES: dict[str, Callable[[Path], Path]] = {
    "a folder without recordings": lambda folder: _made(folder / "none"),
    "a file that is not there": lambda folder: folder / "none.wav",
    "a device": lambda folder: Path("/dev/zero"), "a named pipe": lambda folder: _pipe(folder / "pipe.wav"),
    "a link to itself": lambda folder: _loop(folder / "loop.wav"),
    "a folder that holds a link to itself": lambda folder: _loop_within(folder / "loops"),
}  # fmt: skip


@fault(AUDIO, "a source that is", SOURCES.items())
def strange_source(bench: Bench, case: Callable[[Path], Path]) -> Verdict:
    source = case(bench.folder)
    call = lambda: prepare([source], bench.folder / "new", num_workers=0)  # noqa: E731
    judge = lambda store: same(len(store) + len(store.rejected) >= 1)  # noqa: E731
    return judged(call, judge, (source.name, "none of 1 files"))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _pipe(path: Path) -> Path:
    import os

    os.mkfifo(path)
    return path


def _loop(path: Path) -> Path:
    path.symlink_to(path)
    return path


def _loop_within(folder: Path) -> Path:
    folder.mkdir()
    (folder / "again").symlink_to(folder)
    soundfile.write(folder / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 8000), SAMPLE_RATE_HZ)
    return folder
