"""Nothing needs a POSIX system: what only those have is asked for where it is used, with another way beside it."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import melmask

SOURCE = Path(melmask.__file__).parent
POSIX = {"fcntl", "grp", "posix", "pwd", "pty", "readline", "resource", "syslog", "termios", "tty"}
# Another process without these modules, and without what os and signal have on POSIX systems only.
ELSEWHERE = """
import builtins, os, pkgutil, signal, sys
from importlib import import_module

posix, *arguments = sys.argv[1:]
real = builtins.__import__

def without_posix(name, given=None, *more, **others):
    if (given or {}).get("__name__", "").startswith("melmask") and name.partition(".")[0] in posix.split(","):
        raise ImportError(f"no module {name} on this system")
    return real(name, given, *more, **others)

builtins.__import__ = without_posix
import melmask
from melmask.cli.main import main

if not arguments:
    for module in pkgutil.walk_packages(melmask.__path__, "melmask."):
        if module.name not in ("melmask.__main__", "melmask.adapters.xares"):  # which run a command, need a package
            import_module(module.name)
    sys.exit()
import numpy, torch, soundfile, multiprocessing.util  # which may use what is removed now
for name in ("pread", "pwrite", "sched_getaffinity", "getloadavg", "posix_fallocate", "fork"):
    delattr(os, name)
del signal.SIGHUP
main(["--help"])
main(arguments)
"""


def top_level(tree: ast.Module) -> set[str]:
    """The libraries that are imported with a module, but for those whose absence is caught."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


def test_no_module_needs_a_posix_module_to_be_imported():
    for path in SOURCE.rglob("*.py"):
        assert not top_level(ast.parse(path.read_text())) & POSIX, path
    assert top_level(ast.parse("import fcntl\ntry:\n    import pwd\nexcept ImportError:\n    pass")) == {"fcntl"}


def run_elsewhere(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", ELSEWHERE, ",".join(POSIX), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_help_and_prepare_need_no_posix_system(tmp_path):
    soundfile.write(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).normal(size=16_000), 16_000)
    done = run_elsewhere("prepare", str(tmp_path / "a.wav"), "--out", str(tmp_path / "store"), "--workers", "0")
    assert done.returncode == 0, done.stderr
    assert "usage: melmask" in done.stdout and (tmp_path / "store" / "store.json").exists()


@pytest.mark.slow
def test_every_module_can_be_imported_without_posix_modules():
    done = run_elsewhere()
    assert done.returncode == 0, done.stderr
