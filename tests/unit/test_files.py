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
from melmask.files import (
    append_line,
    append_lines,
    atomic_write,
    checksum,
    named_lines,
    read_json,
    read_lines,
    read_tensors,
    remove_temporaries,
    replace_lines,
    select_prefix,
    write_json,
    write_tensors,
)


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


def test_every_file_has_the_mode_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(2)}, {})
        write_json(tmp_path / "a.json", {})
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in sorted(tmp_path.iterdir())] == [0o640, 0o640]


def test_a_failure_to_write_names_the_file(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise files.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(files, "save_file", fail)
    with pytest.raises(OSError, match=r"a\.safetensors cannot be written: .*No space left"):
        write_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(2)}, {})
    with (
        pytest.raises(OSError, match=r"No space left on device; free some space and call again.*b\.json"),
        atomic_write(tmp_path / "b.json"),
    ):
        raise OSError(28, "No space left on device")
    assert not names_in(tmp_path)


def test_a_flipped_bit_anywhere_in_a_file_of_tensors_is_found(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"x": torch.arange(5.0), "n": torch.tensor(3), "none": torch.zeros(0, 2)}, {"step": "120"})
    whole = path.read_bytes()
    read_tensors(path, needed=["x"], stated=["step"])
    kept = read_tensors(path)
    for bit in range(0, 8 * len(whole), 7):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            tensors, metadata = read_tensors(path)
        except ValueError as error:
            assert str(path) in str(error) and "restore it from a copy" in str(error)
        else:  # the flip is in the name of the checksum, or in white space
            assert all(torch.equal(tensors[name], value) for name, value in kept[0].items())
            assert metadata["step"] == "120"


def test_tensors_without_a_checksum_are_read_and_what_is_missing_is_named(tmp_path):
    path = tmp_path / "old.safetensors"
    files.save_file({"x": torch.ones(2)}, path, {"format": "1"})
    assert read_tensors(path)[1] == {"format": "1"}
    with pytest.raises(ValueError, match=r"old\.safetensors has no tensor 'y'; train again"):
        read_tensors(path, needed=["y"], remedy="train again")
    with pytest.raises(ValueError, match=r"old\.safetensors has no entry 'step'"):
        read_tensors(path, stated=["step"])


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "Expecting value"),
        (b"[1]", r"holds \[1\], not an object"),
        (b'{"name": "a"', "delimiter"),
        (b'{"name": "a"}', "no field 'std'"),
        (b'{"name": 3, "std": 1}', "field 'name' is 3, not a text"),
        (b'{"name": "a", "std": NaN}', "field 'std' is NaN, not a finite number"),
        (b'{"name": "a", "std": true}', "field 'std' is true, not a number"),
        (b"\xff\x00", "decode"),
        (b"[" * 100_000, "recursion"),
        (b"1" * 5_000, "digit"),
    ],
)
def test_damaged_json_is_named_with_the_remedy(content, fault, tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.json is no store: (?s:.*){fault}(?s:.*); prepare it again"):
        read_json(path, "store", {"name": str, "std": float}, "prepare it again")
    with pytest.raises(ValueError, match=r"none\.json, a store, cannot be read: No such file.*; restore it"):
        read_json(tmp_path / "none.json", "store")
    path.write_text('{"name": "a", "std": 1, "more": null}')
    assert read_json(path, "store", {"name": str, "std": float})["more"] is None


def test_a_torn_line_spoils_no_other_and_stays_in_the_file(tmp_path):
    path = tmp_path / "a.jsonl"
    assert read_lines(path) == ([], [])
    append_lines(path, [{"a": 1}, {"a": 2}])
    path.write_bytes(path.read_bytes()[:-4])  # as by a kill
    append_line(path, {"a": 3})
    with path.open("ab") as file:
        file.write(b'[4]\n\n{"b": 5}\n\xff\n')
    append_line(path, {"a": 6})
    found, bad = read_lines(path, lambda values: values["a"])
    assert found == [1, 3, 6] and [line.number for line in bad] == [2, 4, 6, 7]
    assert named_lines(path, bad) == f"{path}: lines 2, 4, 6, 7 are damaged and were skipped; they stay in the file"
    replace_lines(path, [{"a": 1}], bad)
    assert read_lines(path, lambda values: values["a"])[0] == [1]
    assert [line.text for line in read_lines(path, lambda values: values["a"])[1]] == [line.text for line in bad]
    assert path.read_bytes().endswith(b'\xff\n{"a": 1}\n') and names_in(tmp_path) == ["a.jsonl"]


def test_the_checksum_of_a_file_is_that_of_its_content(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BLOCK_BYTES", 10)
    (tmp_path / "a").write_bytes(bytes(range(35)))
    assert checksum(tmp_path / "a") == files.xxh3_128(bytes(range(35))).hexdigest()
