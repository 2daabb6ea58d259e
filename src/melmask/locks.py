"""Locks between processes, each on a file: they end with their process, however it ends.

One process writes (`exclusive`), or several read (`shared`). A lock's file stays when the lock is released, since
removing it would let two processes lock two files of one name.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

try:
    import fcntl
except ImportError:  # as on Windows
    fcntl = None  # type: ignore[assignment]

POLL_S = 0.05
PREFIX, MARK, LOCK = "melmask-", ".melmask-temporary", ".lock"  # of temporary folders


class Locked(RuntimeError):
    """Another process holds the lock."""


@contextmanager
def exclusive(path: Path, busy: str = "", wait_s: float = 0.0) -> Iterator[None]:
    """Hold a lock that no other process holds, neither alone nor shared.

    Args:
        path: the lock's file, which is made if it is missing.
        busy: what `Locked` says: who holds the lock, and the remedy.
        wait_s: how long to wait for others, in seconds.

    Raises:
        Locked: another process holds it.
        OSError: the file cannot be written.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=wait_s, poll_interval=POLL_S)
    except Timeout as error:
        raise Locked(busy or _busy(path)) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def shared(path: Path, busy: str = "", wait_s: float = 0.0) -> Iterator[None]:
    """Hold a lock that others may share, and that keeps `exclusive` ones off.

    Where the lock's file can neither be made nor opened, as on a disk that can only be read, nothing is locked: nobody
    writes there. On Windows a shared lock only waits until no process holds an exclusive one: there, files that are
    read cannot be replaced.

    Args:
        path, busy, wait_s: as of `exclusive`.

    Raises:
        Locked: another process holds it exclusively.
        FileNotFoundError: the folder does not exist.
    """
    if fcntl is None:
        with suppress(PermissionError), exclusive(path, busy, wait_s):
            pass
        yield
        return
    handle = _open_for_reading(path)
    if handle is None:
        yield
        return
    try:
        ends = time.monotonic() + wait_s
        while not _lock_shared(handle):
            if time.monotonic() >= ends:
                raise Locked(busy or _busy(path))
            time.sleep(POLL_S)
        yield
    finally:
        os.close(handle)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder in the system's folder for temporary files, removed in the end.

    Those that killed processes left are removed first: they have a mark, and no process holds their lock.
    """
    for mark in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{MARK}"):
        with suppress(Locked, OSError), exclusive(mark.with_name(LOCK)):
            shutil.rmtree(mark.parent, ignore_errors=True)
    made = tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
    with made as name, exclusive(Path(name) / LOCK):
        (Path(name) / MARK).touch()
        yield Path(name)


def _open_for_reading(path: Path) -> int | None:
    """The lock's file, made if it is missing; None where that is impossible."""
    for flags in (os.O_RDONLY | os.O_CREAT, os.O_RDONLY):
        try:
            return os.open(path, flags, 0o666)
        except OSError:
            if not path.parent.is_dir():
                raise
    return None


def _lock_shared(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _busy(path: Path) -> str:
    return f"another process uses {path.parent} (it holds {path.name}): wait for it, or choose another place"
