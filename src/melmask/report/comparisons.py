"""The section of a report about pairs of encoders: differences of their scores, with paired intervals."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from melmask.evaluation.compare import Comparison, findings
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
MOST_DRAWN = 40  # comparisons in one figure; where there are more, each encoder A has a figure of its own
HEADER = ("A", "B", "task, probe", "score of A", "score of B", "A − B, points", "95 % interval", "test clips")


def comparisons_section(
    kept: Sequence[KeptComparison], colours: Mapping[str, str], figures: page.Figures
) -> list[Markup]:
    """The findings as sentences, a table and figures.

    Args:
        kept: the comparisons, at least one.
        colours: of the encoders, by name.
        figures: writes them.
    """
    found = [one.comparison for one in kept]
    sentences = [{"name": "", "text": text} for text in findings(found)]
    drawn = [found]
    if len(found) > MOST_DRAWN:
        names = dict.fromkeys(one.name_a for one in found)
        drawn = [[one for one in found if one.name_a == name] for name in names]
    return [
        page.part("bullets", sentences, ""),
        page.paragraph(NOTE, "note"),
        page.table(HEADER, [_row(one) for one in found]),
        *(figures.add("comparisons", differences_figure(ones, colours), CAPTION, narrow=True) for ones in drawn),
    ]


def _row(one: Comparison) -> list[str]:
    gap, low, high = (
        f"{100 * value:+z.1f}" for value in (one.difference.value, one.difference.low, one.difference.high)
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
