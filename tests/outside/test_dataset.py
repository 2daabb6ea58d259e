"""A data set from outside the package, with the code of docs/tasks.md: from its folder to a report."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import melmask
from melmask.cli import main
from melmask.datasets import find_dataset
from melmask.datasets.build import build_table, write_table

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"
RATE_HZ = 16_000
NUM_CLIPS = {"train": 8, "valid": 4, "test": 4}  # of each label

CHECKED = """
from dataclasses import replace
from melmask.datasets.base import Expected
from my_sets import MY_SET

CHECKED = replace(MY_SET, expected=Expected({"train": 16, "valid": 8, "test": 8}, classes=2))
"""


def write_recordings(folder: Path) -> None:
    """Low and high tones of 1 to 2 s in noise, by two speakers in each split."""
    rng = np.random.default_rng(0)
    for split, count in NUM_CLIPS.items():
        for label, frequency_hz in (("low", 300), ("high", 3000)):
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                time_s = np.arange(int(rng.uniform(1, 2) * RATE_HZ)) / RATE_HZ
                tone = 0.3 * np.sin(2 * np.pi * frequency_hz * rng.uniform(0.8, 1.2) * time_s)
                path = folder / split / label / f"{split}{number % 2}-{number}.wav"
                soundfile.write(path, tone + 0.03 * rng.standard_normal(len(time_s)), RATE_HZ)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with recordings and the Python file of the docs, which is the current folder."""
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "my_sets.py").write_text(code)
    write_recordings(tmp_path / "recordings")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # the command appends the current folder
    for name in ("my_sets", "checked"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_a_data_set_from_outside_goes_the_whole_way(place, capsys):
    main.main(["tasks", "show", "my_sets:MY_SET"])
    assert "train/LABEL/SPEAKER-NUMBER.wav" in capsys.readouterr().out
    main.main(["tasks", "make", "my_sets:MY_SET", "recordings", "--out", "my_set.csv"])
    assert "my_set.csv: 32 clips" in capsys.readouterr().out
    table = Path("my_set.csv").read_text().splitlines()
    assert table[0] == "path,label,split,group" and len(table) == 33
    assert "recordings/valid/high/valid1-3.wav,high,valid,valid1" in table
    assert json.loads(Path("my_set.task.json").read_text())["num_clips"] == {"test": 8, "train": 16, "valid": 8}

    main.main(["prepare", "my_set.csv", "--out", "store", "--workers", "0"])
    settings = ["--recipe", "micro-msm-mae", "--steps", "5", "--batch-size", "8", "--out", "run"]
    main.main(["pretrain", "store", *settings, "--exclude", "my_set:test"])
    main.main(["evaluate", "run", "--task", "my_set.csv", "--probe", "logistic", "--workers", "0"])
    lines = [json.loads(line) for line in Path("run/results.jsonl").read_text().splitlines()]
    assert {line["task"] for line in lines} == {"my_set"} and {line["num_clips"] for line in lines} == {8}  # tested
    assert {line["clip_s"] for line in lines} == {2.0}
    assert max(line["score"] for line in lines) > 0.9  # log-mel statistics alone tell the tones apart
    main.main(["report", "run", "--out", "report"])
    [page] = Path("report").glob("*.html")
    assert "my_set" in page.read_text()


def test_a_data_set_from_outside_is_evaluated_by_python_calls(place):
    table = build_table(find_dataset("my_sets:MY_SET"), place / "recordings")
    record = write_table(table, place / "my_set.csv")
    assert record == place / "my_set.task.json" and table.num_clips == {"test": 8, "train": 16, "valid": 8}
    results = melmask.evaluate("untrained:micro", place / "my_set.csv", num_workers=0)
    assert [result.features for result in results][-1] == "log-mel statistics" and results[-1].score > 0.9
    assert all(result.task == "my_set" and result.num_clips == 8 and result.clip_s == 2.0 for result in results)


def test_a_partial_copy_and_an_unknown_name_are_one_clear_line(place, capsys):
    for name, message in (
        ("my_sets:YOUR_SET", "my_sets.py defines no YOUR_SET"),
        ("your_sets:MY_SET", "No module named 'your_sets'"),
        ("my_set", "there are: esc50"),
        ("my_sets:audio_below", "is of type function"),
    ):
        with pytest.raises(SystemExit):
            main.main(["tasks", "make", name, "recordings", "--out", "my_set.csv"])
        printed = capsys.readouterr().err
        assert message in printed and "Traceback" not in printed
    for path in Path("recordings/test/low").iterdir():
        path.unlink()
    (place / "checked.py").write_text(CHECKED)
    with pytest.raises(SystemExit):
        main.main(["tasks", "make", "checked:CHECKED", "recordings", "--out", "my_set.csv"])
    printed = capsys.readouterr().err
    assert "test: 4 clips of 8" in printed and "test: no clip of low" in printed
