"""An encoder from outside the package: commands take it as module:Class, and the Python calls as an object."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from melmask.cli import main
from melmask.encoders.registry import load
from melmask.evaluation.run import evaluate

MODULE = """
import numpy as np


class Brightness:
    sample_rate_hz = 16_000

    def encode(self, batch, sample_rate):
        parts = np.array_split(np.diff(np.signbit(batch), axis=1), 10, axis=1)
        return np.stack([part.mean(axis=1) for part in parts], axis=1)
"""


@pytest.fixture
def table(recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of recordings in a user's folder with the module, which is the current folder."""
    (tmp_path / "my_encoders.py").write_text(MODULE)
    header, *rows = recordings.read_text().splitlines()
    (tmp_path / "chirps.csv").write_text("\n".join([header, *(f"{recordings.parent}/{row}" for row in rows)]) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # the command appends the current folder
    monkeypatch.delitem(sys.modules, "my_encoders", raising=False)
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "chirps.csv"


def test_an_encoder_from_outside_goes_the_whole_way(table, capsys):
    name = "my_encoders:Brightness"
    main.main(["embed", name, str(table), "--out", "vectors.npz", "--workers", "0"])
    with np.load("vectors.npz") as written:
        assert written["features"].shape == (24, 10)
        assert np.array_equal(load(name).embed([str(path) for path in written["path"]]), written["features"])
    main.main(["evaluate", name, "--task", str(table), "--out", "results.jsonl", "--workers", "0"])
    lines = [json.loads(line) for line in Path("results.jsonl").read_text().splitlines()]
    assert [line["encoder"] for line in lines] == ["Brightness", "log-mel statistics"]
    assert lines[0]["score"] > 0.8 and lines[0]["num_dims"] == 10
    from my_encoders import Brightness  # type: ignore[import-not-found]

    (result,) = evaluate(Brightness(), table, baselines=False, num_workers=0)
    assert (result.encoder, result.score) == ("Brightness", lines[0]["score"])
    main.main(["compare", name, "untrained:micro", "--task", str(table), "--workers", "0"])
    assert "Brightness" in capsys.readouterr().out
