"""What a study will take, told before it starts: steps, time and commands of every run."""

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path

from melmask.plan.devices import Device
from melmask.plan.flops import step_flops
from melmask.plan.plan import Data, make_plan
from melmask.study.kept import RUNS, STORE
from melmask.study.runs import nearest_recipe
from melmask.study.study import Cell, PlannedRun, Study


@dataclass(frozen=True)
class CellCost:
    """What one run of a cell takes.

    Args:
        cell: of the study.
        num_steps: optimiser steps.
        run_s: seconds of training, without evaluation.
        over_budget: whether that is more than the study allows.
    """

    cell: Cell
    num_steps: int
    run_s: float
    over_budget: bool


def cost_of(study: Study, data: Data, device: Device | None = None, num_devices: int = 1) -> list[CellCost]:
    """Plan every cell: the baseline of each group is measured here, or taken from a data sheet; the others are scaled.

    Args:
        study: any.
        data: the recordings to train on.
        device: see `melmask.plan.plan.make_plan`; None measures this machine, which takes seconds a group.
        num_devices: number of devices.

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
            costs.append(CellCost(cell, own.num_steps, own.run_s, over))
    order = {cell.name: number for number, cell in enumerate(study.cells)}
    return sorted(costs, key=lambda cost: order[cost.cell.name])


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
