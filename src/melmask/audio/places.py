"""Where the bytes of a recording lie: in a file of its own, or within a tar archive or an HDF5 file.

A recording within an archive has a path as if the archive were a folder: ``shard-000.tar/Yabc.flac``,
``10.h5/Yabc.wav``. Nothing is unpacked; an archive is read in place.
"""

import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from melmask.audio.facts import NOT_AUDIO, UNSUPPORTED, AudioError, no_access
from melmask.audio.formats import Content

TAR_EXTENSIONS = frozenset((".tar",))
HDF5_EXTENSIONS = frozenset((".h5", ".hdf5", ".hdf"))
ARCHIVE_EXTENSIONS = TAR_EXTENSIONS | HDF5_EXTENSIONS
# Without waiting for someone who writes to a pipe, and without changing line ends on Windows.
OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
HASHED_BYTES = 2**20  # at a time
HDF5_EXTRA = "pip install 'melmask[hdf5]'"


@dataclass(frozen=True)
class Found:
    """A recording's size and time of change, without links.

    Args:
        path: its path with all links resolved.
        size_bytes: of its content; for a recording in an HDF5 file, of its samples.
        modified_ns: time of the last change, of the archive if it is in one, in nanoseconds.
    """

    path: Path
    size_bytes: int
    modified_ns: int


def archive_of(path: Path) -> tuple[Path, str] | None:
    """The archive that a path leads into, and the name within; None if it leads into none."""
    text = str(path).lower()
    if not any(f"{extension}{os.sep}" in text for extension in ARCHIVE_EXTENSIONS):
        return None  # without looking, as of nearly all
    for parent in path.parents:
        if parent.suffix.lower() in ARCHIVE_EXTENSIONS and parent.is_file():
            return parent, path.relative_to(parent).as_posix()
    return None


def members_of(archive: Path) -> dict[str, int]:
    """The recordings or other members of an archive, in its order, with their sizes in bytes.

    Raises:
        AudioError: it is damaged, compressed, cannot be read, or h5py is not installed.
    """
    try:
        if archive.suffix.lower() in TAR_EXTENSIONS:
            return {name: size for name, (_, size) in _tar_index(archive).items()}
        return {name: item.nbytes for name, item in _datasets(archive).items()}
    except OSError as error:
        raise no_access(archive, error) from error


def find_in_archive(path: Path) -> Found:
    """A recording within an archive.

    Raises:
        OSError: no such archive or recording.
        AudioError: see `members_of`.
    """
    place = archive_of(path)
    if place is None or place[1] not in (members := members_of(place[0])):
        raise FileNotFoundError(2, "No such recording", str(path))
    real = place[0].resolve()
    return Found(real / place[1], members[place[1]], real.stat().st_mtime_ns)


@contextmanager
def opened_content(path: Path) -> Iterator[Content]:
    """The bytes of a file, or of a member of a tar archive.

    Raises:
        AudioError: there is no such file, it cannot be read, is no regular file, or has 0 bytes.
    """
    start, num_bytes, file = 0, None, path
    try:
        place = archive_of(path)
        if place is not None:
            file = place[0]
            start, num_bytes = _tar_index(file).get(place[1], (0, None))
            if num_bytes is None:
                raise FileNotFoundError(2, "No such recording in the archive", str(path))
        fd = os.open(file, OPEN_FLAGS)
    except OSError as error:  # FileNotFoundError, a dangling or circular link, no permission
        raise no_access(path, error) from error
    try:
        try:
            status = os.fstat(fd)
        except OSError as error:
            raise no_access(path, error) from error
        if not stat.S_ISREG(status.st_mode):  # reading a pipe could block for ever
            raise AudioError(NOT_AUDIO, path, "it is not a regular file. Remove it from the list.")
        content = Content(fd, status.st_size if num_bytes is None else num_bytes, start)
        if content.num_bytes == 0:
            raise AudioError("empty file", path, "it has 0 bytes. Fetch or export it again.")
        yield content
    finally:
        os.close(fd)


def sha256_of(path: Path) -> str:
    """Hash of a recording's content, for an HDF5 file of its samples.

    Raises:
        AudioError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        if archive_of(path) is None:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        dataset = dataset_at(path)
        if dataset is not None:
            for block in _in_order(dataset):
                digest.update(block.tobytes())
            return digest.hexdigest()
        with opened_content(path) as content:
            for offset in range(0, content.num_bytes, HASHED_BYTES):
                digest.update(content.read(offset, HASHED_BYTES))
        return digest.hexdigest()
    except OSError as error:
        raise no_access(path, error) from error


def _in_order(dataset: Any) -> Iterator[Any]:
    """The values of a data set of one or two dimensions, in the order of the file, in blocks."""
    size = HASHED_BYTES // dataset.dtype.itemsize
    if dataset.ndim != 2 or dataset.shape[0] > dataset.shape[1]:
        rows = max(1, size // max((1, *dataset.shape[1:])))
        yield from (dataset[start : start + rows] for start in range(0, len(dataset), rows))
    else:
        yield from (row[i : i + size] for row in dataset for i in range(0, len(row), size))


def dataset_at(path: Path) -> Any | None:
    """The h5py data set that a path leads to; None if it leads into no HDF5 file.

    Raises:
        AudioError: h5py is not installed, the file is damaged, or has no such data set.
    """
    place = archive_of(path)
    if place is None or place[0].suffix.lower() not in HDF5_EXTENSIONS:
        return None
    dataset = _datasets(place[0]).get(place[1])
    if dataset is None:
        raise AudioError("missing file", path, "no such data set in the HDF5 file. Check its name.")
    return dataset


def _tar_index(path: Path) -> dict[str, tuple[int, int]]:
    status = path.stat()
    return _indexed_tar(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4)
def _indexed_tar(path: Path, size_bytes: int, modified_ns: int) -> dict[str, tuple[int, int]]:
    """Offset and size of the members of a tar archive, by name."""
    try:
        with tarfile.open(path, "r:") as tar:
            members = {
                PurePosixPath(item.name).as_posix(): (item.offset_data, item.size) for item in tar if item.isreg()
            }
    except tarfile.TarError as error:
        detail = f"{error}. Fetch it again, or decompress it."
        raise AudioError("truncated or damaged", path, detail) from error
    return {name: (offset, size) for name, (offset, size) in members.items() if offset + size <= size_bytes}


def _datasets(path: Path) -> dict[str, Any]:
    status = path.stat()
    return _opened_hdf5(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=2)
def _opened_hdf5(path: Path, size_bytes: int, modified_ns: int) -> dict[str, Any]:
    """The data sets of an HDF5 file, in the order of their names."""
    h5py = _h5py()
    if h5py is None:
        raise AudioError(UNSUPPORTED, path, f"HDF5 needs the extra hdf5: {HDF5_EXTRA}.")
    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item

    try:
        h5py.File(path, "r").visititems(visit)  # open as long as its data sets are
    except OSError as error:
        if error.errno is not None:  # the system's, not HDF5's
            raise no_access(path, error) from error
        raise AudioError("truncated or damaged", path, f"{error}. Fetch or export it again.") from error
    return found


def _h5py() -> ModuleType | None:
    try:
        import h5py
    except ImportError:
        return None
    return h5py
