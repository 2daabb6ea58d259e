"""A cache of features, keyed by everything that they depend on."""

import hashlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32
from xxhash import xxh3_128

from melmask.data.store import Store
from melmask.encoders.base import AudioEncoder, Progress, no_progress
from melmask.encoders.timesteps import TimeSteps, finite
from melmask.files import atomic_write, checksum
from melmask.runtime import cache_folder

Reads = Literal["clips", "time steps"]  # what a probe reads: one vector a clip, or one a time step

SEAL_BYTES = 16  # the checksum behind the array of an entry
FORMAT = 1  # raise it whenever an encoder of the same identity gives other features than before


def cached_embed(
    encoder: AudioEncoder, store: Store, folder: Path | None = None, progress: Progress = no_progress
) -> Float32[np.ndarray, "clip dim"]:
    """The embeddings of all of a store's clips, read from the cache if they are there, else computed and cached.

    The key is the encoder's identity and the store's fingerprint, so that other weights, settings, recordings or tables
    have other entries. An entry is written whole or not at all, and processes may write the same one at the same time.
    It ends with its checksum: a damaged one is named in a warning and computed again. Where nothing can be written, as
    on a disk that can only be read, nothing is cached. Encoders without an identity are never cached.

    Args:
        encoder: any encoder.
        store: packed log-mels.
        folder: of the cache; None for the folder "features" in `melmask.runtime.cache_folder`.
        progress: called with the number of chunks done and in total, if they have to be computed.

    Raises:
        ValueError: the encoder cannot embed this store.
    """
    if not encoder.identity:
        return encoder.embed_store(store, progress=progress)
    path = _entry(folder, encoder.identity, store, "clips")
    kept = _read(path, len(store))
    if kept is None:
        with store.in_use():
            made = encoder.embed_store(store, progress=progress)
        kept = finite(made, encoder.name, lambda row: store.clips[row].clip.path)
        if _can_write(path):
            with atomic_write(path) as temporary:
                with temporary.open("wb") as file:
                    np.save(file, kept, allow_pickle=False)
                _seal(temporary)
    return kept


def cached_time_steps(
    encoder: AudioEncoder,
    store: Store,
    rows: Sequence[int] | None = None,
    folder: Path | None = None,
    progress: Progress = no_progress,
) -> TimeSteps:
    """The features of every time step of a store's clips, or of those in ``rows``, as a memory map of a cached file.

    They are written to the file as they are computed, and read from it as they are used, so that neither needs much
    memory. Otherwise as `cached_embed`.
    """
    rows = range(len(store)) if rows is None else rows
    if not encoder.identity:
        return encoder.time_steps(store, rows, progress)
    length = np.array([encoder.num_steps(int(store.clips.num_frames[row])) for row in rows])
    of_rows = hashlib.sha256(repr(list(rows)).encode()).hexdigest()[:16]
    path = _entry(folder, encoder.identity, store, f"steps-{of_rows}")
    steps = _read(path, int(length.sum()), mapped=True)
    if steps is None:
        if not _can_write(path):
            return encoder.time_steps(store, rows, progress)
        with atomic_write(path) as temporary, store.in_use():

            def allocate(shape: tuple[int, int]) -> np.ndarray:
                made = np.lib.format.open_memmap(temporary, "w+", np.float16, shape)
                _reserve(temporary)
                return made

            made = encoder.time_steps(store, rows, progress, allocate).steps
            assert isinstance(made, np.memmap)
            made.flush()
            del made  # a mapped file cannot be renamed on Windows
            _seal(temporary)
        steps = np.load(path, mmap_mode="r", allow_pickle=False)
    return TimeSteps(np.asarray(steps), np.cumsum(length) - length, length)


def cached_features(
    reads: Reads, encoder: AudioEncoder, store: Store, folder: Path | None = None, progress: Progress = no_progress
) -> Float32[np.ndarray, "clip dim"] | TimeSteps:
    """The features that a probe reads: time steps if it reads them and the encoder has any, else embeddings.

    Args:
        reads: the trait of the probe.
        encoder, store, folder, progress: as of `cached_embed`.
    """
    if reads == "time steps" and encoder.has_time_steps:
        return cached_time_steps(encoder, store, folder=folder, progress=progress)
    return cached_embed(encoder, store, folder, progress)


def _entry(folder: Path | None, identity: str, store: Store, what: str) -> Path:
    key = hashlib.sha256(f"{FORMAT} {identity} {store.fingerprint}".encode()).hexdigest()
    return (folder or cache_folder() / "features") / f"{key[:32]}-{what}.npy"


def check_entry(path: Path) -> str:
    """Read an entry of the cache; why it is to be computed again, or nothing.

    Raises:
        ValueError: it is damaged.
    """
    return _opened(path)[1]


def _read(path: Path, num_rows: int, mapped: bool = False) -> np.ndarray | None:
    """An entry, or None if there is none, or one without a checksum, of an earlier version, or a damaged one."""
    if not path.exists():
        return None
    try:
        kept, stale = _opened(path)
    except ValueError as error:
        warnings.warn(str(error), stacklevel=4)
        return None
    if stale or len(kept) != num_rows:
        return None
    return kept if mapped else np.array(kept)


def _opened(path: Path) -> tuple[np.memmap, str]:
    """An entry that is whole, and why it is to be computed again all the same: an earlier version wrote it.

    Raises:
        ValueError: it is damaged.
    """
    try:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)  # of another kind of file np.load would advise to unpickle it
        kept = np.load(path, mmap_mode="r", allow_pickle=False)
        end, size = kept.offset + kept.nbytes, path.stat().st_size
        if size == end:
            return kept, "it has no checksum, as in an earlier version, or is cut off: it is computed again when needed"
        if kept.ndim == 2 and size == end + SEAL_BYTES and _checksum(path, end) == _last(path):
            return kept, ""
        fault = "its checksum or shape differs"
    except (OSError, ValueError, EOFError, AttributeError) as error:
        fault = str(error).partition(".")[0]
    raise ValueError(f"{path} is damaged, and computed again: {fault}")


def _seal(path: Path) -> None:
    """Append the checksum of a file's content to it."""
    with path.open("ab") as file:
        file.write(bytes.fromhex(checksum(path)))


def _checksum(path: Path, num_bytes: int) -> bytes:
    """Of the first so many bytes of a file."""
    total = xxh3_128()
    with path.open("rb") as file:
        while num_bytes > 0 and (block := file.read(min(num_bytes, 2**20))):
            total.update(block)
            num_bytes -= len(block)
    return total.digest()


def _last(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-SEAL_BYTES, os.SEEK_END)
        return file.read()


def _reserve(path: Path) -> None:
    """Reserve the blocks of a file, as writing to the map of one ends the process where the disk is full.

    Raises:
        OSError: the disk is full.
    """
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _can_write(path: Path) -> bool:
    """Whether an entry can be written; its folder is made if it is missing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.access(path.parent, os.W_OK)
    except OSError:
        return False
