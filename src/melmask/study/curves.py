"""curves.jsonl: of each run of a study its loss, effective rank and speed, which outlive the run's folder."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from melmask.files import append_line, good_lines
from melmask.locks import exclusive
from melmask.study.kept import LOCK, LOCK_WAIT_S, RUNS, line_maker
from melmask.study.study import Study
from melmask.train.recipe import Recipe
from melmask.train.run_folder import RECIPE, read_log, read_machine

CURVES = "curves.jsonl"
DIGITS = 5  # of the values of a curve


@dataclass(frozen=True)
class RunCurves:
    """A line of curves.jsonl: the log of one run.

    Args:
        run: its name in the study.
        seed: of the run.
        num_steps: of the whole run.
        step: optimiser steps done at each entry of the log, ascending.
        loss, effective_rank: at these steps.
        step_s: seconds of a step, the median over the log.
        mask_share: share of these that guides and masks took, the median.
        hardware: what it was last trained on; empty if not known.
        num_threads: that it computed on last.
        melmask, torch: versions that wrote this line: those that trained the run where `melmask study run` wrote it.
    """

    run: str
    seed: int
    num_steps: int
    step: tuple[int, ...]
    loss: tuple[float, ...]
    effective_rank: tuple[float, ...]
    step_s: float
    mask_share: float
    hardware: str
    num_threads: int
    melmask: str
    torch: str


def read_curves(out: Path) -> dict[str, RunCurves]:
    """The curves of each run of a study's folder, by its name; damaged lines are named in a warning."""
    return {one.run: one for one in good_lines(out / CURVES, line_maker(RunCurves))}


def keep_curves(out: Path, names: Sequence[str]) -> dict[str, RunCurves]:
    """Append what the logs of run folders say beyond the lines that are kept.

    Args:
        out: the study's folder.
        names: of runs; those without a folder or a log are left out.

    Returns:
        The curves of these runs that are known, also of those whose folder is gone, in the order of the names.
    """
    kept = read_curves(out)
    for name in names:
        found = _of_folder(out / RUNS / name, name)
        if found is None or (name in kept and kept[name].step[-1] >= found.step[-1]):
            continue
        with exclusive(out / LOCK, wait_s=LOCK_WAIT_S):
            append_line(out / CURVES, asdict(found))
        kept[name] = found
    return {name: kept[name] for name in names if name in kept}


def collect_curves(study: Study, out: Path) -> dict[str, RunCurves]:
    """The curves of all runs of a study: kept from run folders where there are some, and read where they are kept."""
    return keep_curves(out, [run.name for run in study.runs])


def _of_folder(folder: Path, name: str) -> RunCurves | None:
    """What the log in a run folder says; None without any."""
    if not (folder / RECIPE).exists():
        return None
    by_step: dict[int, dict[str, Any]] = {line["step"]: line for line in read_log(folder)}  # a resumed run's last word
    lines = [by_step[step] for step in sorted(by_step)]
    if not lines:
        return None
    recipe, last = Recipe.load(folder / RECIPE), lines[-1]
    return RunCurves(
        run=name,
        seed=recipe.seed,
        num_steps=last["num_steps"],
        step=tuple(line["step"] for line in lines),
        loss=_rounded(lines, "loss"),
        effective_rank=_rounded(lines, "effective_rank"),
        step_s=float(f"{recipe.batch_size / median(line['samples_per_s'] for line in lines):.{DIGITS}g}"),
        mask_share=float(f"{median(line['mask_share'] for line in lines):.{DIGITS}g}"),
        hardware=read_machine(folder).get("hardware", ""),
        num_threads=last.get("num_threads", 0),
        melmask=version("melmask"),
        torch=version("torch"),
    )


def _rounded(lines: Sequence[dict[str, Any]], name: str) -> tuple[float, ...]:
    return tuple(float(f"{line[name]:.{DIGITS}g}") for line in lines)
