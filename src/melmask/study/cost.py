"""What a study will take, told before it starts: steps, time and commands of every run; and what masking took of it."""

import contextlib
import dataclasses
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from melmask.audio.facts import AudioError
from melmask.audio.reader import read_audio
from melmask.data.manifest import read_manifest
from melmask.logmel import LogMelSpec
from melmask.nn.vit import SIZES
from melmask.plan.devices import DEVICES, Device
from melmask.plan.flops import encoder_flops, step_flops
from melmask.plan.plan import AUDIOSET, Data, make_plan
from melmask.study.curves import RunCurves
from melmask.study.kept import RUNS, STORE
from melmask.study.runs import nearest_recipe
from melmask.study.study import Cell, PlannedRun, Study
from melmask.train.paper import PAPER
from melmask.train.recipe import RECIPES, Recipe

AT_SCALE = "a100-80gb"  # the device of the estimate at AudioSet's scale
NUM_READ = 20  # recordings of a task, to estimate its length
GUIDE_PARTS = ("guide pass", "ranking")  # of a step's operations: what a strategy adds


@dataclass(frozen=True)
class CellCost:
    """What one run of a cell takes.

    Args:
        cell: of the study.
        num_steps: optimiser steps.
        run_s: seconds of training, without evaluation.
        embed_s: seconds of its encoder's pass over the clips of the tasks; probes come on top.
        over_budget: whether the training takes more than the study allows.
    """

    cell: Cell
    num_steps: int
    run_s: float
    embed_s: float
    over_budget: bool


@dataclass(frozen=True)
class TaskClips:
    """How much there is to embed for every run.

    Args:
        num_clips: of all tasks.
        seconds: of them together, estimated from up to `NUM_READ` recordings of each task.
        not_there: tables that are not there, or of which no recording can be read.
    """

    num_clips: int
    seconds: float
    not_there: tuple[str, ...]


def task_clips(study: Study, spec: LogMelSpec) -> TaskClips:
    """Count the clips of a study's tasks, and estimate their length.

    Args:
        study: with the paths of its data made absolute.
        spec: the front end, whose rate recordings are read at.

    Raises:
        ValueError: a table that is there is none of recordings.
    """
    num_clips, seconds, not_there = 0, 0.0, []
    for table in dict.fromkeys(task.table for task in study.tasks):
        clips = read_manifest(Path(table)) if Path(table).exists() else []
        lengths = []
        for clip in clips[:: max(1, -(-len(clips) // NUM_READ))]:
            with contextlib.suppress(AudioError):  # a run names it
                lengths.append(len(read_audio(clip.path, spec.sample_rate_hz)) / spec.sample_rate_hz)
        if not lengths:
            not_there.append(table)
            continue
        num_clips += len(clips)
        seconds += len(clips) * mean(lengths)
    return TaskClips(num_clips, seconds, tuple(not_there))


def cost_of(
    study: Study, data: Data, device: Device | None = None, num_devices: int = 1, task_s: float = 0.0
) -> list[CellCost]:
    """Plan every cell: the baseline of each group is measured here, or taken from a data sheet; the others are scaled.

    Args:
        study: any.
        data: the recordings to train on.
        device: see `melmask.plan.plan.make_plan`; None measures this machine, which takes seconds a group.
        num_devices: number of devices.
        task_s: length of the clips of all tasks together, in seconds, see `task_clips`.

    Returns:
        By cell, in the study's order. Times of strategies are those of the baseline's step, times their ratio of
        operations.
    """
    costs = []
    for group in study.groups:
        cells = [cell for cell in study.cells if cell.group == group]
        base = next(cell.recipe for cell in cells if cell.arm == study.baseline)
        plan = make_plan(base, data, device, num_devices)
        for cell in cells:
            flops = step_flops(data.cropped(cell.recipe), data.spec.num_mels)
            own = dataclasses.replace(plan, recipe=cell.recipe, flops=flops)
            over = study.budget_s is not None and own.run_s > study.budget_s
            embed_s = _embedding_flops(cell.recipe, data.spec, task_s) / plan.speed.flops
            costs.append(CellCost(cell, own.num_steps, own.run_s, embed_s, over))
    order = {cell.name: number for number, cell in enumerate(study.cells)}
    return sorted(costs, key=lambda cost: order[cost.cell.name])


def _embedding_flops(recipe: Recipe, spec: LogMelSpec, seconds: float) -> float:
    """Operations of an encoder's pass over recordings, cut into crops of the recipe's length."""
    num_patches = recipe.grid(spec.num_mels).num_patches
    a_crop = encoder_flops(SIZES[recipe.size], math.prod(recipe.patch_shape), num_patches)
    return a_crop * spec.num_frames(round(seconds * spec.sample_rate_hz)) / recipe.crop_frames if seconds else 0.0


def commands_of(study: Study, run: PlannedRun, out: Path) -> list[str]:
    """The commands that do the same as the study does for one run: pretrain, and an evaluation of each task."""
    name, changes = nearest_recipe(run.recipe)
    folder = str(out / RUNS / run.name)
    pretrain = ["melmask", "pretrain", str(out / STORE), "--out", folder, "--recipe", name, *changes]
    commands = [shlex.join(pretrain)]
    for task in study.tasks:
        folds = ["--test-folds", *task.test_folds] if task.test_folds else []
        command = ["melmask", "evaluate", folder, "--task", task.table, "--probe", *study.probes, *folds]
        commands.append(shlex.join([*command, "--protocol", study.protocol, "--no-baselines"]))
    return commands


@dataclass(frozen=True)
class MaskingCost:
    """What the masking of a cell costs.

    Args:
        cell: of the study.
        num_runs: whose logs were read; without any, the first three are None.
        step_s: seconds of a step, the median over the runs: measured where they were trained.
        mask_s: seconds of guides and masks in a step.
        mask_share: their share of it.
        flops: operations of a step for one sample, without the optimiser's; counted from the recipe.
        guide_flops: those of them that the strategy adds: another pass through the encoder, and products that rank.
        hours: device-hours of the paper's recipe of that framework with this strategy, on AudioSet, on `AT_SCALE`:
            estimated from operations, data sheet and an assumed utilisation. None for a framework without such a
            recipe.
    """

    cell: Cell
    num_runs: int
    step_s: float | None
    mask_s: float | None
    mask_share: float | None
    flops: int
    guide_flops: int
    hours: float | None


def masking_costs(
    study: Study, curves: Mapping[str, RunCurves], num_mels: int = LogMelSpec.num_mels
) -> list[MaskingCost]:
    """The cost of masking of every cell, in the study's order.

    Args:
        study: any.
        curves: of its runs, by name; of those that are known.
        num_mels: mel bands of its store.
    """
    found = []
    for cell in study.cells:
        kept = [curves[name] for seed in study.seeds if (name := cell.run_name(seed)) in curves]
        flops = step_flops(cell.recipe, num_mels)
        added = sum(part.total for part in flops.parts if part.name in GUIDE_PARTS)
        step_s = median(one.step_s for one in kept) if kept else None
        mask_s = median(one.step_s * one.mask_share for one in kept) if kept else None
        share = median(one.mask_share for one in kept) if kept else None
        hours = _hours_at_scale(cell.recipe)
        found.append(MaskingCost(cell, len(kept), step_s, mask_s, share, flops.per_sample, added, hours))
    return found


def _hours_at_scale(recipe: Recipe) -> float | None:
    """Device-hours of the paper's recipe with this one's strategy, on AudioSet."""
    base = RECIPES.get(f"{PAPER}{recipe.framework}")
    if base is None:
        return None
    changed = dataclasses.replace(base, strategy=recipe.strategy, strategy_options=recipe.strategy_options)
    return make_plan(changed, AUDIOSET, DEVICES[AT_SCALE]).device_hours
