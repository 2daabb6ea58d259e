"""Plans: their figures agree with real stores, loaders and steps, and their remedies help."""

import dataclasses
import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from melmask.cli.main import main
from melmask.logmel import LogMelSpec
from melmask.masking import STRATEGIES, draw
from melmask.plan import memory
from melmask.plan.devices import DEVICES, gemm_ceiling
from melmask.plan.memory import Setting, check_memory, footprint, part_size
from melmask.plan.plan import Data, make_plan, remedies, strategy_costs
from melmask.plan.trial import NUM_CLIPS, noise_store
from melmask.runtime import computes_in_bf16
from melmask.train.recipe import RECIPES

AUDIOSET, A100 = Data(2_000_000), DEVICES["a100-80gb"]
MEMORY_BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "memory.py"
WITHIN = 1.6  # what the estimate of memory may be off by, as a factor, either way
# Of a process, kernels that oneDNN compiles for bf16: steps of a micro model, of 5 MiB, take 34 MiB, and 9 in float32.
KERNELS = 28 * 2**20


def base(**changes):
    return dataclasses.replace(RECIPES["base-m2d"], **changes)


def test_the_figures_of_audioset_on_four_a100s_follow_from_each_other():
    plan = make_plan(base(), AUDIOSET, A100, num_devices=4, utilisation=0.5)
    assert AUDIOSET.store_bytes == 2_000_000 * 1001 * 80 * 2
    assert plan.crops_per_epoch == 976 * 2048 and plan.num_steps == 300 * 976
    assert plan.step_s == pytest.approx(2048 * plan.flops.per_sample / (4 * 0.5 * 312e12))
    assert plan.device_hours == pytest.approx(4 * plan.num_steps * plan.step_s / 3600)
    assert plan.fits and remedies(plan) == []


def test_300_epochs_of_audioset_are_the_papers_steps_and_twice_as_many_if_every_crop_of_a_clip_counts():
    audioset = Data(2_042_985)  # the unbalanced list
    for name in ("base-m2d", "base-msm-mae", "small-m2d", "small-msm-mae"):
        assert make_plan(RECIPES[name], audioset, A100).num_steps == 299_100
    twice = make_plan(base(crops_per_clip=0), audioset, A100)
    assert twice.crops_per_epoch == 2 * 2_042_985 and twice.num_steps == 598_531


def test_more_devices_take_less_time_and_memory_and_the_same_hours():
    one, four = (make_plan(base(batch_size=256), AUDIOSET, A100, n) for n in (1, 4))
    assert four.run_s == pytest.approx(one.run_s / 4) and four.device_hours == pytest.approx(one.device_hours)
    assert four.footprint.activations * 4 == one.footprint.activations and four.footprint.peak < one.footprint.peak
    more = make_plan(base(batch_size=256), dataclasses.replace(AUDIOSET, num_clips=4_000_000), A100)
    assert more.run_s == pytest.approx(2 * one.run_s, rel=2e-4) and more.data.store_bytes == 2 * one.data.store_bytes


@pytest.mark.parametrize("crops_per_clip", [0, 1, 3])
@pytest.mark.parametrize(("clip_s", "crop_frames"), [(0.3, 96), (1.3, 96), (1.3, 608), (2.4, 96)])
def test_data_is_counted_as_stores_and_loaders_have_it(clip_s, crop_frames, crops_per_clip, tmp_path):
    store, data = noise_store(tmp_path, LogMelSpec(), clip_s), Data(NUM_CLIPS, clip_s)
    changes = {"crop_frames": crop_frames, "crops_per_clip": crops_per_clip, "steps": 0, "epochs": 5.0}
    recipe = dataclasses.replace(RECIPES["micro-m2d"], batch_size=NUM_CLIPS - 1, **changes)
    assert sum(np.load(shard).nbytes for shard in (store.folder / "shards").glob("*.npy")) == data.store_bytes
    loader, plan = recipe.make_loader(store), make_plan(recipe, data, A100)
    all_crops = NUM_CLIPS * data.crops_per_clip(recipe)
    assert loader.crops_per_epoch == plan.crops_per_epoch
    left_out = all_crops % recipe.batch_size if crops_per_clip else 0
    assert loader.crops_per_epoch == all_crops - left_out
    assert plan.num_steps == recipe.num_steps(loader.crops_per_epoch)
    assert loader.part(0).log_mel.shape[2] == data.cropped(recipe).crop_frames


def test_what_does_not_fit_fits_with_every_remedy_and_not_with_less():
    plan = make_plan(base(), AUDIOSET, DEVICES["t4"])
    assert not plan.fits
    found = remedies(plan)
    assert len(found) == 2 and not found[0].startswith("--checkpoint") and found[1].startswith("--checkpoint")
    for remedy in found:
        accumulate = int(remedy.split()[-1])
        changes = {"checkpoint_activations": remedy.startswith("--checkpoint")}
        assert make_plan(base(accumulate=accumulate, **changes), AUDIOSET, DEVICES["t4"]).fits
        assert not make_plan(base(accumulate=accumulate // 2, **changes), AUDIOSET, DEVICES["t4"]).fits
    small = dataclasses.replace(DEVICES["t4"], memory=2**30)
    assert remedies(make_plan(base(), AUDIOSET, small)) == []


def test_only_strategies_with_an_encoder_pass_or_a_loss_history_cost_more():
    costs = {cost.name: cost for cost in strategy_costs(base(), AUDIOSET)}
    assert list(costs) == list(STRATEGIES)
    assert {name for name, cost in costs.items() if cost.share} == {"sgim", "attention"}
    assert {name for name, cost in costs.items() if cost.history_bytes} == {"hard"}
    assert costs["hard"].history_bytes == 2_000_000 * 5 * 63 * 4
    guided = make_plan(base(strategy="sgim"), AUDIOSET, A100)
    plain = make_plan(base(), AUDIOSET, A100)
    assert guided.run_s / plain.run_s == pytest.approx(1 + costs["sgim"].share)
    assert strategy_costs(guided.recipe, AUDIOSET) == strategy_costs(plain.recipe, AUDIOSET)


def test_a_strategy_from_outside_has_its_cost_beside_the_others(capsys):
    name = "melmask.masking.selfguided:SelfGuided"
    costs = {cost.name: cost for cost in strategy_costs(base(strategy=name), AUDIOSET)}
    assert list(costs) == [*STRATEGIES, name] and costs[name].pass_flops == costs["sgim"].pass_flops
    main(["plan", "--recipe", "micro-m2d", "--strategy", name, "--clips", "100", "--device", "t4"])
    assert "SelfGuided masking" in capsys.readouterr().out


def test_devices_name_their_source_and_compute_in_bf16_where_they_can():
    for device in DEVICES.values():
        assert "https://" in device.source and 0 < device.utilisation("auto") < 1
        assert device.peak_flops("float32") < (device.bf16_flops or np.inf)
    assert DEVICES["v100"].peak_flops("auto") == 15.7e12 and A100.peak_flops("auto") == 312e12
    assert make_plan(base(), AUDIOSET, DEVICES["v100"]).footprint.half_weights == 0


@pytest.mark.parametrize(("changes", "devices", "utilisation", "message"), [
    ({}, 0, None, "at least one device"), ({}, 3, None, "does not divide into 3 parts"),
    ({"accumulate": 7}, 1, None, "does not divide into 7 parts"), ({}, 1, 1.2, "share of the peak"),
])  # fmt: skip
def test_bad_settings_are_refused(changes, devices, utilisation, message):
    with pytest.raises(ValueError, match=message):
        make_plan(base(**changes), AUDIOSET, A100, devices, utilisation)


def test_no_clips_are_refused():
    with pytest.raises(ValueError, match=r"clip_s positive: got 3 clips of 0\.0 s"):
        Data(3, 0.0)


@pytest.mark.parametrize("in_bf16", [False, True])
@pytest.mark.parametrize("name", ["tiny-m2d", "tiny-msm-mae"])
def test_activations_are_what_autograd_keeps(name, in_bf16):
    recipe = dataclasses.replace(RECIPES[name], batch_size=2, accumulate=1)
    model, grid = recipe.make_model(), recipe.grid(80)
    mask = draw("random", grid=grid, batch_size=2, mask_ratio=recipe.mask_ratio, rng=torch.Generator())
    patches = torch.randn(2, grid.num_patches, recipe.patch_values)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    shapes = {shape for p in model.parameters() for shape in (p.shape, p.shape[::-1])}  # also of their bf16 copies
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tensor.shape not in shapes:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # the tensor, lest its place be used again
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
        model(patches, grid, mask)
    measured = sum(size for size, _ in kept.values())
    estimated = footprint(recipe, 80, Setting(1, in_bf16, on_gpu=False)).activations
    assert estimated == pytest.approx(measured, rel=0.05)


def test_memory_falls_with_parts_and_with_recomputing():
    def of(**changes):
        return footprint(base(batch_size=64, **changes), 80, Setting(1, in_bf16=True, on_gpu=True))

    assert of(accumulate=2).activations * 2 == of().activations and of(accumulate=2).peak < of().peak
    assert of(checkpoint_activations=True).activations < of().activations / 4
    assert of().gradients == of().weights == of().moments / 2
    assert part_size(base(batch_size=64, accumulate=4), 2) == 8


def test_the_states_of_muon_and_of_averaged_weights_are_counted():
    def held(**changes):
        return footprint(base(**changes), 80, Setting(1, in_bf16=False, on_gpu=True))

    muon, averaged, plain = held(optimiser="muon"), held(weights_ema=0.999), held()
    model = base().outline()
    matrices = [p for name, p in model.named_parameters() if p.requires_grad and ".blocks." in name and p.ndim == 2]
    assert plain.moments - muon.moments == plain.peak - muon.peak == 4 * sum(p.numel() for p in matrices)
    average = 4 * sum(p.numel() for p in model.encoder.parameters())
    assert averaged.untrained_weights - plain.untrained_weights == averaged.peak - plain.peak == average


def measured_memory(case: str) -> int:
    """Of the steps of a recipe in bf16, without the kernels."""
    done = subprocess.run(
        [sys.executable, MEMORY_BENCHMARK, "--steps-of", case], check=True, capture_output=True, text=True
    )
    peak, model = json.loads(done.stdout.splitlines()[-1])
    assert KERNELS < model < peak
    return model - KERNELS


def estimated_memory(monkeypatch, case: str) -> int:
    monkeypatch.syspath_prepend(MEMORY_BENCHMARK.parent)
    memory = importlib.import_module("memory")
    recipe = memory.recipe_of(case)
    in_bf16 = recipe.precision != "float32" and computes_in_bf16(torch.device("cpu"))
    return footprint(recipe, 80, Setting(1, in_bf16, on_gpu=False)).peak


@pytest.mark.slow
def test_memory_is_about_that_of_a_process(monkeypatch):
    assert 1 / WITHIN < estimated_memory(monkeypatch, "tiny-m2d") / measured_memory("tiny-m2d") < WITHIN


@pytest.mark.slow
@pytest.mark.parametrize("case", ["tiny-msm-mae", "base-msm-mae", "base-m2d", "base-m2d, recomputed"])
def test_memory_is_about_that_of_a_process_at_every_size(case, monkeypatch):
    assert 1 / WITHIN < estimated_memory(monkeypatch, case) / measured_memory(case) < WITHIN


def test_the_ceiling_is_a_plausible_rate():
    assert 1e8 < gemm_ceiling(torch.device("cpu"), torch.float32, seconds=0.0) < 1e14


def test_this_machine_is_measured_within_seconds(capsys, monkeypatch):
    monkeypatch.setattr("melmask.plan.plan.TRIAL_S", 1.0)
    start = time.monotonic()
    main(["plan", "--recipe", "micro-msm-mae", "--clips", "2000", "--clip-s", "5", "--strategy", "sgim"])
    assert time.monotonic() - start < 30  # some seconds, on a machine that does nothing else
    shown = capsys.readouterr().out
    assert "micro-msm-mae, sgim masking" in shown and "(measured: " in shown and "guide pass" in shown
    assert all(f"│ {name} " in shown for name in STRATEGIES)


def test_a_plan_that_does_not_fit_warns_with_remedies(capsys):
    main(["plan", "--recipe", "base-m2d", "--clips", "1000000", "--device", "rtx-3090"])
    shown = capsys.readouterr().out
    assert "does not fit" in shown and "it fits with --accumulate 8" in shown and "--checkpoint-activations" in shown
    assert "float32 sums" in shown and "are left out of each" in shown
    main(["plan", "--recipe", "base-m2d", "--clips", "1000000", "--device", "rtx-3090", "--crops-per-clip", "0"])
    shown = capsys.readouterr().out
    assert "(2 a clip)" in shown and "--crops-per-clip 1" in shown and "left out" not in shown


def test_a_step_that_exceeds_the_memory_is_refused_before_it_is_taken(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(memory, "memory_of", lambda device: 8 * 10**9)
    check_memory(RECIPES["tiny-m2d"], 80)
    message = (
        r"a step takes about \d+ GB of memory, and .* has 8 GB: raise --accumulate \(now 1\), or lower --batch-size"
    )
    with pytest.raises(ValueError, match=message):
        check_memory(RECIPES["base-m2d"], 80)
    check_memory(dataclasses.replace(RECIPES["base-m2d"], accumulate=512), 80)
    options = ["--recipe", "micro-m2d", "--strategy", "dwm"]
    with pytest.raises(SystemExit):
        main(["pretrain", "procedural", "--out", str(tmp_path / "run"), *options, "--batch-size", "1000000"])
    assert "lower --batch-size" in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "is_short"), [("tiny-m2d", True), ("base-m2d", False)])
def test_what_short_steps_leave_out_is_noted(name, is_short, capsys):
    main(["plan", "--recipe", name, "--clips", "100000", "--device", "a100-80gb"])
    assert ("a step are its products alone" in capsys.readouterr().out) == is_short
