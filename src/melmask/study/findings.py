"""What is said of the differences between the arms of a study: p values for many of them, findings, sentences."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from melmask.evaluation.task import FEW_GROUPS

LEVEL = 0.05
# A study is made in the hope that its arms are better than the baseline: what contradicts that is told first.
SAID = {
    "worse": "worse",
    "equivalent": "equivalent within {margin}",
    "not worse": "no worse than by {margin}, and not shown to be better",
    "open": "undecided",
    "better": "better",
}


@dataclass(frozen=True)
class Difference:
    """An arm against the baseline of its group, with one probe in one scope; scores are 0..1.

    Args:
        group, arm, baseline: of the cells.
        probe: its name.
        scope: "all tasks", the tasks of one kind, or a task.
        value: the arm's score minus the baseline's, averaged over seeds and tasks.
        low, high: its 95 % interval.
        p_value: two-sided, of no difference.
        p_holm: adjusted for all planned comparisons of its family: the same probe, and means or single tasks.
        p_not_worse: of being worse by the margin or more; not worse where it is small.
        p_equivalent: of differing by the margin or more in either direction, by two one-sided tests.
        margin: of equivalence.
        smallest: the smallest difference that the study would have found with a power of 80 %.
        num_seeds: pairs of runs.
        num_tasks: in the scope.
        num_groups: of test clips, in the task with fewest.
    """

    group: str
    arm: str
    baseline: str
    probe: str
    scope: str
    value: float
    low: float
    high: float
    p_value: float
    p_holm: float
    p_not_worse: float
    p_equivalent: float
    margin: float
    smallest: float
    num_seeds: int
    num_tasks: int
    num_groups: int

    @property
    def finding(self) -> Literal["better", "worse", "equivalent", "not worse", "open"]:
        """What the study says of the arm, at the level of 5 %; of one seed nothing, as others may differ."""
        if self.num_seeds < 2:
            return "open"
        if self.p_holm < LEVEL:
            return "better" if self.value > 0 else "worse"
        if self.p_equivalent < LEVEL:
            return "equivalent"
        return "not worse" if self.p_not_worse < LEVEL else "open"

    @property
    def sentence(self) -> str:
        """The finding in words, with its uncertainty."""
        value, low, high = (f"{100 * number:+z.1f}" for number in (self.value, self.low, self.high))
        who = f"{self.arm} against {self.baseline} ({self.group}, {self.scope}, {self.probe})"
        figures = f"{value} points, 95 % interval {low} to {high}, p = {self.p_holm:.2g} after Holm's adjustment"
        said = SAID[self.finding].format(margin=margin_text(self.margin))
        if self.finding == "open":
            said += f"; a difference of {100 * self.smallest:.1f} points would have been found four times in five"
        weak = [f"{self.num_seeds} seed says nothing of other seeds"] if self.num_seeds < 2 else []
        weak += [f"{self.num_groups} groups of clips only"] if self.num_groups < FEW_GROUPS else []
        return f"{who}: {said}: {figures}" + (f" ({'; '.join(weak)})" if weak else "") + "."


def margin_text(margin: float) -> str:
    """The margin of equivalence in points.

    >>> margin_text(0.01), margin_text(0.005)
    ('1 point', '0.5 points')
    """
    return f"{100 * margin:g} point{'' if margin == 0.01 else 's'}"


def adjusted(found: Sequence[Difference], num_pairs: int) -> list[Difference]:
    """Differences with p values adjusted within each family: one probe, and means over tasks or single tasks.

    Pairs that are planned and not measured yet count too: what an incomplete grid finds is no less certain than what
    the whole one does.

    Args:
        found: differences of one probe, of every pair in the same scopes.
        num_pairs: that are planned.
    """
    there = len({(one.group, one.arm, one.baseline) for one in found})
    families = [(one.probe, one.num_tasks > 1 or one.scope.endswith(" tasks")) for one in found]
    result = list(found)
    for family in dict.fromkeys(families):
        rows = [row for row, own in enumerate(families) if own == family]
        p_values = [found[row].p_value for row in rows]
        for row, p_value in zip(rows, holm(p_values, len(rows) // there * num_pairs), strict=True):
            result[row] = replace(found[row], p_holm=p_value)
    return result


def holm(p_values: Sequence[float], number: int | None = None) -> list[float]:
    """P values adjusted for the number of comparisons.

    Args:
        p_values: of what was compared.
        number: of comparisons; those that are missing count as not significant. None: as many as p values.

    Source: Holm (1979), "A simple sequentially rejective multiple test procedure".

    >>> holm([0.01, 0.04, 0.03]), holm([0.01, 0.04], 4)
    ([0.03, 0.06, 0.06], [0.04, 0.12])
    """
    number = len(p_values) if number is None else number
    order, largest = np.argsort(p_values, kind="stable"), 0.0
    result = [0.0] * len(p_values)
    for rank, row in enumerate(order):
        largest = max(largest, min(1.0, (number - rank) * p_values[row]))
        result[row] = largest
    return result
