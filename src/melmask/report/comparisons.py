"""The section of a report about pairs of encoders: differences of their scores, with paired intervals."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from melmask.evaluation.compare import Comparison
from melmask.evaluation.comparisons import KeptComparison
from melmask.report import page
from melmask.report.verdicts import percent
from melmask.viz.differences import differences_figure

NOTE = (
    "Both encoders of a pair are scored on the same clips and on the same bootstrap resamples of them, so that the "
    "interval of the difference is narrower than those of the two scores suggest. Where it includes 0, the test clips "
    "do not tell which encoder is better."
)
CAPTION = "Differences with their 95 % intervals; a filled mark where the interval does not include 0."
HEADER = ("A", "B", "task, probe", "score of A", "score of B", "A − B, points", "95 % interval", "test clips")


def comparisons_section(
    kept: Sequence[KeptComparison], colours: Mapping[str, str], figures: page.Figures
) -> list[Markup]:
    """The findings as sentences, table and figure.

    Args:
        kept: the comparisons, at least one.
        colours: of the encoders, by name.
        figures: writes the figure.
    """
    found = [one.comparison for one in kept]
    pairs = list(dict.fromkeys((one.name_a, one.name_b) for one in found))
    sentences = [
        {"name": "", "text": _finding([one for one in found if (one.name_a, one.name_b) == pair])} for pair in pairs
    ]
    figure = differences_figure(found, colours)
    return [
        page.part("bullets", sentences, ""),
        page.paragraph(NOTE, "note"),
        page.table(HEADER, [_row(one) for one in found]),
        figures.add("comparisons", figure, CAPTION, narrow=True),
    ]


def _finding(found: Sequence[Comparison]) -> str:
    """What is sure about a pair of encoders, and what is not, in a sentence."""
    first = found[0]
    named = {
        f"{first.name_a} is better": [one for one in found if one.difference.low > 0],
        f"{first.name_b} is better": [one for one in found if one.difference.high < 0],
    }
    parts = [f"{words} on {', '.join(map(_gap, ones))}" for words, ones in named.items() if ones]
    undecided = len(found) - sum(map(len, named.values()))
    if undecided:
        parts.append(f"no sure difference in {undecided} of {len(found)} comparisons")
    return f"{first.name_a} and {first.name_b}: {'; '.join(parts)}."


def _gap(one: Comparison) -> str:
    return f"{one.task} with {one.probe} ({100 * one.difference.value:+.1f} points)"


def _row(one: Comparison) -> list[str]:
    gap, low, high = (
        f"{100 * value:+.1f}" for value in (one.difference.value, one.difference.low, one.difference.high)
    )
    scores = [percent(one.a.value), percent(one.b.value)]
    return [
        one.name_a,
        one.name_b,
        f"{one.task}, {one.probe}",
        *scores,
        gap,
        f"{low} to {high}",
        f"{one.difference.num_clips:,}",
    ]
