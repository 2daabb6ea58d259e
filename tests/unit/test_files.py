"""Atomic writing: the old content or the new, whatever happens while it is written."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from melmask import files
from melmask.files import atomic_write, read_tensors, remove_temporaries, select_prefix, write_json, write_tensors


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_new_content_replaces_the_old_only_at_the_end(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_write(path) as temporary:
        assert temporary.parent == tmp_path and temporary != path
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and names_in(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("old", ["old", None])
def test_an_error_leaves_the_old_content_and_nothing_beside_it(error, old, tmp_path):
    path = tmp_path / "a.txt"
    if old:
        path.write_text(old)
    with pytest.raises(error), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise error
    assert names_in(tmp_path) == (["a.txt"] if old else [])
    assert not old or path.read_text() == old


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a.txt"):
        pass


@pytest.mark.parametrize("write", [write_json, write_tensors], ids=lambda write: write.__name__)
def test_a_failure_to_flush_keeps_the_old_file(write, tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_text("old")

    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write(path, {}) if write is write_json else write(path, {"x": torch.zeros(2)}, {})
    assert path.read_text() == "old" and names_in(tmp_path) == ["a"]


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from melmask import files

def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

files.os.fsync = kill
files.write_tensors(Path(sys.argv[1]), {"x": torch.ones(3)}, {})
"""


def test_a_killed_process_leaves_the_old_tensors_and_its_temporary_can_be_removed(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"x": torch.zeros(3)}, {"step": "1"})
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert torch.equal(read_tensors(path)[0]["x"], torch.zeros(3))
    assert len(names_in(tmp_path)) == 2
    remove_temporaries(tmp_path)
    assert names_in(tmp_path) == ["a.safetensors"]


def test_json_is_readable_text(tmp_path):
    write_json(tmp_path / "a.json", {"name": "größe", "values": [1, 2]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"name": "größe", "values": [1, 2]} and text.endswith("}\n")


def test_tensors_come_back_with_their_metadata(tmp_path):
    path = tmp_path / "a.safetensors"
    weight = torch.arange(6.0, requires_grad=True).view(2, 3).T  # safetensors takes neither gradients nor views
    write_tensors(path, {"model.weight": weight, "step": torch.tensor(3)}, {"format": "x"})
    tensors, metadata = read_tensors(path)
    assert metadata == {"format": "x"} and tensors["step"].item() == 3
    assert torch.equal(tensors["model.weight"], weight) and not tensors["model.weight"].requires_grad
    assert list(select_prefix(tensors, "model.")) == ["weight"]


def test_missing_and_damaged_tensors_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.safetensors cannot be read"):
        read_tensors(tmp_path / "none.safetensors")
    path = tmp_path / "cut.safetensors"
    write_tensors(path, {"x": torch.zeros(100)}, {})
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"cut\.safetensors cannot be read as safetensors"):
        read_tensors(path)
