"""How far a study has got: what its runs still lack, and the time that is left."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melmask.data.store import Store
from melmask.files import read_lines
from melmask.nn.encoder_file import ENCODER as ENCODER_FILE
from melmask.study.curves import CURVES, read_curves
from melmask.study.floors import evaluated_with
from melmask.study.kept import CLIPS, RUNS, read_failures, read_right
from melmask.study.study import PlannedRun, Study
from melmask.train.recipe import Recipe
from melmask.train.run_folder import LOG, log_values


@dataclass(frozen=True)
class Standing:
    """How far a study has got.

    Args:
        num_runs: of this shard.
        num_done: those that are trained and evaluated.
        num_failed: those of which something failed in this call.
        running: names of those at work.
        num_steps: optimiser steps of all runs.
        steps_done: of them.
        left_s: seconds until the end at the pace of this call, evaluations included; None while none can be told.
    """

    num_runs: int
    num_done: int
    num_failed: int
    running: tuple[str, ...]
    num_steps: int
    steps_done: int
    left_s: float | None


Report = Callable[[Standing], None]
Evaluated = tuple[str, str, str]  # run, task and probe


def num_steps_of(recipe: Recipe, store: Store) -> int:
    """Optimiser steps of a run on that store."""
    return recipe.steps or recipe.num_steps(recipe.make_loader(store).crops_per_epoch)


def missing(study: Study, out: Path, run: PlannedRun, store: Store) -> list[str]:
    """What a run still lacks: "train", or the names of tasks, also of its floors; empty if it is done."""
    if needs_training(study, out, run, store):
        return ["train"]
    return [evaluation_in_words(run, name, task) for name, task in missing_probes(study, read_right(out), run)]


def needs_training(study: Study, out: Path, run: PlannedRun, store: Store) -> bool:
    """Whether a run is to be trained, or resumed.

    One whose folder is gone is not, if it was evaluated: the .jsonl files are enough.
    """
    folder, num_steps = out / RUNS / run.name, num_steps_of(run.recipe, store)
    if folder.exists():
        return not is_trained(folder, num_steps)
    lacking = missing_probes(study, read_right(out), run)
    return kept_steps(out).get(run.name) != num_steps or any(name == run.name for name, _ in lacking)


def kept_steps(out: Path) -> dict[str, int]:
    """The steps of each run by the curves that were kept, also of those whose folder is gone."""
    return {name: curves.step[-1] for name, curves in read_curves(out).items()}


def is_trained(folder: Path, num_steps: int) -> bool:
    """Whether a run folder holds the encoder of a run of so many steps."""
    return (folder / ENCODER_FILE).exists() and steps_done(folder) >= num_steps


def steps_done(folder: Path) -> int:
    """Of a run, by its log; a line that is being written does not count."""
    entries = read_lines(folder / LOG, log_values)[0]
    return int(entries[-1]["step"]) if entries else 0


def missing_probes(study: Study, kept: Collection[Evaluated], run: PlannedRun) -> dict[tuple[str, str], list[str]]:
    """By the name of the encoder and of the task, the probes by which a run or one of its floors is not evaluated."""
    labelled = list(zip(study.probes, study.probe_labels, strict=True))
    lacking = {
        (name, task): [probe for probe, label in labelled if (name, task, label) not in kept]
        for name in evaluated_with(study, run)
        for task in study.task_names
    }
    return {pair: probes for pair, probes in lacking.items() if probes}


def evaluation_in_words(run: PlannedRun, name: str, task: str) -> str:
    """An evaluation in words: the task, and whose it is if not the run's."""
    return task if name == run.name else f"{task} of {name}"


class Watch:
    """Counts what is done of a study, and reports it with the time that is left."""

    def __init__(
        self,
        study: Study,
        out: Path,
        runs: Sequence[PlannedRun],
        steps: Sequence[int],
        num_failures: int,
        report: Report,
    ) -> None:
        self.study, self.out, self.runs, self.steps = study, out, runs, steps
        self.num_failures, self.report = num_failures, report
        self._read: dict[Path, tuple[int, Any]] = {}
        self.started, self.at_start = time.monotonic(), sum(self._steps())

    def _steps(self) -> list[int]:
        kept = self._once(self.out / CURVES, lambda: kept_steps(self.out)) or {}
        done = [self._steps_of(self.out / RUNS / run.name, kept.get(run.name, 0)) for run in self.runs]
        return [min(one, steps) for one, steps in zip(done, self.steps, strict=True)]

    def _steps_of(self, folder: Path, kept: int) -> int:
        return (self._once(folder / LOG, lambda: steps_done(folder)) or 0) if folder.exists() else kept

    def _once(self, path: Path, read: Callable[[], Any]) -> Any:
        """What was read of a file that grows, read again only where it has grown; None where there is none."""
        size = path.stat().st_size if path.exists() else None
        if size is None:
            return None
        if path not in self._read or self._read[path][0] != size:
            self._read[path] = size, read()
        return self._read[path][1]

    def tell(self, running: Sequence[str]) -> None:
        """Report how far the study has got."""
        done, total = self._steps(), sum(self.steps)
        kept = self._once(self.out / CLIPS, lambda: set(read_right(self.out))) or set()
        lacking = [bool(missing_probes(self.study, kept, run)) for run in self.runs]
        num_done = sum(one == steps and not lacks for one, steps, lacks in zip(done, self.steps, lacking, strict=True))
        failed = {one.run for one in read_failures(self.out)[self.num_failures :]}
        new, elapsed_s = sum(done) - self.at_start, time.monotonic() - self.started
        left_s = elapsed_s * (total - sum(done)) / new if new else None
        self.report(Standing(len(self.runs), num_done, len(failed), tuple(running), total, sum(done), left_s))
