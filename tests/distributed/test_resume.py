"""Exact resume: a run killed at any moment and resumed ends with the weights of an uninterrupted one."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from melmask.files import read_tensors
from melmask.nn.encoder_file import ENCODER
from melmask.train import loop
from melmask.train.recipe import RECIPES
from melmask.train.run_folder import CHECKPOINT, read_log


def recipe(framework, **changes):
    settings = {"steps": 14, "batch_size": 8, "save_every": 4, "log_every": 1, "strategy": "dwm", **changes}
    return dataclasses.replace(RECIPES[f"micro-{framework}"], **settings)


def assert_same(run, other):
    (weights, metadata), (expected, expected_metadata) = (
        read_tensors(run / CHECKPOINT),
        read_tensors(other / CHECKPOINT),
    )
    assert metadata == expected_metadata and weights.keys() == expected.keys()
    for name in weights:
        assert torch.allclose(weights[name], expected[name], rtol=0, atol=0, equal_nan=True), name
    losses = [[line["loss"] for line in read_log(folder)] for folder in (run, other)]
    assert losses[0] == losses[1]


class Killed(BaseException):
    """In place of a kill: nothing catches it."""


@pytest.mark.parametrize(
    ("framework", "strategy"),
    [
        ("m2d", "dwm"),
        ("m2d of blocks", "dwm"),
        ("msm-mae", "dwm"),
        ("m2d", "hard"),
        ("m2d", "dwm_band"),
        ("msm-mae", "freq_profile"),
        ("msm-mae of a share", "dwm"),
        ("msm-mae of synthesised crops", "dwm"),
    ],
)
@pytest.mark.numerical
def test_killed_between_checkpoints(framework, strategy, store, tmp_path):
    framework, _, what = framework.partition(" of ")
    settings = recipe(framework, strategy=strategy, hint_start=0.0)
    if what == "synthesised crops":
        settings = dataclasses.replace(settings, procedural_share=0.5)
    elif what:
        given = {
            "blocks": {"target": "blocks"},
            "a share": {"decoder": "cross", "decoded_share": 0.5, "agreement": 0.1},
        }
        options = {**settings.framework_options, **given[what]}
        settings = dataclasses.replace(settings, framework_options=options)
    loop.pretrain(settings, store, tmp_path / "whole")

    def kill_at_ten(line):
        if line.step == 10:
            raise Killed

    with pytest.raises(Killed):
        loop.pretrain(settings, store, tmp_path / "killed", report=kill_at_ten)
    assert read_tensors(tmp_path / "killed" / CHECKPOINT)[1]["step"] == "8"
    assert loop.pretrain(settings, store, tmp_path / "killed", resume=True)
    assert_same(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.numerical
def test_a_run_by_muon_of_averaged_weights_is_resumed(store, tmp_path):
    settings = recipe("msm-mae", optimiser="muon", weights_ema=0.9, schedule="wsd")
    loop.pretrain(settings, store, tmp_path / "whole")
    saved, _ = read_tensors(tmp_path / "whole" / CHECKPOINT)
    assert "optimiser.momentum_buffer.encoder.blocks.0.attn.qkv.weight" in saved
    assert "optimiser.exp_avg.encoder.blocks.0.attn.qkv.weight" not in saved

    def kill_at_ten(line):
        if line.step == 10:
            raise Killed

    with pytest.raises(Killed):
        loop.pretrain(settings, store, tmp_path / "killed", report=kill_at_ten)
    assert loop.pretrain(settings, store, tmp_path / "killed", resume=True)
    assert_same(tmp_path / "killed", tmp_path / "whole")
    resumed, expected = (read_tensors(tmp_path / name / ENCODER)[0] for name in ("killed", "whole"))
    assert all(torch.equal(resumed[name], value) for name, value in expected.items())


def test_killed_by_a_signal(store, tmp_path):
    settings = recipe("m2d", steps=60, save_every=5)
    loop.pretrain(settings, store, tmp_path / "whole")
    code = (
        "import sys; from pathlib import Path; import torch\n"
        f"torch.set_num_threads({torch.get_num_threads()})\n"
        "from melmask.data.store import Store; from melmask.train import loop\n"
        "from melmask.train.recipe import Recipe\n"
        "store, recipe, run = map(Path, sys.argv[1:])\n"
        "loop.pretrain(Recipe.load(recipe), Store.open(store), run)\n"
    )
    settings.save(tmp_path / "settings.json")
    arguments = [sys.executable, "-c", code, store.folder, tmp_path / "settings.json", tmp_path / "killed"]
    process = subprocess.Popen(list(map(str, arguments)), env={**os.environ, "PYTHONWARNINGS": "ignore"})
    deadline = time.monotonic() + 120
    while len(read_log(tmp_path / "killed")) < 12 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert loop.pretrain(settings, store, tmp_path / "killed", resume=True)
    assert_same(tmp_path / "killed", tmp_path / "whole")


def test_an_interrupted_run_is_resumed(store, tmp_path):
    loop.pretrain(recipe("m2d"), store, tmp_path / "whole")

    def stop_at_three(line):
        if line.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    assert not loop.pretrain(recipe("m2d"), store, tmp_path / "stopped", report=stop_at_three)
    assert loop.pretrain(recipe("m2d"), store, tmp_path / "stopped", resume=True)
    assert_same(tmp_path / "stopped", tmp_path / "whole")


def test_resuming_a_complete_run_changes_nothing(store, tmp_path):
    loop.pretrain(recipe("m2d"), store, tmp_path / "run")
    before = (tmp_path / "run" / CHECKPOINT).read_bytes()
    assert loop.pretrain(recipe("m2d"), store, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == before
    assert len(read_log(tmp_path / "run")) == 14
