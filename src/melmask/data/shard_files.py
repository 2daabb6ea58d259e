"""The shards of a store as they are read: verified when first read, never mapped, and few of them open at once.

A file that is mapped and becomes shorter ends the process without a word (SIGBUS), and every map keeps a descriptor, of
which a process has 1,024. Reading takes 13 µs more for a crop of 6 s.
"""

import threading
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Float16

from melmask.data.checks import Damaged, Verifier

MAX_OPEN, MIN_OPEN = 256, 8  # shards at once, where the system allows four times as many descriptors
VALUE_BYTES = np.dtype(np.float16).itemsize


class ShardFiles:
    """Reads rows of a store's shards.

    Args:
        store: the store's folder.
        num_mels: width of a row.
        checksums: of the shards, by name; those of earlier versions have none.
        verifier: compares them with the files.
    """

    def __init__(self, store: Path, num_mels: int, checksums: Mapping[str, str], verifier: Verifier) -> None:
        self.store, self.num_mels, self.checksums, self.verifier = store, num_mels, checksums, verifier
        self._opened = lru_cache(max_open())(self._open)

    def read(self, name: str, start: int, stop: int) -> Float16[np.ndarray, "frame mel"]:
        """Rows of a shard, as an array that cannot be written to.

        Raises:
            Damaged: the shard is missing, is not what was written, or ends before these rows.
            OSError: it cannot be read.
        """
        return self._opened(name).read(start, stop)

    def _open(self, name: str) -> "_Shard":
        path = self.store / "shards" / name
        try:
            if name in self.checksums and not self.verifier.is_intact(path, self.checksums[name]):
                raise Damaged(path, "its checksum is another", self.store)
            return _Shard(path, self.num_mels, self.store)
        except FileNotFoundError as error:
            raise Damaged(path, "it is missing", self.store) from error


class _Shard:
    """An open shard; it is closed when nothing refers to it, so that one thread may read what another gives up."""

    def __init__(self, path: Path, num_mels: int, store: Path) -> None:
        self.path, self.store, self.row_bytes = path, store, num_mels * VALUE_BYTES
        self.num_mels, self.lock = num_mels, threading.Lock()
        self.file = path.open("rb", buffering=0)
        self.data_start, self.num_frames = self._check_header()

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows from start to stop."""
        parts, left = [], (stop - start) * self.row_bytes
        with self.lock:
            self.file.seek(self.data_start + start * self.row_bytes)
            while left and (part := self.file.read(left)):
                parts.append(part)
                left -= len(part)
        if left:
            raise Damaged(self.path, f"it ends before frame {stop}", self.store)
        return np.frombuffer(parts[0] if len(parts) == 1 else b"".join(parts), "<f2").reshape(-1, self.num_mels)

    def _check_header(self) -> tuple[int, int]:
        num_frames = header_frames(self.path, self.file, self.num_mels, self.store)
        return self.file.tell(), num_frames

    def __del__(self) -> None:
        if "file" in vars(self):
            self.file.close()


def header_frames(path: Path, file: IO[bytes], num_mels: int, store: Path) -> int:
    """Read the header of a shard, and check it; how many frames the shard has.

    Raises:
        Damaged: it is none of float16 [frame, mel], or the file has another size than it says.
    """
    try:
        version = np.lib.format.read_magic(file)
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except ValueError as error:
        raise Damaged(path, f"it is no .npy array ({error})", store) from error
    if version != (1, 0) or is_fortran or dtype != np.dtype("<f2") or len(shape) != 2 or shape[1] != num_mels:
        raise Damaged(path, f"its header says {dtype} {shape}, not float16 [frame, {num_mels}]", store)
    num_bytes = file.tell() + shape[0] * num_mels * VALUE_BYTES
    if (found := path.stat().st_size) != num_bytes:
        raise Damaged(path, f"it has {found:,} bytes and not {num_bytes:,}", store)
    return shape[0]


def max_open() -> int:
    """How many shards to keep open: a quarter of the descriptors that the process may have, 256 at most."""
    try:
        import resource
    except ImportError:  # as on Windows
        return MAX_OPEN
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_OPEN if limit == resource.RLIM_INFINITY else max(MIN_OPEN, min(MAX_OPEN, limit // 4))
