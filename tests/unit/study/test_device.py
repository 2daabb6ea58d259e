"""The study for one accelerator: its grid, what of its data is carried, and, slow, the whole way on the CPU."""

import csv
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from melmask.study.kept import read_right
from melmask.study.shipped import SMALL, STUDIES
from melmask.study.study import load_study

ROOT = Path(__file__).parents[3]
SCRIPT, FILE = ROOT / "studies/device.sh", ROOT / "studies/device.py"


def test_the_study_of_one_accelerator_is_the_grid_of_small_with_more_samples(monkeypatch):
    study = load_study(str(FILE), STUDIES)
    assert [cell.name for cell in study.cells] == [cell.name for cell in SMALL.cells] and len(study.runs) == 16
    for cell, small in zip(study.cells, SMALL.cells, strict=True):
        assert cell.recipe.size == "small" and cell.recipe.precision == "bf16"
        assert cell.recipe.steps == small.recipe.steps and cell.recipe.batch_size == 10 * small.recipe.batch_size
        assert cell.recipe.learning_rate == small.recipe.learning_rate
    monkeypatch.setenv("SIZE", "micro")
    monkeypatch.setenv("ARMS", "random dwm")
    monkeypatch.setenv("SOUND", "procedural")
    study = load_study(str(FILE), STUDIES)
    assert len(study.runs) == 4 and study.sources == ("procedural",) and study.exclude == ()
    if shutil.which("bash"):
        assert subprocess.run(["bash", "-n", SCRIPT], check=False).returncode == 0


def data_of_small(recordings: Path, folder: Path) -> Path:
    """The folder that "small" reads, with few recordings in the place of its own."""
    with recordings.open() as file:
        rows = list(csv.DictReader(file))
    folds = {"audio/esc50.csv": "12345", "audio/arabic_keywords20.csv": ("train", "val", "test")}
    for name in (*SMALL.sources, *(task.table for task in SMALL.tasks)):
        table = folder / name
        (table.parent / table.stem).mkdir(parents=True, exist_ok=True)
        lines = ["path,label,fold,group"]
        for number, row in enumerate(rows):
            shutil.copy(recordings.parent / row["path"], table.parent / table.stem)
            fold = folds.get(name, "123")[number // 2 % len(folds.get(name, "123"))]
            lines.append(f"{table.stem}/{row['path']},{row['label']},{fold},g{number // 2}")
        table.write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not shutil.which("bash"), reason="a script of bash")
def test_the_whole_way_on_the_cpu(recordings, tmp_path):
    data, out = data_of_small(recordings, tmp_path / "data"), tmp_path / "back"
    settings = {
        "PYTHON": sys.executable, "PYTHONPATH": str(ROOT / "src"), "OUT": str(out), "WORK": str(tmp_path / "work"),
        "BUNDLE": str(tmp_path / "study.tar.gz"), "SIZE": "micro", "STEPS": "4", "BATCH": "4", "JOBS": "2",
        "ARMS": "random dwm", "PRECISION": "float32", "MAX_MIB": "0.6",
    }  # fmt: skip

    def called(*arguments: object) -> str:
        command = ["bash", str(SCRIPT), *map(str, arguments)]
        done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    called("pack", data)
    with tarfile.open(tmp_path / "study.tar.gz") as bundle:
        names = bundle.getnames()
    assert len([name for name in names if name.startswith("audio/")]) == 6 * 25  # tasks are whole, with their tables
    assert 0 < len([name for name in names if name.startswith("open/") and name.endswith(".opus")]) < 24
    shown = called("run")
    assert shown.count("missing: nothing; encoder brought back") == 4
    called("judge", out, data)
    standing = json.loads((out / "study/standing.json").read_text())
    assert [one["steps"] for one in standing["runs"]] == [4] * 4 and standing["settings"]["SIZE"] == "micro"
    # Six tasks by two probes of each run and of the three floors, both as Opus there and on the recordings here.
    there, here = read_right(out / "study"), read_right(out / "judged")
    assert len(there) == (4 + 3) * 12 and there.keys() == here.keys()
