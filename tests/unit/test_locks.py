"""Locks: one writes or several read, and a lock ends with its process."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from melmask import locks
from melmask.locks import Locked, exclusive, shared, temporary_folder

HOLDER = """
import sys
from pathlib import Path
from melmask import locks

with getattr(locks, sys.argv[1])(Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(kind: str, path: Path):
    """Another process that holds a lock; killed at the end, or before."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", HOLDER, kind, str(path)]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"held\n"
        try:
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


def test_a_held_lock_is_refused_by_name_and_ends_with_its_process(tmp_path):
    path = tmp_path / ".lock"
    with held("exclusive", path) as process:
        for lock in (exclusive, shared):
            with pytest.raises(Locked, match="run is trained"), lock(path, "run is trained"):
                pass
        with pytest.raises(Locked, match=r"another process uses .*\(it holds \.lock\)"), exclusive(path, wait_s=0.1):
            pass
        process.send_signal(signal.SIGKILL)
        with exclusive(path, wait_s=5.0):  # waits until it has ended
            pass
    with held("shared", path), shared(path), shared(path), pytest.raises(Locked), exclusive(path):
        pass
    with exclusive(path):
        pass


def test_where_only_reading_is_possible_a_shared_lock_is_none(tmp_path, monkeypatch):
    real, path = os.open, tmp_path / ".lock"

    def read_only(name: object, flags: int, *more: int, **others: int) -> int:
        if flags & (os.O_CREAT | os.O_RDWR | os.O_WRONLY):
            raise OSError(errno.EROFS, "Read-only file system", str(name))
        return real(name, flags, *more, **others)

    monkeypatch.setattr(os, "open", read_only)
    with shared(path):
        assert not path.exists()
    with pytest.raises(OSError, match="Read-only"), exclusive(path):
        pass
    monkeypatch.undo()
    path.touch()
    monkeypatch.setattr(os, "open", read_only)
    with shared(path):
        pass
    with pytest.raises(OSError, match="none"), shared(tmp_path / "none" / ".lock"):
        pass


def test_without_fcntl_a_shared_lock_waits_for_exclusive_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    with exclusive(tmp_path / ".lock"), pytest.raises(Locked), shared(tmp_path / ".lock"):
        pass
    with shared(tmp_path / ".lock"):
        pass


def test_temporary_folders_of_killed_processes_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("melmask-dead", "melmask-mine"):
        (tmp_path / name / "store").mkdir(parents=True)
    (tmp_path / "melmask-dead" / locks.MARK).touch()
    with temporary_folder() as first, temporary_folder() as second:
        assert first.is_dir() and second.is_dir()
        assert {path.name for path in tmp_path.iterdir()} == {"melmask-mine", first.name, second.name}
    assert [path.name for path in tmp_path.iterdir()] == ["melmask-mine"]
