"""Runs of "wsd" get another length: with the weights of a run that had it from its start, or a clear error."""

import dataclasses
import os
import signal

import pytest
import torch

from melmask.cli.main import main
from melmask.files import read_tensors
from melmask.nn.encoder_file import ENCODER
from melmask.train import loop
from melmask.train.extension import check_settings, settings_of
from melmask.train.optimiser import learning_rate
from melmask.train.recipe import RECIPES, Recipe
from melmask.train.run_folder import CHECKPOINT, RECIPE, STABLE, kept_steps, read_log

pytestmark = pytest.mark.numerical

SETTINGS = {"steps": 10, "batch_size": 8, "log_every": 1, "save_every": 3, "warmup": 0.2, "schedule": "wsd"}


def wsd(framework="msm-mae", **changes):
    return dataclasses.replace(RECIPES[f"micro-{framework}"], **{**SETTINGS, "decay": 0.4, **changes})


def assert_same(run, other):
    for file in (CHECKPOINT, STABLE, ENCODER):
        (weights, said), (expected, also_said) = read_tensors(run / file), read_tensors(other / file)
        assert said == also_said and weights.keys() == expected.keys()
        for name in weights:
            assert torch.equal(weights[name], expected[name]), (file, name)
    rates = [[(entry["loss"], entry["learning_rate"]) for entry in read_log(folder)] for folder in (run, other)]
    assert rates[0] == rates[1]


def contents(run):
    return {path.name: path.read_bytes() for path in run.iterdir() if path.is_file() and "tfevents" not in path.name}


def stop_after(step):
    def report(entry):
        if entry.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    return report


@pytest.mark.parametrize("changes", [{}, {"optimiser": "muon", "weights_ema": 0.9}])
def test_an_extended_run_is_one_of_that_length(changes, store, tmp_path):
    run, told = tmp_path / "run", []
    loop.pretrain(wsd(**changes, keep_every=2), store, run)
    assert read_tensors(run / STABLE)[1]["step"] == "6" and kept_steps(run) == [2, 4, 6, 8, 10]
    loop.pretrain(wsd(**changes, keep_every=2, steps=15), store, run, resume=True, note=told.append)
    assert told == ["the run has 15 steps now: it continues from step 6, and its learning rate falls from step 9 on"]
    whole = Recipe.load(run / RECIPE)
    assert whole == wsd(**changes, keep_every=2, steps=15, warmup=2 / 15)
    loop.pretrain(whole, store, tmp_path / "whole")
    assert_same(run, tmp_path / "whole")
    assert kept_steps(run) == kept_steps(tmp_path / "whole") == [2, 4, 6, 8, 10, 12, 14]
    before = contents(run)
    loop.pretrain(whole, store, run, resume=True)  # the complete run, as it is
    assert contents(run) == before


def test_a_run_ends_early_from_where_it_is_and_is_extended_from_there(store, tmp_path):
    run, settings = tmp_path / "run", wsd(steps=20)
    assert not loop.pretrain(settings, store, run, report=stop_after(8))
    loop.pretrain(dataclasses.replace(settings, steps=11), store, run, resume=True)
    early = Recipe.load(run / RECIPE)  # decay 0.4 would have begun at step 7, which is done
    assert early == wsd(steps=11, warmup=4 / 11, decay=3 / 11)
    loop.pretrain(early, store, tmp_path / "early")
    assert_same(run, tmp_path / "early")
    later = dataclasses.replace(early, steps=14, decay=0.3)
    loop.pretrain(later, store, run, resume=True)
    whole = dataclasses.replace(later, warmup=4 / 14)
    loop.pretrain(whole, store, tmp_path / "whole")
    assert_same(run, tmp_path / "whole")


def test_a_run_that_was_killed_after_it_was_extended_is_resumed(store, tmp_path):
    class Killed(BaseException):
        pass

    def kill(entry):
        if entry.step == 13:
            raise Killed

    run = tmp_path / "run"
    loop.pretrain(wsd(), store, run)
    with pytest.raises(Killed):
        loop.pretrain(wsd(steps=20), store, run, resume=True, report=kill)
    loop.pretrain(Recipe.load(run / RECIPE), store, run, resume=True)
    loop.pretrain(wsd(steps=20, warmup=0.1), store, tmp_path / "whole")
    assert_same(run, tmp_path / "whole")


def test_what_cannot_be_extended_says_why_and_stays_as_it_is(store, tmp_path):
    run = tmp_path / "run"
    loop.pretrain(wsd(), store, run)
    before = contents(run)
    refused = [
        (wsd(steps=6), "cannot end after 6 steps: it was trained before its learning rate fell for 6"),
        (
            wsd(steps=20, seed=1),
            r"another recipe \(steps 10, not 20, seed 0, not 1\): resume it with its own, in .*recipe.json",
        ),
    ]
    for recipe, message in refused:
        with pytest.raises(ValueError, match=message):
            loop.pretrain(recipe, store, run, resume=True)
    with pytest.raises(ValueError, match="already holds a run"):
        loop.pretrain(wsd(steps=20), store, run)
    assert contents(run) == before
    (run / STABLE).unlink()
    with pytest.raises(ValueError, match=r"has no stable\.safetensors, the checkpoint of step 6"):
        loop.pretrain(wsd(steps=20), store, run, resume=True)


def test_a_run_of_a_cosine_cannot_be_extended(store, tmp_path):
    run = tmp_path / "run"
    loop.pretrain(wsd(schedule="cosine", steps=4), store, run)
    assert not (run / STABLE).exists()
    with pytest.raises(ValueError, match=r"learning rate of 4 steps from its first.*--schedule wsd.*--init"):
        loop.pretrain(wsd(schedule="cosine", steps=8), store, run, resume=True)


def test_a_run_is_not_ended_within_its_warm_up(store, tmp_path):
    run = tmp_path / "run"
    assert not loop.pretrain(wsd(steps=20), store, run, report=stop_after(2))
    with pytest.raises(ValueError, match="cannot end after 4 steps: its warm-up takes 4"):
        loop.pretrain(wsd(steps=4), store, run, resume=True)


def test_masks_that_follow_the_runs_length_are_said_to(store, tmp_path):
    told = []
    loop.pretrain(wsd(strategy="dwm", steps=5), store, tmp_path / "run")
    loop.pretrain(wsd(strategy="dwm", steps=6), store, tmp_path / "run", resume=True, note=told.append)
    assert told[0].endswith("; the schedule of its masks is that of the new length from there on")


def test_the_command_extends_a_run_by_its_own_recipe(store, tmp_path, capsys):
    out = ("pretrain", str(store.folder), "--out", str(tmp_path / "run"))
    main([*out, "--recipe", "micro-msm-mae", "--schedule", "wsd", "--steps", "5", "--batch-size", "8"])
    main([*out, "--resume", "--steps", "8"])
    assert "it continues from step 4" in capsys.readouterr().out
    extended = Recipe.load(tmp_path / "run" / RECIPE)
    assert (extended.steps, extended.size, extended.batch_size) == (8, "micro", 8)
    main([*out, "--resume"])
    assert Recipe.load(tmp_path / "run" / RECIPE) == extended


def test_the_rate_rises_stays_and_falls():
    rates = [learning_rate(step, 100, 2.0, 0.1, decay=0.25) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10:76] == [2.0] * 66
    assert rates[75:] == pytest.approx([2.0 * (1 - (step / 25) ** 0.5) for step in range(25)])
    longer = [learning_rate(step, 200, 2.0, 0.05, decay=0.25) for step in range(200)]
    assert longer[:76] == rates[:76]


def test_a_checkpoint_is_not_resumed_with_settings_that_were_changed_since(tmp_path):
    recipe = RECIPES["micro-m2d"]
    check_settings(tmp_path, recipe, settings_of(recipe))
    check_settings(tmp_path, recipe, "{}")  # of an earlier version
    with pytest.raises(ValueError, match=r"recipe.json is not the recipe .* seed is 5, and was 0: restore it"):
        check_settings(tmp_path, dataclasses.replace(recipe, seed=5), settings_of(recipe))
    longer = dataclasses.replace(recipe, schedule="wsd", steps=200)
    check_settings(tmp_path, longer, settings_of(dataclasses.replace(longer, steps=100, decay=0.1)))
