"""The benchmark of learning: no judge's fold is read, trials have one budget, and a second call computes nothing."""

import csv
import dataclasses
import functools
import importlib
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melmask.train.recipe import RECIPES

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def learning(monkeypatch):
    """The script, as a module, with trials that take no time."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("learning")
    micro = dataclasses.replace(RECIPES["micro-msm-mae"], save_every=10)
    monkeypatch.setattr(module, "RECIPES", {"tiny-msm-mae": micro})
    monkeypatch.setattr(module, "TRIALS", {"one": {}, "two": {"mask_ratio": 0.5}})
    monkeypatch.setattr(module, "FOLDS", {"esc50": ("5", "4"), "arabic_keywords20": ("test", "val")})
    monkeypatch.setattr(module, "processor_s_of_a_step", lambda recipe, store: 0.5)
    return module


@pytest.fixture
def audio(tmp_path, learning):
    """Two classes of noise in every fold of every task, one clip of each in the fold that judges."""
    folder, rng = tmp_path / "audio", np.random.default_rng(0)
    folder.mkdir()
    for name, (judge, read) in learning.FOLDS.items():
        lines = []
        for fold in (judge, read, "1", "train"):
            for label in ("soft", "loud"):
                path = f"{name}-{fold}-{label}.wav"
                sound = rng.standard_normal(16_000) * (0.3 if label == "loud" else 0.01)
                soundfile.write(folder / path, sound.clip(-1, 1), 16_000)
                lines.append({"path": path, "label": label, "fold": fold, "group": path})
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)
    return folder


def test_every_trial_is_read_after_one_budget_and_on_no_fold_that_judges(learning, audio, tmp_path, monkeypatch):
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "out"
    arguments = ["--data", str(audio / "esc50.csv"), "--audio", str(audio), "--out", str(out), "--budget-s", "1"]
    arguments += ["--seeds", "0", "1", "--json", str(tmp_path / "rows.json"), "--markdown", str(tmp_path / "page.md")]
    learning.main(arguments)
    for name, (judge, read) in learning.FOLDS.items():
        with (out / "tasks" / f"{name}.csv").open(newline="") as file:
            clips = list(csv.DictReader(file))
        assert not any(f"-{judge}-" in Path(clip["path"]).name for clip in clips) and len(clips) == 6
        assert {clip["fold"] for clip in clips if f"-{read}-" in Path(clip["path"]).name} == {"test"}
    rows = json.loads((tmp_path / "rows.json").read_text())
    names = ["one", "one", "two", "two", "untrained, patches of 16 x 16", "log-mel statistics"]
    assert [row["trial"] for row in rows] == names  # the trials' encoders are of one form
    assert all(row["steps"] == 4 for row in rows if row["trial"] == "one")  # 2 cores x 1 s / .5 s
    assert all(0 <= row[probe] <= 100 for row in rows for probe in learning.PROBES)
    page = (tmp_path / "page.md").read_text()
    assert "| one | 0.0166667 | 2 | 4 |" in page and "--budget-s 1" in page
    monkeypatch.setattr(learning.melmask, "evaluate", None)  # all scores are kept
    monkeypatch.setattr(learning, "pretrain", None)
    for run in out.glob("*-seed*/"):  # their numbers are enough, so that the table is made of several sessions
        shutil.rmtree(run)
    learning.main(arguments)
    assert json.loads((tmp_path / "rows.json").read_text()) == rows
    learning.main([*arguments, "--trials", "two:1", "one"])
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["trial"], row["seed"]) for row in rows[:3]] == [("two", 1), ("one", 0), ("one", 1)]
    with pytest.raises(SystemExit, match="2"):
        learning.main([*arguments, "--trials", "three:1"])


@pytest.mark.parametrize("named", ["one@soon", "one:first", "one@6:0,"])
def test_a_trial_that_cannot_be_read_is_named(learning, tmp_path, capsys, named):
    with pytest.raises(SystemExit, match="2"):
        learning.main(["--data", str(tmp_path), "--audio", str(tmp_path), "--trials", named])
    assert f"'{named}' is no trial" in capsys.readouterr().err


def test_trials_of_two_budgets_stand_in_one_table(learning, audio, tmp_path, monkeypatch):
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path / "cache"))
    page = tmp_path / "page.md"
    arguments = ["--data", str(audio / "esc50.csv"), "--audio", str(audio), "--out", str(tmp_path / "out")]
    learning.main([*arguments, "--budget-s", "3", "--trials", "one", "one@6:0,1", "--markdown", str(page)])
    rows = [line.split(" | ")[:4] for line in page.read_text().splitlines() if line.startswith("| one")]
    assert rows == [["| one", "0.05", "1", "12"], ["| one", "0.1", "2", "24"]]
    assert "What 0.05 and 0.1 minutes of two cores teach" in page.read_text()


def test_a_trial_with_another_budget_or_seed_has_the_step_that_was_timed_first(learning, store, tmp_path, monkeypatch):
    trained = []

    def note_steps(recipe, store, run, resume):
        trained.append(recipe.steps)
        return True

    monkeypatch.setattr(learning, "pretrain", note_steps)
    recipe = learning.RECIPES["tiny-msm-mae"]
    learning.train(recipe, store, tmp_path / "one-8x16-1s-seed0", 1.0)
    (tmp_path / "one-1s-seed0-scores.json").write_text("{}")
    assert learning.timed_before(tmp_path / "one-6s-seed0") is None  # neither is a plan of that trial
    first = learning.train(recipe, store, tmp_path / "one-1s-seed1", 1.0)
    monkeypatch.setattr(learning, "processor_s_of_a_step", None)
    other = learning.train(recipe, store, tmp_path / "one-6s-seed0", 6.0)
    assert trained == [4, 4, 24]
    assert (other["step_s"], other["machine"]) == (first["step_s"], first["machine"])


def test_a_trial_that_was_interrupted_is_not_read(learning, store, tmp_path, monkeypatch):
    def stopped(entry):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(learning, "pretrain", functools.partial(learning.pretrain, report=stopped))
    recipe = dataclasses.replace(learning.RECIPES["tiny-msm-mae"], log_every=1)
    with pytest.raises(SystemExit, match=r"one-2s-seed0 was interrupted and saved: the same call resumes it"):
        learning.train(recipe, store, tmp_path / "one-2s-seed0", 2.0)
