"""The loop: it learns, logs, stops on request, and overwrites no run."""

import dataclasses
import json
import os
import signal

import pytest
import torch

from melmask.files import read_tensors
from melmask.frameworks import FRAMEWORKS, Framework
from melmask.locks import Locked
from melmask.nn.encoder_file import ENCODER, EncoderFile
from melmask.train import loop
from melmask.train.monitors import effective_rank, feature_deviation
from melmask.train.recipe import RECIPES, Recipe
from melmask.train.run_folder import (
    CHECKPOINT,
    DATA,
    KEPT,
    LOG,
    RECIPE,
    kept_encoder,
    kept_steps,
    read_log,
    split_step,
)


def micro(framework="m2d", **changes):
    return dataclasses.replace(
        RECIPES[f"micro-{framework}"], **{"steps": 12, "batch_size": 8, "log_every": 3, **changes}
    )


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("strategy", ["random", "ibm", "dwm", "dwm_band", "freq_profile", "sgim", "attention", "hard"])
def test_a_run_folder_holds_everything(framework, strategy, store, tmp_path):
    run = tmp_path / "run"
    lines = []
    assert loop.pretrain(micro(framework, strategy=strategy), store, run, report=lines.append)
    assert [line.step for line in lines] == [3, 6, 9, 12]
    assert read_log(run) == [dataclasses.asdict(line) for line in lines]
    assert Recipe.load(run / "recipe.json") == micro(framework, strategy=strategy)
    assert json.loads((run / "data.json").read_text())["fingerprint"] == store.fingerprint
    saved = EncoderFile.load(run / "encoder.safetensors")
    weights, metadata = read_tensors(run / CHECKPOINT)
    assert metadata["step"] == "12" and saved.crop_frames == 96 and saved.front_end.mean == store.mean
    for name, value in saved.encoder.state_dict().items():
        assert torch.equal(value, weights[f"model.encoder.{name}"])
    uninformed = strategy in ("random", "ibm", "freq_profile")
    assert all((line.guidance is None) == uninformed for line in lines)
    assert all(0 < line.mask_share < 1 for line in lines)
    remembered = {"hard": {"masking.loss"}, "dwm_band": {"masking.profile"}, "freq_profile": {"masking.profile"}}
    assert {name for name in weights if name.startswith("masking.")} == remembered.get(strategy, set())


@pytest.mark.parametrize(("framework", "factor"), [("m2d", 0.8), ("msm-mae", 0.97)])
def test_training_lowers_the_loss(framework, factor, store, tmp_path):
    recipe = micro(framework, steps=80, batch_size=16, learning_rate=3e-3, log_every=8)
    loop.pretrain(recipe, store, tmp_path / "run")
    losses = [line["loss"] for line in read_log(tmp_path / "run")]
    assert min(losses[-3:]) < factor * losses[0]


def test_the_schedule_of_hints_is_followed(store, tmp_path):
    recipe = micro(strategy="dwm", hint_start=0.5, log_every=1)
    loop.pretrain(recipe, store, tmp_path / "run")
    hints = [line["hint_ratio"] for line in read_log(tmp_path / "run")]
    assert hints[:6] == [1.0] * 6
    assert hints[6:] == pytest.approx([1 - (step / 12) ** 2 for step in range(6, 12)])


def test_hints_guidance_and_exponent_are_scheduled_for_any_strategy(store, tmp_path):
    recipe = micro(strategy="ibm", hint_strategies="all", guidance=((0.0, 0.2), (1.0, 0.8)), log_every=1)
    loop.pretrain(recipe, store, tmp_path / "guided")
    reached = [line["guidance"] for line in read_log(tmp_path / "guided")]
    assert reached == pytest.approx([0.2 + 0.6 * step / 12 for step in range(12)], abs=0.08)  # 21 masked: λ is coarse
    recipe = micro(strategy="hard", hint_constant=0.0, exponent_power=2.0, log_every=1)
    loop.pretrain(recipe, store, tmp_path / "annealed")
    exponents = [line["exponent"] for line in read_log(tmp_path / "annealed")]
    assert exponents == pytest.approx([(step / 12) ** 2 for step in range(12)])


def test_encoders_are_kept_along_a_run_that_is_resumed(store, tmp_path):
    """As they were: the last one kept is the encoder of a run that ends with that step."""
    recipe, run = micro(steps=10, keep_every=4, save_every=3), tmp_path / "run"

    def stop_at_nine(line):
        if line.step == 9:
            os.kill(os.getpid(), signal.SIGINT)

    loop.pretrain(recipe, store, run, report=stop_at_nine)
    assert kept_steps(run) == [4, 8]
    half_written = run / KEPT / "4.safetensors.1.tmp"
    half_written.touch()
    loop.pretrain(recipe, store, run, resume=True)
    assert kept_steps(run) == [4, 8] and not half_written.exists()
    loop.pretrain(dataclasses.replace(recipe, keep_every=5), store, tmp_path / "other")
    last, at_ten = (EncoderFile.load(tmp_path / "other" / name) for name in (ENCODER, f"{KEPT}/10.safetensors"))
    at_four = EncoderFile.load(kept_encoder(run, 4))
    assert at_four.front_end == last.front_end and at_four.crop_frames == last.crop_frames
    for name, value in last.encoder.state_dict().items():
        assert torch.equal(value, at_ten.encoder.state_dict()[name])
    assert not torch.equal(last.encoder.norm.weight, at_four.encoder.norm.weight)


def test_a_kept_encoder_is_named_by_its_step(tmp_path):
    run = tmp_path / "run"
    (run / KEPT).mkdir(parents=True)
    kept_encoder(run, 100).touch()
    kept_encoder(run, 20).touch()
    assert split_step(tmp_path / "run@20") == (run, 20) and kept_steps(run) == [20, 100]
    with pytest.raises(ValueError, match=r"run keeps no encoder of step 50; it keeps: 20, 100"):
        split_step(tmp_path / "run@50")
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=r"it keeps none: pretrain with --keep-every"):
        split_step(tmp_path / "none@50")
    (tmp_path / "run@20").mkdir()
    for path in (run, tmp_path / "run@20", tmp_path / "missing@20", tmp_path / "run@last"):
        assert split_step(path) == (path, None)


def test_a_run_is_not_overwritten(store, tmp_path):
    loop.pretrain(micro(), store, tmp_path / "run")
    before = (tmp_path / "run" / CHECKPOINT).read_bytes()
    with pytest.raises(ValueError, match="already holds a run"):
        loop.pretrain(micro(), store, tmp_path / "run")
    with pytest.raises(ValueError, match="another recipe"):
        loop.pretrain(micro(seed=5), store, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == before


def test_a_resumed_run_removes_what_was_half_written(store, tmp_path):
    loop.pretrain(micro(), store, tmp_path / "run")
    half_written = tmp_path / "run" / f"{CHECKPOINT}.12345.tmp"
    half_written.touch()
    loop.pretrain(micro(), store, tmp_path / "run", resume=True)
    assert not half_written.exists() and (tmp_path / "run" / CHECKPOINT).exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_request_saves_the_state(number, store, tmp_path):
    def stop_at_six(line):
        if line.step == 6:
            os.kill(os.getpid(), number)

    if signal.getsignal(number) == signal.SIG_IGN:  # as under nohup, where a hangup is to be ignored
        signal.signal(number, signal.SIG_DFL)
    handler = signal.getsignal(number)
    assert not loop.pretrain(micro(), store, tmp_path / "run", report=stop_at_six)
    assert read_tensors(tmp_path / "run" / CHECKPOINT)[1]["step"] == "6"
    assert signal.getsignal(number) is handler


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(store, tmp_path, monkeypatch):
    forward, calls = Framework.forward, []

    def diverge_at_eight(self, *arguments):
        loss = forward(self, *arguments)
        calls.append(1)
        return dataclasses.replace(loss, value=loss.value * float("nan")) if len(calls) == 8 else loss

    monkeypatch.setattr(Framework, "forward", diverge_at_eight)
    with pytest.raises(loop.Diverged, match="last good checkpoint is kept"):
        loop.pretrain(micro(save_every=4, log_every=20), store, tmp_path / "run")
    weights, metadata = read_tensors(tmp_path / "run" / CHECKPOINT)
    assert metadata["step"] == "4" and all(value.isfinite().all() for value in weights.values())


def test_monitors_tell_collapse_from_health():
    rng = torch.Generator().manual_seed(0)
    healthy = torch.randn(500, 16, generator=rng)
    collapsed = healthy[:1].expand(500, -1) + 1e-4 * healthy
    assert effective_rank(healthy) > 15 and effective_rank(collapsed) < 1.1
    assert feature_deviation(healthy) > 0.9 and feature_deviation(collapsed) < 1e-3


def test_a_closed_pipe_saves_the_state_and_an_ignored_hangup_changes_nothing(store, tmp_path):
    def closed(line):
        raise BrokenPipeError

    assert not loop.pretrain(micro(), store, tmp_path / "closed", report=closed)
    assert read_tensors(tmp_path / "closed" / CHECKPOINT)[1]["step"] == "3"
    with pytest.raises(FileNotFoundError):
        loop.pretrain(micro(), store, tmp_path / "other", report=lambda line: (tmp_path / "none").read_text())
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as by nohup
    try:
        assert loop.pretrain(micro(), store, tmp_path / "run", report=lambda line: os.kill(os.getpid(), signal.SIGHUP))
    finally:
        signal.signal(signal.SIGHUP, before)


def test_resuming_makes_the_encoder_of_the_checkpoint_again(store, tmp_path):
    """A kill between the two, or a full disk, leaves an earlier encoder or none."""
    run = tmp_path / "run"
    loop.pretrain(micro(), store, run)
    made = read_tensors(run / ENCODER)[0]
    for left in (None, b"damaged"):
        (run / ENCODER).unlink()
        if left:
            (run / ENCODER).write_bytes(left)
        assert loop.pretrain(micro(), store, run, resume=True)
        again = read_tensors(run / ENCODER)[0]
        assert again.keys() == made.keys() and all(torch.equal(again[name], made[name]) for name in made)


def test_only_a_run_is_resumed_and_no_recipe_is_written_beside_a_checkpoint(store, tmp_path):
    with pytest.raises(ValueError, match=r"typo holds no run to resume: check the name, or start one without --resume"):
        loop.pretrain(micro(), store, tmp_path / "typo", resume=True)
    assert not (tmp_path / "typo").exists()
    run = tmp_path / "run"
    loop.pretrain(micro(), store, run)
    (run / RECIPE).unlink()
    for resume in (True, False):
        with pytest.raises(ValueError, match=r"holds a checkpoint, and its recipe\.json is lost: restore that file"):
            loop.pretrain(micro(), store, run, resume=resume)
    assert not (run / RECIPE).exists()
    micro().save(run / RECIPE)
    (run / DATA).unlink()
    with pytest.raises(ValueError, match=r"data\.json is lost: restore it from a copy"):
        loop.pretrain(micro(), store, run, resume=True)


def test_a_start_that_saved_nothing_does_not_block_the_next(store, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="out of memory"):
        patched.setattr(loop, "Trainer", fail)
        loop.pretrain(micro(seed=1), store, tmp_path / "run")
    assert loop.pretrain(micro(), store, tmp_path / "run")
    assert Recipe.load(tmp_path / "run" / RECIPE) == micro()


def test_a_run_is_trained_by_one_process_at_a_time(store, tmp_path):
    def resume_too(line):
        with pytest.raises(Locked, match="run is being trained by another process: wait for it, or choose another"):
            loop.pretrain(micro(), store, tmp_path / "run", resume=True)

    assert loop.pretrain(micro(), store, tmp_path / "run", report=resume_too)
    assert loop.pretrain(micro(), store, tmp_path / "run", resume=True)


def test_damaged_lines_of_a_log_are_named_and_stay(store, tmp_path):
    run = tmp_path / "run"
    loop.pretrain(micro(), store, run)
    lines = (run / LOG).read_text().splitlines(keepends=True)
    lines[1] = lines[1].replace('"', "", 1)
    (run / LOG).write_text("".join(lines)[:-3])
    with pytest.warns(UserWarning, match=r"log\.jsonl: lines 2, 4 are damaged and were skipped; they stay in the file"):
        assert [entry["step"] for entry in read_log(run)] == [3, 9]
    loop.pretrain(micro(), store, run, resume=True)
    assert (run / LOG).read_text().startswith("".join(lines)[:-3])


def test_a_flip_in_a_checkpoint_is_found(store, tmp_path):
    run = tmp_path / "run"
    loop.pretrain(micro(), store, run)
    content = bytearray((run / CHECKPOINT).read_bytes())
    content[len(content) // 2] ^= 64
    (run / CHECKPOINT).write_bytes(content)
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors is damaged: .*; restore it from a copy; or remove"):
        loop.pretrain(micro(), store, run, resume=True)
