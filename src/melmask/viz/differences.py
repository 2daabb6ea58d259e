"""Differences of two encoders' scores, with their paired intervals."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from melmask.evaluation.compare import Comparison
from melmask.viz import style


@style.in_style
def differences_figure(comparisons: Sequence[Comparison], colours: Mapping[str, str]) -> Figure:
    """A line for every comparison: the difference of the scores in points, and its 95 % interval, beside zero.

    Args:
        comparisons: at least one, those of one pair of encoders next to each other.
        colours: of the encoders, by name; others are dark.
    """
    figure = style.new_figure(0.5 + 0.24 * len(comparisons), 6.5)
    axes = figure.subplots()
    for place, one in enumerate(comparisons):
        gap, low, high = (100 * value for value in (one.difference.value, one.difference.low, one.difference.high))
        colour = colours.get(one.name_a, style.INK)
        axes.errorbar(
            gap, place, xerr=[[gap - low], [high - gap]], color=colour, marker="o", capsize=2.5, linewidth=1.4,
            markerfacecolor="white" if one.difference.includes_zero else colour,
        )  # fmt: skip
    axes.axvline(0, color=style.MUTED, linewidth=1)
    labels = [f"{style.shortened(f'{one.name_a} − {one.name_b}', 34)}, {one.task}, {one.probe}" for one in comparisons]
    axes.set_yticks(range(len(comparisons)), labels)
    axes.set_ylim(len(comparisons) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0, labelcolor=style.INK)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("difference in points", loc="right")
    axes.grid(axis="x")
    return figure
