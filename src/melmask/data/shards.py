"""The workers of `prepare`: each packs recordings into a shard, a .npy file and a .json file that describes it."""

import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch

from melmask.audio import UNSUPPORTED, AudioError, Energy, Note, decode, is_out_of_memory, sha256_of
from melmask.data.archives import LOG_MEL_EXTENSION
from melmask.data.log_mel_files import log_mel_blocks
from melmask.data.notes import unseen_note
from melmask.files import atomic_write
from melmask.logmel import LogMel, LogMelSpec
from melmask.runtime import one_thread

AnyShard = TypeVar("AnyShard")
Made = TypeVar("Made")

CRASHED = (
    "the process that decoded it was killed or crashed, alone as well: memory may have run out. Prepare again to retry "
    "it; if it fails again, convert it to WAV or FLAC, or remove it."
)


@dataclass(frozen=True)
class Recording:
    """An audio file, as found when the sources were listed. Its repr is part of the shards' keys.

    Args:
        path: the file, with all links resolved.
        size_bytes: its size.
        modified_ns: time of its last change, in nanoseconds.
    """

    path: Path
    size_bytes: int
    modified_ns: int


@dataclass(frozen=True)
class Shard:
    """A shard to be made: the recordings that one worker packs into one file.

    Args:
        key: hash of everything that the shard depends on; the stem of its files.
        recordings: in the order in which they are packed.
    """

    key: str
    recordings: tuple[Recording, ...]


@dataclass(frozen=True)
class Job:
    """The settings that all shards of a store share.

    Args:
        folder: that the shards are written to.
        spec: the front end.
    """

    folder: Path
    spec: LogMelSpec

    def log_mels(self, shard: Shard) -> Path:
        """The .npy file with the log-mels of all its recordings."""
        return self.folder / f"{shard.key}.npy"

    def description(self, shard: Shard) -> Path:
        """The .json file with each recording's place in the shard; written last, so it marks a finished shard."""
        return self.folder / f"{shard.key}.json"

    def marker(self, shard: Shard) -> Path:
        """A file with the index of the recording that is being decoded; there only while a worker makes the shard."""
        return self.folder / f"{shard.key}.now"

    def is_done(self, shard: Shard) -> bool:
        """Whether both files are there."""
        return self.description(shard).exists() and self.log_mels(shard).exists()

    def retry_mark(self, shard: Shard) -> Path:
        """A file that is there if the shard is done, but rejects a recording for what may pass."""
        return self.folder / f"{shard.key}.retry"


def make_shards(job: Job, shards: Sequence[Shard], num_workers: int) -> Iterator[Shard]:
    """Make all shards that are not finished yet, and yield each as it is done, in any order.

    If memory runs out, a disk does not answer, or a worker process is killed or crashes, the shards that were being
    made are made again once all others are done, one at a time, each in a process of its own. A recording that fails
    then too is rejected for now: the next call makes its shard again.

    Args:
        job: the settings.
        shards: all shards of the store.
        num_workers: processes; 0 for this one.

    Raises:
        RuntimeError: workers crash before they read a recording.
    """
    todo = {shard.key: shard for shard in shards if not job.is_done(shard)}
    yield from (shard for shard in shards if shard.key not in todo)
    put_off: list[Shard] = []
    if num_workers == 0:
        with one_thread():  # as a worker does
            for shard in todo.values():
                if make_shard(job, shard):
                    yield shard
                else:
                    put_off.append(shard)
            for shard in put_off:
                make_shard(job, shard, is_last_try=True)
                yield shard
        return
    while todo:
        num_left = len(todo)
        try:
            for shard, is_made in in_processes(partial(make_shard, job), list(todo.values()), num_workers):
                del todo[shard.key]
                if is_made:
                    yield shard
                else:
                    put_off.append(shard)
        except BrokenProcessPool as error:
            suspects = [shard for shard in todo.values() if job.marker(shard).exists()]
            if not suspects and len(todo) == num_left:
                raise RuntimeError(
                    "worker processes die before they read a file: call prepare below `if __name__ == '__main__':` "
                    "in scripts, or with num_workers=0 to see the error"
                ) from error
            for shard in suspects:
                job.marker(shard).unlink()
                put_off.append(todo.pop(shard.key))
    for shard in put_off:
        _make_alone(job, shard)
        yield shard


def make_shard(job: Job, shard: Shard, crashed: Set[int] = frozenset(), is_last_try: bool = False) -> bool:
    """Decode a shard's recordings and write its two files, unless they are there.

    Args:
        job: the settings.
        shard: the recordings.
        crashed: indices of recordings that crashed a worker; they are rejected without being read.
        is_last_try: reject recordings for which memory runs out or a disk does not answer.

    Returns:
        Whether it is made; if not, such a failure is likely to pass, and nothing was written.
    """
    if job.is_done(shard):
        return True
    log_mel = LogMel(job.spec)
    entries: list[dict[str, Any]] = []
    is_to_be_retried = False
    try:
        with (
            atomic_write(job.log_mels(shard)) as temporary,
            temporary.open("wb") as file,
            job.marker(shard).open("wb", buffering=0) as marker,
        ):
            writer = ShardWriter(file, job.spec.num_mels)
            for index, recording in enumerate(shard.recordings):
                os.pwrite(marker.fileno(), str(index).encode(), 0)  # indices only grow longer: none needs truncating
                try:
                    if index in crashed:
                        raise AudioError("worker crash", recording.path, CRASHED, is_transient=True)
                    entries.append(_append_recording(writer, recording.path, log_mel))
                except AudioError as error:
                    if error.is_transient and error.reason != UNSUPPORTED and not is_last_try:
                        raise
                    entries.append({"reason": error.reason, "detail": error.detail})
                    is_to_be_retried = is_to_be_retried or error.is_transient
            writer.finish()
    except AudioError:
        job.marker(shard).unlink()
        return False
    if is_to_be_retried:
        job.retry_mark(shard).touch()
    totals = {"sum": writer.sum, "sum_of_squares": writer.sum_of_squares}
    with atomic_write(job.description(shard)) as temporary:
        temporary.write_text(json.dumps(totals | {"entries": entries}))  # indenting would slow small shards by a tenth
    job.marker(shard).unlink()
    return True


def _append_recording(writer: "ShardWriter", path: Path, log_mel: LogMel) -> dict[str, Any]:
    """Append a file's log-mel block by block and return its entry in the description; on failure nothing is appended.

    Raises:
        AudioError: the file cannot be used.
    """
    start_frame, append = writer.num_frames, _append_sound
    if path.suffix.lower() == LOG_MEL_EXTENSION:
        append = _append_log_mels
    try:
        with torch.inference_mode(), _reported(path):
            samples, notes = append(writer, path, log_mel)
            sha256 = sha256_of(path)
    except AudioError:
        writer.rollback()
        raise
    writer.commit()
    num_frames = writer.num_frames - start_frame
    entry: dict[str, Any] = {
        "start_frame": start_frame,
        "num_frames": num_frames,
        "duration_s": samples.number / log_mel.spec.sample_rate_hz,
        "sha256": sha256,
        "samples": samples.digest.hexdigest(),
    }
    return entry | {"notes": [[note.kind, note.detail] for note in notes]} if notes else entry


def _append_sound(writer: "ShardWriter", path: Path, log_mel: LogMel) -> tuple["_Samples", list[Note]]:
    """Append the log-mels of an audio file; its samples, and what was found about it."""
    spec = log_mel.spec
    notes: list[Note] = []
    energy = Energy(spec.fmin_hz, spec.fmax_hz, spec.sample_rate_hz)

    def append(pieces: Iterator[np.ndarray]) -> _Samples:
        writer.rollback()  # of the same file, where its channels were mixed otherwise
        samples = _Samples()
        for frames in log_mel.for_store(samples.counted(pieces)):
            if not writer.append(frames):
                detail = "its samples are so large that their power overflows. Export it again at a lower level."
                raise AudioError("contains NaN or infinite samples", path, detail)
        return samples

    samples = decode(path, spec.sample_rate_hz, append, notes.append, energy)
    unseen = unseen_note(spec, energy)
    return samples, [*notes, unseen] if unseen else notes


def _append_log_mels(writer: "ShardWriter", path: Path, log_mel: LogMel) -> tuple["_Samples", list[Note]]:
    """Append the log-mels of a .npy file."""
    samples = _Samples()
    for frames in samples.counted(log_mel_blocks(path, log_mel.spec)):
        writer.append(frames)
    samples.number *= log_mel.spec.hop_length
    return samples, []


class _Samples:
    """How many samples a recording has, and their hash, as they pass by."""

    def __init__(self) -> None:
        self.number, self.digest = 0, hashlib.blake2b(digest_size=16)

    def counted(self, pieces: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for piece in pieces:
            self.number += len(piece)
            self.digest.update(np.ascontiguousarray(piece).data)
            yield piece


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Report memory that ran out, and any unexpected error of a decoding library, as an AudioError."""
    try:
        yield
    except (AudioError, OSError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            detail = "memory ran out while it was decoded. Close other programs, or prepare with fewer workers."
            raise AudioError("out of memory", path, detail, is_transient=True) from error
        raise AudioError("unreadable", path, f"{type(error).__name__}: {error}. Convert it to WAV or FLAC.") from error


class ShardWriter:
    """A .npy file [frame, mel] in float16 that grows by frames, and the sums of its values.

    Args:
        file: opened for writing, empty.
        num_mels: width of a row.
    """

    def __init__(self, file: BinaryIO, num_mels: int) -> None:
        self.file, self.num_mels = file, num_mels
        self.num_frames = self._num_committed = 0
        self.sum = self.sum_of_squares = 0.0
        self._pending = np.zeros(2)  # sum and sum of squares since the last commit
        self._write_header()
        self._data_start = file.tell()

    def append(self, frames: np.ndarray) -> bool:
        """Write frames; returns whether all their values are finite, as then so is their sum."""
        self.file.write(np.ascontiguousarray(frames).data)
        self.num_frames += len(frames)
        values = frames.astype(np.float64)
        total = values.sum()
        self._pending += total, np.square(values, out=values).sum()
        return bool(np.isfinite(total))

    def commit(self) -> None:
        """Keep what was appended since the last commit."""
        self.sum += float(self._pending[0])
        self.sum_of_squares += float(self._pending[1])
        self._pending[:] = 0
        self._num_committed = self.num_frames

    def rollback(self) -> None:
        """Remove what was appended since the last commit; nothing is written where nothing was."""
        if self.num_frames == self._num_committed:
            return
        self.file.seek(self._data_start + self._num_committed * self.num_mels * np.dtype(np.float16).itemsize)
        self.file.truncate()
        self.num_frames = self._num_committed
        self._pending[:] = 0

    def finish(self) -> None:
        """Write the header again, now that the number of frames is known."""
        self.file.seek(0)
        self._write_header()
        assert self.file.tell() == self._data_start  # NumPy leaves room in headers for the first axis to grow

    def _write_header(self) -> None:
        header = {"descr": "<f2", "fortran_order": False, "shape": (self.num_frames, self.num_mels)}
        np.lib.format.write_array_header_1_0(self.file, header)


def _make_alone(job: Job, shard: Shard) -> None:
    """Make a shard in a process of its own, repeatedly until all recordings that crash it are found."""
    crashed: set[int] = set()
    while True:
        try:
            make = partial(make_shard, job, crashed=frozenset(crashed), is_last_try=True)
            list(in_processes(make, [shard], 1))
            return
        except BrokenProcessPool as error:
            culprit = int(job.marker(shard).read_text()) if job.marker(shard).exists() else None
            if culprit is None or culprit in crashed:
                raise RuntimeError("worker processes crash whatever they read: see the messages above") from error
            job.marker(shard).unlink()
            crashed.add(culprit)


def in_processes(
    make: Callable[[AnyShard], Made], shards: Sequence[AnyShard], num_workers: int
) -> Iterator[tuple[AnyShard, Made]]:
    """Make shards in other processes, at least one; each as it is done, with what ``make`` returned.

    Args:
        make: called in another process, so that it and the shards must be picklable.
        shards: at least one, of any kind.
        num_workers: processes, if there are as many shards.

    Raises:
        BrokenProcessPool: a process died.
    """
    # Spawned, because forking a process that has run torch or holds locks can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(num_workers, len(shards)), context, initializer=_start_worker) as pool:
        shard_of = {pool.submit(make, shard): shard for shard in shards}
        try:
            for future in as_completed(shard_of):
                yield shard_of[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)  # waits for shards that are being made, not for all that are queued
            raise


def _start_worker() -> None:
    """What a process does first that makes shards: it computes on one thread, and ends with its parent only."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only the parent handles Ctrl-C, so that workers finish their shards
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """End this worker when its parent is gone: a killed parent cannot stop its workers, which would wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
