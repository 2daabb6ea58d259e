"""The workers of `prepare`: each packs recordings into a shard, a .npy file and a .json file that describes it."""

import hashlib
from collections.abc import Iterator, Sequence, Set
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from melmask.audio import (
    UNSUPPORTED,
    AudioError,
    Energy,
    Note,
    archive_of,
    decode,
    is_out_of_memory,
    no_access,
    sha256_of,
)
from melmask.data.archives import LOG_MEL_EXTENSION
from melmask.data.checks import sealed
from melmask.data.log_mel_files import log_mel_blocks
from melmask.data.notes import unseen_note
from melmask.data.processes import in_processes
from melmask.files import atomic_write, checksum, write_bytes
from melmask.logmel import LogMel, LogMelSpec
from melmask.runtime import one_thread

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
                    "worker processes die before they read a file: see the messages above, or decode without them, by "
                    "--workers 0 (num_workers=0), to see the error"
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
                marker.seek(0)
                marker.write(str(index).encode())  # indices only grow longer: none needs truncating
                try:
                    if index in crashed:
                        raise AudioError("worker crash", recording.path, CRASHED, is_transient=True)
                    entries.append(_append_recording(writer, recording.path, log_mel))
                except AudioError as found:
                    error, content = _verdict(found)
                    if error.is_transient and error.reason != UNSUPPORTED and not is_last_try:
                        raise error from found
                    entries.append({"reason": error.reason, "detail": error.detail, **content})
                    is_to_be_retried = is_to_be_retried or error.is_transient
            writer.finish()
            file.flush()
            written = {"sum": writer.sum, "sum_of_squares": writer.sum_of_squares, "checksum": checksum(temporary)}
    except AudioError:
        job.marker(shard).unlink()
        return False
    if is_to_be_retried:
        job.retry_mark(shard).touch()
    write_bytes(job.description(shard), sealed(written | {"entries": entries}))
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


def _verdict(error: AudioError) -> tuple[AudioError, dict[str, str]]:
    """Why a recording cannot be used, and the hash of its file, by which a change of it is found.

    A file that cannot be read to its end is not judged by what a decoder made of its beginning.
    """
    is_file = archive_of(error.path) is not None or error.path.is_file()
    if error.is_transient or not is_file:  # reading a pipe could block for ever
        return error, {}
    try:
        return error, {"sha256": sha256_of(error.path)}
    except AudioError as other:
        return other if other.is_transient else error, {}


def _append_sound(writer: "ShardWriter", path: Path, log_mel: LogMel) -> tuple["_Samples", list[Note]]:
    """Append the log-mels of an audio file; its samples, and what was found about it."""
    spec = log_mel.spec
    notes: list[Note] = []
    energy = Energy(spec.fmin_hz, spec.fmax_hz, spec.sample_rate_hz)

    def append(pieces: Iterator[np.ndarray]) -> _Samples:
        writer.rollback()  # of the same file, where its channels were mixed otherwise
        samples = _Samples()
        for frames in log_mel.for_store(samples.counted(pieces)):
            if not _written(writer, frames):
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
        _written(writer, frames)
    samples.number *= log_mel.spec.hop_length
    return samples, []


class _NotWritten(Exception):
    """The store's disk does not take the frames, which is no fault of the recording."""


def _written(writer: "ShardWriter", frames: np.ndarray) -> bool:
    """Append frames; whether all of their values are finite."""
    try:
        return writer.append(frames)
    except OSError as error:
        raise _NotWritten from error


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
    """Report memory that ran out, and any unexpected error of the system or a library, as an AudioError."""
    try:
        yield
    except AudioError:
        raise
    except _NotWritten as error:
        assert error.__cause__ is not None
        raise error.__cause__ from None
    except OSError as error:
        raise no_access(path, error) from error
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
