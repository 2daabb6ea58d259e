"""Optional packages: every command that needs some says so before it works."""

import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from melmask.cli import main
from melmask.extras import EXTRAS, need

DECLARED = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["optional-dependencies"]
SOURCES_OF = {"sklearn": "scikit-learn", "pkg_resources": "setuptools", "audioop": "audioop-lts"}


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_brings_what_is_looked_for(extra, monkeypatch):
    declared = {Requirement(line).name.replace("-", "_") for line in DECLARED[extra]}
    assert {SOURCES_OF.get(name, name).replace("-", "_") for name in EXTRAS[extra]} <= declared
    monkeypatch.setitem(sys.modules, EXTRAS[extra][0], None)
    with pytest.raises(ImportError, match=rf"this needs {EXTRAS[extra][0]}.*pip install 'melmask\[{extra}\]'"):
        need(extra, "this")


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["detect", "nowhere", "--task", "none.csv", "--out", "detected.csv"], "events"),
        (["evaluate", "onnx:none.onnx", "--task", "none.csv"], "onnx"),
        (["evaluate", "hf:none", "--task", "none.csv"], "hf"),
        (["demo", "--out", "corpus"], "demo"),
    ],
)
def test_a_command_names_its_missing_extra_before_it_looks_at_anything(arguments, extra, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, EXTRAS[extra][0], None)
    with pytest.raises(SystemExit) as exit_:
        main.main(arguments)
    assert exit_.value.code == 2 and f"pip install 'melmask[{extra}]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
