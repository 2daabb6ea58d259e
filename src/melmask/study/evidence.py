"""All that a study's report states: differences, scores and their draws, read from the folder once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np
from jaxtyping import Float

from melmask.study.analysis import (
    NUM_DRAWS,
    CellName,
    Compared,
    Pair,
    compare_cells,
    differences_of,
)
from melmask.study.answers import Answers, read_answers
from melmask.study.findings import Difference, adjusted
from melmask.study.floors import floors_of
from melmask.study.kept import Failure, read_failures, read_right
from melmask.study.study import SCOPES, Study
from melmask.study.table import features_label

EVENTS, OTHERS = SCOPES["events"], SCOPES["other"]  # the axes of the trade-off
NUM_ANGLES = 90  # points of an ellipse


@dataclass(frozen=True, eq=False)
class TradeOff:
    """Two differences of one arm to the baseline, of its scores on event tasks and on the others, drawn together.

    Args:
        group, arm: of the cell.
        events, others: the differences; scores are 0..1.
        outline: of the ellipse around them that holds 95 % of the joint draws, (events, others) at each point.
    """

    group: str
    arm: str
    events: float
    others: float
    outline: Float[np.ndarray, "point 2"]


@dataclass(frozen=True)
class Contrast:
    """How large another choice than masking is, or what training adds, in all tasks.

    Args:
        kind: "framework", "probe" or "floor".
        what: is compared, in words.
        value: the difference of mean scores; scores are 0..1.
        low, high: its 95 % interval.
    """

    kind: str
    what: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the runs of a study show.

    Args:
        study: whose runs they are.
        answers: by the label of the probe; those of the study's probes that have results, in its order.
        compared: for each of them the draws of every cell minus its baseline, and of every cell's score.
        differences: to the baselines, of all probes.
        runs: for each planned run the number of tasks that it is evaluated on with all of the study's probes.
        failures: those of this study's runs, the oldest first.
        notes: what is missing.
        num_draws: of all that is drawn.
    """

    study: Study
    answers: Mapping[str, Answers]
    compared: Mapping[str, Mapping[Pair, Compared]]
    differences: tuple[Difference, ...]
    runs: Mapping[str, int]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]
    num_draws: int

    @property
    def probe(self) -> str:
        """The probe of the conclusions: the first of the study that has results."""
        return next(iter(self.answers))

    @property
    def num_complete(self) -> int:
        """Runs that are evaluated on all tasks."""
        return sum(done == len(self.study.tasks) for done in self.runs.values())

    @property
    def mean_scopes(self) -> list[str]:
        """What conclusions are about: all tasks, and those of each kind."""
        answers = self.answers[self.probe]
        single = {task.name for task in answers.tasks} if len(answers.tasks) > 1 else set()
        return [scope for scope in answers.scopes() if scope not in single]

    @property
    def score_scopes(self) -> list[str]:
        """What scores are shown of: the means, but for those of a single task, and the tasks."""
        return [
            scope for scope, rows in self.answers[self.probe].scopes().items()
            if len(rows) > 1 or scope not in (EVENTS, OTHERS)
        ]  # fmt: skip

    def find(self, group: str, arm: str, scope: str, probe: str = "") -> Difference | None:
        """A difference to the baseline; None where no pair of runs is complete."""
        wanted = (group, arm, scope, probe or self.probe)
        return next((one for one in self.differences if (one.group, one.arm, one.scope, one.probe) == wanted), None)

    @property
    def means(self) -> list[Difference]:
        """The differences to the baseline in means over tasks, by the first probe: what conclusions are drawn from."""
        return [one for one in self.differences if one.probe == self.probe and one.scope in self.mean_scopes]

    def score(self, cell: CellName, scope: str, probe: str = "") -> tuple[float, float, float, int] | None:
        """A cell's score in a scope with its 95 % interval, and its seeds; None without a complete run."""
        probe = probe or self.probe
        found = self.compared[probe].get((cell, None))
        if found is None:
            return None
        number = list(self.answers[probe].scopes()).index(scope)
        low, high = (min(max(end, 0.0), 1.0) for end in found.draws.interval(number))
        return float(found.draws.value[number]), low, high, found.num_seeds

    @cached_property
    def trade_offs(self) -> list[TradeOff]:
        """Of every arm with a complete pair of runs; empty where all tasks are of one kind."""
        scopes = list(self.answers[self.probe].scopes())
        if EVENTS not in scopes or OTHERS not in scopes:
            return []
        axes, found = [scopes.index(EVENTS), scopes.index(OTHERS)], []
        for (cell, other), one in self.compared[self.probe].items():
            if other is not None:
                events, others = one.draws.value[axes].tolist()
                outline = ellipse(one.draws.value[axes], one.draws.resampled[axes])
                found.append(TradeOff(*cell, events, others, outline))
        return found

    def between(self, pairs: Sequence[Pair]) -> list[Difference]:
        """Differences of other pairs of cells, by the probe of the conclusions; p values are adjusted for all these."""
        answers = self.answers[self.probe]
        compared = compare_cells(answers, pairs, num_draws=self.num_draws)
        return adjusted(differences_of(answers, compared, self.study.margin), len(pairs))

    @cached_property
    def contrasts(self) -> list[Contrast]:
        """How far the baseline's masking is above the floors, and the choice of framework and of probe with it."""
        baseline, groups = self.study.baseline, self.study.groups
        answers = self.answers[self.probe]
        floors = [(floor.group, floor.arm) for floor in floors_of(self.study)]
        pairs: list[Pair] = [
            ((group, baseline), floor)
            for group in groups for floor in floors if floor in answers.cells and floor[0] in ("", group)
        ]  # fmt: skip
        pairs += [((second, baseline), (first, baseline)) for first, second in combinations(groups, 2)]
        found = []
        for (cell, other), one in compare_cells(answers, pairs, num_draws=self.num_draws).items():
            assert other is not None
            what, kind = f"{cell[0]} against {other[0]}, both with {baseline} masking, {self.probe}", "framework"
            if other in floors:
                floor = features_label(other[1])
                what, kind = f"{cell[0]} with {baseline} masking against {floor}, {self.probe}", "floor"
            found.append(Contrast(kind, what, float(one.draws.value[0]), *one.draws.interval(0)))
        first, *others = self.answers.values()
        for second in others:
            if not _same_tasks(first, second):
                continue
            pairs = [((group, baseline), (group, _by(baseline, second))) for group in groups]
            of_both = _with_cells_of(first, second)
            for (cell, _), one in compare_cells(of_both, pairs, num_draws=self.num_draws).items():
                what = f"{first.probe} against {second.probe}, {cell[0]} with {baseline} masking"
                found.append(Contrast("probe", what, float(one.draws.value[0]), *one.draws.interval(0)))
        return found

    def seed_deviation(self, group: str) -> float | None:
        """The standard deviation of the baseline's mean score over seeds; None with fewer than two."""
        answers = self.answers[self.probe]
        row = answers.number(group, self.study.baseline)
        scores = np.mean([task.scores[row] for task in answers.tasks], axis=0)
        scores = scores[np.isfinite(scores)]
        return float(scores.std(ddof=1)) if len(scores) > 1 else None


def read_evidence(study: Study, out: Path, num_draws: int = NUM_DRAWS) -> Evidence:
    """Read what a study's folder shows, of a whole grid or of a part of it.

    Args:
        study: whose runs are read; the folder may hold those of others too.
        out: the folder, of which only the .jsonl files are read.
        num_draws: see `melmask.study.analysis.draw_differences`.

    Raises:
        ValueError: it has no results of the study, or runs were evaluated on different contents of one task.
    """
    right = read_right(out)
    named = {run.name for run in study.runs}
    there = {probe for run, _, probe in right if run in named}
    probes = [probe for probe in study.probe_labels if probe in there] or study.probe_labels[:1]
    floors = floors_of(study)
    answers = {probe: read_answers(study, out, probe, floors) for probe in probes}
    baselines: list[Pair] = [
        ((cell.group, cell.arm), (cell.group, study.baseline)) for cell in study.cells if cell.arm != study.baseline
    ]
    compared = {
        probe: compare_cells(one, [*baselines, *((cell, None) for cell in one.cells)], num_draws=num_draws)
        for probe, one in answers.items()
    }
    differences = [
        difference
        for probe, one in answers.items()
        for difference in adjusted(
            differences_of(one, {pair: compared[probe][pair] for pair in baselines if pair in compared[probe]},
                           study.margin),
            len(baselines),
        )
    ]  # fmt: skip
    runs = {
        run.name: sum(all((run.name, task, probe) in right for probe in probes) for task in study.task_names)
        for run in study.runs
    }
    notes = [f"no run is evaluated with {probe} yet" for probe in study.probe_labels if probe not in answers]
    notes += dict.fromkeys(note for one in answers.values() for note in one.left_out)
    failures = tuple(one for one in read_failures(out) if one.run in named)
    return Evidence(study, answers, compared, tuple(differences), runs, failures, tuple(notes), num_draws)


def ellipse(centre: Float[np.ndarray, " 2"], drawn: Float[np.ndarray, "2 draw"]) -> Float[np.ndarray, "point 2"]:
    """The ellipse around a point that holds 95 % of the draws.

    Its shape is that of the draws by ranks and quantiles, as draws of few seeds have no variance: half-widths of 95 %
    along the axes, and the correlation sin(pi rho / 6) * 2 of Spearman's rho.

    Args:
        centre: the point.
        drawn: around it.
    """
    ends = np.stack([np.quantile(one, [0.025, 0.975]) for one in drawn])
    scale = (ends[:, 1] - ends[:, 0]) / 2
    if not scale.all():
        return centre + np.stack([-scale, scale])  # of no width in one direction: a line
    ranks = drawn.argsort(axis=1).argsort(axis=1)
    correlation = np.clip(2 * np.sin(np.pi / 6 * np.corrcoef(ranks)), -0.999, 0.999)[0, 1]
    root = np.linalg.cholesky(np.array([[1, correlation], [correlation, 1]]))
    standard = np.linalg.solve(root, (drawn - centre[:, None]) / scale[:, None])
    radius = np.quantile(np.sqrt((standard**2).sum(axis=0)), 0.95)
    angle = np.linspace(0, 2 * np.pi, NUM_ANGLES)
    return centre + (radius * (root @ np.stack([np.cos(angle), np.sin(angle)]))).T * scale


def _same_tasks(first: Answers, second: Answers) -> bool:
    pairs = zip(first.tasks, second.tasks, strict=False)
    return len(first.tasks) == len(second.tasks) and all(
        one.name == other.name and np.array_equal(one.weight, other.weight) for one, other in pairs
    )


def _with_cells_of(first: Answers, second: Answers) -> Answers:
    """The answers of one probe, with those of another as further cells of the same groups, named by `_by`."""
    tasks = tuple(
        replace(one, right=np.concatenate([one.right, other.right]))
        for one, other in zip(first.tasks, second.tasks, strict=True)
    )
    more = tuple((group, _by(arm, second)) for group, arm in second.cells)
    return Answers(first.probe, (*first.cells, *more), tasks)


def _by(arm: str, answers: Answers) -> str:
    """An arm's name among those of another probe."""
    return f"{arm} by {answers.probe}"
