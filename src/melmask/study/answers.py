"""What the runs of a study got right, by task and by group of clips: all that its analysis and its power need."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from melmask.study.floors import Floor
from melmask.study.kept import RightAnswers, TestedClips, read_right, read_tested
from melmask.study.study import SCOPES, Cell, Kind, Study


@dataclass(frozen=True, eq=False)
class TaskAnswers:
    """What all runs got right on one task.

    A score is ``right.sum(-1) / weight.sum()``: the accuracy on each test fold, averaged over folds. Clips are summed
    over groups, since groups are what is drawn at random.

    Args:
        name: of the task.
        kind: of its sounds, see `StudyTask`.
        right: of each cell and seed the weighted number of right clips in each group; NaN where the run is missing.
        weight: of all clips in each group. A clip weighs one over the number of test clips in its fold.
    """

    name: str
    kind: Kind
    right: Float[np.ndarray, "cell seed group"]
    weight: Float[np.ndarray, " group"]

    @property
    def scores(self) -> Float[np.ndarray, "cell seed"]:
        """The accuracy of each run; NaN where it is missing."""
        return self.right.sum(axis=2) / self.weight.sum()


@dataclass(frozen=True, eq=False)
class Answers:
    """What all runs got right with one probe.

    Args:
        probe: its name.
        cells: group and arm of each cell, in the study's order.
        tasks: at least one.
        left_out: tasks that are missing, and why.
        absent: the runs that lack a task, in words.
    """

    probe: str
    cells: tuple[tuple[str, str], ...]
    tasks: tuple[TaskAnswers, ...]
    left_out: tuple[str, ...] = ()
    absent: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """All that is missing."""
        return (*self.left_out, *([f"not complete, and left out: {self.absent}"] if self.absent else []))

    def number(self, group: str, arm: str) -> int:
        """The row of a cell."""
        return self.cells.index((group, arm))

    def scopes(self) -> dict[str, list[int]]:
        """What scores are averaged over: numbers of all tasks, of those of each kind, and of each task alone."""
        found = {"all tasks": list(range(len(self.tasks)))}
        for kind in dict.fromkeys(task.kind for task in self.tasks):
            rows = [number for number, task in enumerate(self.tasks) if task.kind == kind]
            if 0 < len(rows) < len(self.tasks):
                found[SCOPES[kind]] = rows
        if len(self.tasks) > 1:
            found |= {task.name: [number] for number, task in enumerate(self.tasks)}
        return found


def read_answers(study: Study, out: Path, probe: str, floors: Sequence[Floor] = ()) -> Answers:
    """Read what the runs of a study in a folder got right; runs that are missing are NaN, and named in notes.

    Args:
        study: whose runs are read; the folder may hold those of others too.
        out: the folder, see `melmask.study.kept`.
        probe: its label in results.
        floors: that are read too, as further cells; without those of which nothing is there.

    Raises:
        ValueError: nothing is there, or runs were evaluated on different contents of one task.
    """
    right, tested = read_right(out), read_tested(out)
    there = {run for run, _, label in right if label == probe}
    known = [floor for floor in floors if any(floor.run_name(seed) in there for seed in study.seeds)]
    rows: list[Cell | Floor] = [*study.cells, *known]
    tasks, left_out = [], []
    for name, given in zip(study.task_names, study.tasks, strict=True):
        kept = {
            (row, column): right[run, name, probe]
            for row, cell in enumerate(rows)
            for column, seed in enumerate(study.seeds)
            if ((run := cell.run_name(seed)), name, probe) in right
        }
        if not kept:
            left_out.append(f"{name}: no run is evaluated with {probe}")
            continue
        if not all(one.right for one in kept.values()):
            left_out.append(f"{name}: left out, since clips have several labels and mAP is no mean over clips")
            continue
        contents = {one.content for one in kept.values()}
        if len(contents) > 1:
            raise ValueError(f"{out}: runs were evaluated on different contents of {name}: evaluate all of them anew")
        clips = tested.get((name, contents.pop()))
        if clips is None:
            raise ValueError(f"{out} does not list the test clips of {name}: run the study again")
        tasks.append(_task_answers(kept, clips, len(rows), len(study.seeds), name, given.kind))
    if not tasks:
        raise ValueError(
            f"{out} has no results of study {study.name} with {probe}: run it first. {'; '.join(left_out)}"
        )
    cells = tuple((cell.group, cell.arm) for cell in rows)
    return Answers(probe, cells, tuple(tasks), tuple(left_out), study.summed_up(_absent(rows, study.seeds, tasks)))


def _task_answers(
    kept: dict[tuple[int, int], RightAnswers], clips: TestedClips, num_cells: int, num_seeds: int, name: str, kind: Kind
) -> TaskAnswers:
    folds, groups = np.array(clips.folds), np.array(clips.groups)
    weight = 1.0 / np.bincount(folds)[folds]
    num_groups = int(groups.max()) + 1
    right = np.full((num_cells, num_seeds, num_groups), np.nan)
    for place, one in kept.items():
        right[place] = np.bincount(groups, weight * one.share, num_groups)
    return TaskAnswers(name, kind, right, np.bincount(groups, weight, num_groups))


def _absent(cells: Sequence[Cell | Floor], seeds: Sequence[int], tasks: Sequence[TaskAnswers]) -> list[str]:
    """Names of the runs that lack a task."""
    lacking = np.isnan(np.stack([task.scores for task in tasks])).any(axis=0)
    return [cells[row].run_name(seeds[column]) for row, column in np.argwhere(lacking)]
