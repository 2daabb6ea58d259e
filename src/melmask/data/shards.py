"""The workers of `prepare`: a unit of recordings -> one shard and a JSON that describes it, in processes."""

import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence, Set
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from melmask.audio import AudioError, read_audio
from melmask.files import atomic_write
from melmask.logmel import LogMel, LogMelSpec


@dataclass(frozen=True)
class Recording:
    """An audio file as it was found.

    Args:
        path: the real file, with all links resolved.
        size_bytes: its size.
        modified_ns: time of its last change.
    """

    path: Path
    size_bytes: int
    modified_ns: int


@dataclass(frozen=True)
class Unit:
    """Recordings that one worker puts into one shard.

    Args:
        key: hash of everything the shard depends on; names its files.
        recordings: in the order of the shard.
    """

    key: str
    recordings: tuple[Recording, ...]


@dataclass(frozen=True)
class Job:
    """What is the same for all units.

    Args:
        folder: where the shards go.
        spec: the front end.
        min_frames: shorter recordings are rejected.
    """

    folder: Path
    spec: LogMelSpec
    min_frames: int

    def shard(self, unit: Unit) -> Path:
        return self.folder / f"{unit.key}.npy"

    def description(self, unit: Unit) -> Path:
        """Written after the shard: where it is, the unit is done."""
        return self.folder / f"{unit.key}.json"

    def marker(self, unit: Unit) -> Path:
        """Holds the number of the recording a worker is at, for as long as it is at the unit."""
        return self.folder / f"{unit.key}.now"

    def is_done(self, unit: Unit) -> bool:
        return self.description(unit).exists() and self.shard(unit).exists()


def make_units(job: Job, units: Sequence[Unit], num_workers: int) -> Iterator[Unit]:
    """Make the shards of all units, and yield each unit as it is done, in any order.

    If a worker dies, e.g. of a fault in a decoder, the units that were being made are made again one at a time, each by
    a worker of its own. If that dies too, the recording it was at is to blame: it is rejected, the rest is made.

    Raises:
        RuntimeError: workers die before they come to read a recording.
    """
    todo = {unit.key: unit for unit in units if not job.is_done(unit)}
    yield from (unit for unit in units if unit.key not in todo)
    if num_workers == 0:
        with _one_thread():
            for unit in todo.values():
                make_unit(job, unit)
                yield unit
        return
    while todo:
        try:
            for unit in _in_pool(job, list(todo.values()), num_workers):
                yield todo.pop(unit.key)
        except BrokenProcessPool as error:
            suspects = [unit for unit in todo.values() if job.marker(unit).exists()]
            if not suspects:
                raise RuntimeError(
                    "worker processes die before they read a file: call prepare below `if __name__ == '__main__':` "
                    "in scripts, or with num_workers=0 to see the error"
                ) from error
            for unit in suspects:
                _make_alone(job, unit)
                yield todo.pop(unit.key)


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in a worker: on more, single clips take longer, and a matrix product may round in another order."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def make_unit(job: Job, unit: Unit, crashed: Set[int] = frozenset()) -> None:
    """Make the shard of a unit and its description.

    Args:
        job: the settings.
        unit: the recordings.
        crashed: numbers of those recordings that killed a worker; they are not touched.
    """
    if job.is_done(unit):
        return
    log_mel = LogMel(job.spec)
    entries: list[dict[str, Any]] = []
    with (
        atomic_write(job.shard(unit)) as temporary,
        temporary.open("wb") as file,
        job.marker(unit).open("wb", buffering=0) as marker,
    ):
        shard = _ShardWriter(file, job.spec.num_mels)
        for number, recording in enumerate(unit.recordings):
            os.pwrite(marker.fileno(), str(number).encode(), 0)  # over the last one, which was no longer
            try:
                if number in crashed:
                    detail = "the process that decoded it died. Convert it to WAV or FLAC, or remove it."
                    raise AudioError("worker crash", recording.path, detail)
                entries.append(_add(recording.path, log_mel, job.min_frames, shard))
            except AudioError as error:
                entries.append({"reason": error.reason, "detail": error.detail})
        shard.finish()
    totals = {"sum": shard.sum, "sum_of_squares": shard.sum_of_squares}
    with atomic_write(job.description(unit)) as temporary:
        temporary.write_text(json.dumps(totals | {"entries": entries}))  # indented, it would take a tenth of the unit
    job.marker(unit).unlink()


def _add(path: Path, log_mel: LogMel, min_frames: int, shard: "_ShardWriter") -> dict[str, Any]:
    """Append the log-mel of a file, block by block; nothing is appended if that fails."""
    spec = log_mel.spec
    wave = _read(path, spec.sample_rate_hz)
    num_frames = spec.num_frames(len(wave))
    if num_frames < min_frames or len(wave) <= spec.n_fft // 2:
        duration_ms = 1000 * len(wave) / spec.sample_rate_hz
        detail = f"{duration_ms:.0f} ms give {num_frames} frames, at least {min_frames} are needed. Remove it."
        raise AudioError("too short", path, detail)
    start_frame = shard.num_frames
    with torch.inference_mode():
        for block in log_mel.in_blocks(torch.from_numpy(wave)[None]):
            if not shard.append(block[0].T.half().numpy()):
                shard.cut(start_frame)
                detail = "its samples are so large that their power overflows. Export it again at a sane level."
                raise AudioError("contains NaN or infinite samples", path, detail)
    shard.commit()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    duration_s = len(wave) / spec.sample_rate_hz
    return {"start_frame": start_frame, "num_frames": num_frames, "duration_s": duration_s, "sha256": digest}


def _read(path: Path, sample_rate_hz: int) -> np.ndarray:
    """`read_audio`, with every other error that a strange file may raise in a library turned into an AudioError."""
    try:
        return read_audio(path, sample_rate_hz)
    except AudioError:
        raise
    except Exception as error:
        raise AudioError("unreadable", path, f"{type(error).__name__}: {error}. Convert it to WAV or FLAC.") from error


class _ShardWriter:
    """A .npy file that grows by frames, with the sums of its values.

    Args:
        file: opened for writing, empty.
        num_mels: width of a row.
    """

    def __init__(self, file: BinaryIO, num_mels: int) -> None:
        self.file, self.num_mels = file, num_mels
        self.num_frames = 0
        self.sum = self.sum_of_squares = 0.0
        self._pending = np.zeros(2)
        self._write_header()
        self._data_start = file.tell()

    def append(self, frames: np.ndarray) -> bool:
        """Write frames; False if one of their values is NaN or infinite, for then so is their sum."""
        self.file.write(np.ascontiguousarray(frames).data)
        self.num_frames += len(frames)
        values = frames.astype(np.float64)
        total = values.sum()
        self._pending += total, np.square(values, out=values).sum()
        return bool(np.isfinite(total))

    def commit(self) -> None:
        """Keep what was appended since the last commit or cut."""
        self.sum += float(self._pending[0])
        self.sum_of_squares += float(self._pending[1])
        self._pending[:] = 0

    def cut(self, num_frames: int) -> None:
        """Undo what was appended since the last commit, when there were ``num_frames``."""
        self.file.seek(self._data_start + num_frames * self.num_mels * np.dtype(np.float16).itemsize)
        self.file.truncate()
        self.num_frames = num_frames
        self._pending[:] = 0

    def finish(self) -> None:
        self.file.seek(0)
        self._write_header()
        assert self.file.tell() == self._data_start  # NumPy leaves room in headers for the first axis to grow

    def _write_header(self) -> None:
        header = {"descr": "<f2", "fortran_order": False, "shape": (self.num_frames, self.num_mels)}
        np.lib.format.write_array_header_1_0(self.file, header)


def _make_alone(job: Job, unit: Unit) -> None:
    """Make a unit in a process of its own, as often as it takes to find all recordings that kill it."""
    crashed: set[int] = set()
    while True:
        job.marker(unit).unlink(missing_ok=True)
        try:
            list(_in_pool(job, [unit], 1, frozenset(crashed)))
            return
        except BrokenProcessPool as error:
            culprit = int(job.marker(unit).read_text()) if job.marker(unit).exists() else None
            if culprit is None or culprit in crashed:
                raise RuntimeError("worker processes die for no recording's sake: see the messages above") from error
            crashed.add(culprit)


def _in_pool(job: Job, units: Sequence[Unit], num_workers: int, crashed: Set[int] = frozenset()) -> Iterator[Unit]:
    # Spawned, because forking a process that has run torch or holds locks can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(num_workers, len(units)), context, initializer=_start_worker) as pool:
        unit_of = {pool.submit(make_unit, job, unit, crashed): unit for unit in units}
        try:
            for future in as_completed(unit_of):
                future.result()
                yield unit_of[future]
        except BaseException:
            pool.shutdown(cancel_futures=True)  # waits for units that are being made, not for all that are queued
            raise


def _start_worker() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle: it lets us finish our unit
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot tell its workers to stop, and they would wait for more work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
