"""The files of a study's folder: run folders, results, right answers clip by clip, and what failed.

- ``runs/NAME``: a run folder for each cell and seed
- ``results.jsonl``: a line for each run, task and probe, as of `melmask.evaluation.results`
- ``clips.jsonl``: for each of them how often every test clip was classified right, for the analysis in pairs
- ``tasks.jsonl``: fold and group of every test clip of a task
- ``failed.jsonl``: what failed, and why
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from melmask.evaluation.run import Evaluation
from melmask.evaluation.task import group_numbers
from melmask.fields import make
from melmask.files import append_line, good_lines
from melmask.locks import exclusive

RUNS, STORE = "runs", "store"
CLIPS, TASKS, FAILED, LOCK = "clips.jsonl", "tasks.jsonl", "failed.jsonl", ".study.lock"
LOCK_WAIT_S = 60.0


@dataclass(frozen=True)
class RightAnswers:
    """A line of clips.jsonl: which test clips a probe on the features of a run classified right.

    Args:
        run: its name in the study.
        task: its name.
        probe: its name.
        content: of the task, see `Result`.
        num_trainings: of the probe.
        right: a digit for each test clip, in the task's order: with how many of the trainings it was right. Empty for
            a task of several labels a clip, whose mAP is no mean over clips.
    """

    run: str
    task: str
    probe: str
    content: str
    num_trainings: int
    right: str

    @property
    def share(self) -> np.ndarray:
        """The share of trainings with which each clip was right."""
        return (np.frombuffer(self.right.encode(), np.uint8) - ord("0")) / self.num_trainings


@dataclass(frozen=True)
class TestedClips:
    """A line of tasks.jsonl: the test clips of a task.

    Args:
        task: its name.
        content: see `Result`.
        kind: of sounds, see `StudyTask`.
        folds: number of the test fold of each clip.
        groups: number of the group of each clip.
    """

    task: str
    content: str
    kind: str
    folds: tuple[int, ...]
    groups: tuple[int, ...]


@dataclass(frozen=True)
class Failure:
    """A line of failed.jsonl.

    Args:
        run: its name in the study.
        stage: "train", "keep its curves", or "evaluate" and the task.
        error: why it failed.
    """

    run: str
    stage: str
    error: str


def keep_clips(out: Path, run: str, kind: str, evaluation: Evaluation) -> None:
    """Append the right answers of an evaluation, and the test clips of its task where they are not listed yet."""
    found, task, content = evaluation.found, evaluation.task, evaluation.result.content
    tested = np.flatnonzero(found.fold_of >= 0)
    right = "" if task.is_multilabel else _digits(found.per_training[:, tested].argmax(axis=2) == task.targets[tested])
    line = RightAnswers(run, found.task, found.probe, content, len(found.per_training), right)
    groups = np.unique(group_numbers(task)[tested], return_inverse=True)[1]
    clips = TestedClips(found.task, content, kind, tuple(found.fold_of[tested].tolist()), tuple(groups.tolist()))
    with exclusive(out / LOCK, wait_s=LOCK_WAIT_S):
        if (found.task, content) not in read_tested(out):
            append_line(out / TASKS, asdict(clips))
        append_line(out / CLIPS, asdict(line))


def _digits(right: np.ndarray) -> str:
    """How many of the trainings are right, a digit for each clip."""
    counts: Int[np.ndarray, " clip"] = right.sum(axis=0)
    return "".join(map(str, counts.tolist()))


def read_right(out: Path) -> dict[tuple[str, str, str], RightAnswers]:
    """The newest right answers of each (run, task, probe); damaged lines are named in a warning."""
    return {(one.run, one.task, one.probe): one for one in good_lines(out / CLIPS, line_maker(RightAnswers))}


def read_tested(out: Path) -> dict[tuple[str, str], TestedClips]:
    """The test clips of each (task, content); damaged lines are named in a warning."""
    return {(one.task, one.content): one for one in good_lines(out / TASKS, line_maker(TestedClips))}


def keep_failure(out: Path, failure: Failure) -> None:
    """Append what failed."""
    with exclusive(out / LOCK, wait_s=LOCK_WAIT_S):
        append_line(out / FAILED, asdict(failure))


def read_failures(out: Path) -> list[Failure]:
    """All that failed, the oldest first."""
    return good_lines(out / FAILED, line_maker(Failure))


def line_maker(cls: Any) -> Any:
    """A function that makes a dataclass of a line's values, each checked."""

    def parse(values: Mapping[str, Any]) -> Any:
        return make(cls, values)

    return parse
