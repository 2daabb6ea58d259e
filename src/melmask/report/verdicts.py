"""What a table of evaluations says, in sentences: by paired tests, with ties as ties and what is below a floor first.

The intervals of two scores on the same clips say little about their difference. What is said here of which encoder is
better comes from the paired intervals that `melmask compare` kept; without one, scores are told and nothing is
concluded.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from melmask.evaluation.compare import Comparison
from melmask.evaluation.metrics import Score
from melmask.study.table import Column, Row, Table

Outcome = Literal["below", "equal", "better", "undecided", "untested"]
OUTCOMES: dict[Outcome, str] = {
    "better": "better by the paired test in {}",
    "equal": "equal in {}",
    "below": "below in {}",
    "undecided": "not to be told apart in {}",
    "untested": "not compared yet in {}",
}
HOW = "melmask compare tests this"
UNTRAINED = "untrained"
NUM_NAMED = 3  # scores below a floor that are named one by one


def percent(share: float) -> str:
    """
    >>> percent(0.5123)
    '51.2'
    """
    return f"{100 * share:.1f}"


@dataclass(frozen=True)
class Evidence:
    """The paired comparisons that were kept.

    Args:
        comparisons: of pairs of encoders.
    """

    comparisons: Sequence[Comparison] = ()

    def difference(self, one: Row, other: Row, column: Column) -> Score | None:
        """One row's score minus the other's, with its paired interval; None if these scores were not compared."""
        for found in self.comparisons:
            if (found.task, found.probe) != (Path(column.task).name, column.probe):
                continue
            if self._is(found.name_a, found.a, one, column) and self._is(found.name_b, found.b, other, column):
                return found.difference
            if self._is(found.name_a, found.a, other, column) and self._is(found.name_b, found.b, one, column):
                gap = found.difference
                return Score(-gap.value, -gap.high, -gap.low, gap.num_seeds, gap.num_clips)
        return None

    @staticmethod
    def _is(name: str, score: Score, row: Row, column: Column) -> bool:
        """Whether a comparison's encoder is the row's: by name, by score and by the number of clips."""
        cell = row.cells[column]
        if (score.value, score.num_clips) != (cell.score, cell.num_clips):
            return False
        if row.is_run:
            return Path(row.run).name == Path(name).name
        return name.endswith(UNTRAINED) if row.label.startswith(UNTRAINED) else row.label.startswith(name)

    def outcome(self, row: Row, rivals: Sequence[Row], column: Column) -> Outcome:
        """How a row stands to all of these."""
        scores = [rival.cells[column].score for rival in rivals]
        own = row.cells[column].score
        if max(scores) > own:
            return "below"
        if max(scores) == own:
            return "equal"
        found = [self.difference(row, rival, column) for rival in rivals]
        if any(gap is not None and gap.low <= 0 for gap in found):
            return "undecided"
        return "untested" if any(gap is None for gap in found) else "better"


def floors(table: Table, column: Column, evidence: Evidence) -> list[str]:
    """Every trained encoder that scores below one of its baselines in a column, in words; and if that may be chance."""
    found = []
    for row in table.ranked_runs(column):
        own = row.cells[column].score
        above = [one for one in table.baselines(row, column) if one.cells[column].score > own]
        if above:
            named = []
            for one in above:
                gap = evidence.difference(row, one, column)
                named.append(f"the {one.label} ({percent(one.cells[column].score)} %{_if_undecided(gap, '; ')})")
            found.append(f"{row.label} ({percent(own)} %) is below {' and '.join(named)}")
    return found


def _if_undecided(gap: Score | None, before: str) -> str:
    """The words for a paired interval that includes 0, after ``before``; empty for others, and where there is none."""
    return f"{before}they cannot be told apart" if gap is not None and gap.includes_zero else ""


def verdict(table: Table, evidence: Evidence, others: Collection[str] = ()) -> str:
    """The whole table in sentences: what is below a floor, then each encoder beside its baselines, then the runs.

    Args:
        table: the evaluations.
        evidence: the paired comparisons.
        others: names of the encoders that are no runs.
    """
    below = [f"{words} on {column.title}" for column in table.columns for words in floors(table, column, evidence)]
    sentences = []
    if below:
        more = f"; and {len(below) - NUM_NAMED} more" if len(below) > NUM_NAMED else ""
        sentences.append(f"Below a floor: {'; '.join(below[:NUM_NAMED])}{more}.")
    trained = [row for row in table.rows if row.is_run]
    runs = [row for row in trained if row.run not in others]
    for row in trained if len(runs) < 2 else [row for row in trained if row.run in others]:
        sentences.append(_beside_baselines(table, row, evidence))
    if not trained:
        return "No trained encoder has been evaluated yet."
    if len({row.run for row in trained}) > 1 and runs:
        sentences.append(_of_runs(table, trained, "encoder" if others else "run", evidence))
    return " ".join(sentence for sentence in sentences if sentence)


def _beside_baselines(table: Table, row: Row, evidence: Evidence) -> str:
    """How often an encoder is better than all its baselines; empty if it has none."""
    beside = {column: found for column in row.cells if (found := table.baselines(row, column))}
    if not beside:
        return ""
    names = " and ".join(dict.fromkeys(one.label for found in beside.values() for one in found))
    counts = Counter(evidence.outcome(row, found, column) for column, found in beside.items())
    return f"{row.label} beside {names}: {_counted(counts)}."


def _counted(counts: Counter[Outcome]) -> str:
    """Outcomes with their numbers, in words."""
    total = counts.total()
    words = [text.format(f"{counts[name]} of {total}") for name, text in OUTCOMES.items() if counts[name]]
    return ", ".join(words) + (f" ({HOW})" if counts["untested"] else "")


def _of_runs(table: Table, trained: Sequence[Row], kind: str, evidence: Evidence) -> str:
    """Which encoders are better than every other one, in one sentence; ``kind`` is what these are."""
    better, rest = Counter[str](), Counter[Outcome]()
    for column in table.columns:
        ranked = table.ranked_runs(column)
        if len(ranked) < 2:
            continue
        outcome = evidence.outcome(ranked[0], ranked[1:], column)
        if outcome == "better":
            better[ranked[0].label] += 1
        else:
            rest[outcome] += 1
    total = better.total() + rest.total()
    if not total:
        return ""
    parts = [f"{name} is better than every other {kind} in {count}" for name, count in better.most_common()]
    parts += [f"the highest scores are equal in {rest['equal']}"] if rest["equal"] else []
    parts += [f"no sure difference in {rest['undecided']}"] if rest["undecided"] else []
    parts += [f"not compared yet in {rest['untested']} ({HOW})"] if rest["untested"] else []
    return f"Of {total} evaluation{'s' if total > 1 else ''}: {'; '.join(parts)}."


def sentence(table: Table, column: Column, evidence: Evidence) -> str:
    """What is below a floor in a column, which scores are highest, and what paired tests say of their distances."""
    ranked = table.ranked_runs(column)
    if not ranked:
        return "only baselines have been evaluated."
    below = floors(table, column, evidence)
    first = ranked[0].cells[column]
    top = [row for row in ranked if row.cells[column].score == first.score]
    interval = f"{percent(first.score)} % {column.metric} (95 % interval {percent(first.low)} to {percent(first.high)})"
    if len(top) > 1:
        words = f"{', '.join(row.label for row in top[:-1])} and {top[-1].label} have equal scores, {interval}"
    else:
        words = f"{ranked[0].label} reaches {interval}"
    if len(ranked) > len(top):
        words += f", {_distance(ranked[0], ranked[len(top)], column, evidence)}"
    beside = [_distance(ranked[0], one, column, evidence, "the ") for one in table.baselines(ranked[0], column)]
    floor = f"Below a floor: {'; '.join(below)}. " if below else ""
    return f"{floor}{words}. It is {' and '.join(beside)}." if beside else f"{floor}{words}."


def _distance(row: Row, other: Row, column: Column, evidence: Evidence, article: str = "") -> str:
    """The distance of a score to another's, and what the paired test says of it."""
    own, cell = row.cells[column].score, other.cells[column].score
    side = f"{percent(abs(own - cell))} points {'above' if own > cell else 'below'}" if own != cell else "equal to"
    gap, test = evidence.difference(row, other, column), ""
    if gap is not None:
        paired = f"paired 95 % interval {100 * gap.low:+z.1f} to {100 * gap.high:+z.1f}"
        test = f"; {paired}{_if_undecided(gap, ': ')}"
    elif own != cell:
        test = "; not compared by a paired test"
    return f"{side} {article}{other.label} ({percent(cell)} %{test})"
