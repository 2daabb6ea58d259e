"""Figures of a study: differences to the baseline, the trade-off between kinds of tasks, and curves."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import blended_transform_factory

from melmask.study.curves import RunCurves
from melmask.study.evidence import TradeOff
from melmask.study.findings import Difference
from melmask.viz import style

MAX_REACH = 4.0  # of an axis of differences, in distances of the farthest point
MARKERS = "osD^vPX<>ph*d8"  # beside the colour, for those who do not tell colours apart


@dataclass(frozen=True)
class Look:
    """How an arm is drawn in all figures of a study."""

    colour: str
    marker: str


def looks_of(arms: Sequence[str], baseline: str) -> dict[str, Look]:
    """A colour and a marker for every arm; the baseline is dark."""
    others = [arm for arm in arms if arm != baseline]
    colours = style.label_colours(len(others))
    found = {arm: Look(colours[i], MARKERS[i % len(MARKERS)]) for i, arm in enumerate(others)}
    return found | {baseline: Look(style.INK, "o")}


@style.in_style
def effects_figure(differences: Sequence[Difference], scopes: Sequence[str], looks: Mapping[str, Look]) -> Figure:
    """Every arm's difference to the baseline with its 95 % interval: a panel a scope, a line an arm, by group.

    Args:
        differences: of one probe and one margin, at least one.
        scopes: panels from the left.
        looks: by arm.
    """
    rows = list(dict.fromkeys((one.group, one.arm) for one in differences))
    groups = list(dict.fromkeys(group for group, _ in rows))
    places = {row: place + groups.index(row[0]) for place, row in enumerate(rows)}  # a gap between groups
    figure = style.new_figure(0.75 + 0.21 * (len(rows) + len(groups)))
    panels = figure.subplots(1, len(scopes), sharey=True, squeeze=False)[0]
    for axes, scope in zip(panels, scopes, strict=True):
        _no_difference(axes, differences[0].margin)
        own = [one for one in differences if one.scope == scope]
        ends = [differences[0].margin, *(max(abs(one.low), abs(one.high)) for one in own)]
        reach = _reach(ends, [one.value for one in own])
        axes.set_xlim(-reach, reach)
        for one in own:
            _draw_interval(axes, one, places[one.group, one.arm], looks[one.arm], reach)
        axes.set_title(scope, fontweight="bold")
        axes.tick_params(axis="y", length=0, labelcolor=style.INK)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_xlabel(f"points, minus {differences[0].baseline}", loc="right")
    panels[0].set_yticks(list(places.values()), [style.shortened(arm, 30) for _, arm in places])
    panels[0].set_ylim(max(places.values()) + 0.7, -1.0)
    beside = blended_transform_factory(panels[0].transAxes, panels[0].transData)
    for group in groups if len(groups) > 1 else ():
        first = min(place for (own, _), place in places.items() if own == group)
        panels[0].text(0.0, first - 0.75, group, fontweight="bold", ha="right", va="center", transform=beside)
    return figure


def _no_difference(axes: Axes, margin: float) -> None:
    """The line of no difference, and the margin of equivalence around it."""
    axes.axvspan(-100 * margin, 100 * margin, color=style.GRID, linewidth=0)
    axes.axvline(0, color=style.MUTED, linewidth=1)


def _draw_interval(axes: Axes, one: Difference, place: int, look: Look, reach: float) -> None:
    """A value and its interval; an arrow at the frame where the interval goes on."""
    value, low, high = (100 * number for number in (one.value, one.low, one.high))
    filled = look.colour if one.finding in ("better", "worse") else "white"
    axes.errorbar(
        value, place, xerr=[[value - low], [high - value]], color=look.colour, marker=look.marker, markersize=4.5,
        capsize=2.5, linewidth=1.4, markerfacecolor=filled,
    )  # fmt: skip
    for end, arrow in ((low, "<"), (high, ">")):
        if abs(end) > reach:
            axes.plot(math.copysign(reach, end), place, arrow, color=look.colour, markersize=5, clip_on=False)


def _reach(ends: Iterable[float], values: Iterable[float]) -> float:
    """How far an axis goes, in points: to the farthest end, or to `MAX_REACH` times the largest value."""
    return 105 * min(max(ends), MAX_REACH * max([0.005, *map(abs, values)]))


@style.in_style
def trade_off_figure(points: Sequence[TradeOff], baseline: str, looks: Mapping[str, Look]) -> Figure:
    """Event tasks on one axis, all others on the other: a panel a group, a point an arm with its ellipse.

    Args:
        points: at least one.
        baseline: at the origin.
        looks: by arm.
    """
    groups = list(dict.fromkeys(one.group for one in points))
    figure = style.new_figure(4.2, min(style.WIDTH_IN, 2.2 + 4.0 * len(groups)))
    panels = figure.subplots(1, len(groups), squeeze=False, sharex=True, sharey=True)[0]
    for axes, group in zip(panels, groups, strict=True):
        axes.axhline(0, color=style.MUTED, linewidth=1)
        axes.axvline(0, color=style.MUTED, linewidth=1)
        axes.grid()
        axes.plot(0, 0, marker="o", color=style.INK, markersize=6)
        for one in points:
            if one.group == group:
                look = looks[one.arm]
                axes.plot(*(100 * one.outline).T, color=look.colour, linewidth=1.1, alpha=0.75)
                axes.fill(*(100 * one.outline).T, color=look.colour, alpha=0.05, linewidth=0)
                axes.plot(100 * one.events, 100 * one.others, marker=look.marker, color=look.colour, markersize=7)
        axes.set_title(group, fontweight="bold")
        axes.set_xlabel(f"event tasks: points, minus {baseline}", loc="right")
    panels[0].set_ylabel(f"other tasks: points, minus {baseline}", loc="top")
    for axis, place in (("x", 0), ("y", 1)):
        ends = [float(np.abs(one.outline[:, place]).max()) for one in points]
        reach = _reach(ends, [(one.events, one.others)[place] for one in points])
        panels[0].set(**{f"{axis}lim": (-reach, reach)})
    _legend(figure, list(dict.fromkeys([baseline, *(one.arm for one in points)])), looks, marked=True)
    return figure


@style.in_style
def study_curves_figure(curves: Mapping[tuple[str, str], Sequence[RunCurves]], looks: Mapping[str, Look]) -> Figure:
    """Loss and effective rank over the steps: a row a group; each arm's mean over its runs, and the runs faintly.

    Args:
        curves: of the runs of each cell, (group, arm); cells without any may be left out.
        looks: by arm.
    """
    groups = list(dict.fromkeys(group for group, _ in curves))
    figure = style.new_figure(0.7 + 2.3 * len(groups))
    panels = figure.subplots(len(groups), 2, squeeze=False)
    for row, group in zip(panels, groups, strict=True):
        for axes, name in zip(row, ("loss", "effective_rank"), strict=True):
            for (own, arm), runs in curves.items():
                if own == group and runs:
                    _draw_runs(axes, runs, name, looks[arm].colour)
            axes.set_title(f"{name.replace('_', ' ')}, {group}", fontweight="bold")
            axes.grid(axis="y")
            axes.margins(x=0.01)
    for axes in panels[-1]:
        axes.set_xlabel("optimiser steps", loc="right", labelpad=1)
    _legend(figure, list(dict.fromkeys(arm for _, arm in curves)), looks)
    return figure


def _draw_runs(axes: Axes, runs: Sequence[RunCurves], name: str, colour: str) -> None:
    values = [(np.array(run.step), np.array(vars(run)[name], dtype=float)) for run in runs]
    if len(runs) > 1:
        for step, value in values:
            axes.plot(step, value, color=colour, linewidth=0.5, alpha=0.3)
    # The mean at the steps that all runs have logged, as one of them may not be complete.
    steps = sorted(set.intersection(*(set(step.tolist()) for step, _ in values)))
    mean = np.mean([value[np.isin(step, steps)] for step, value in values], axis=0)
    axes.plot(steps, mean, color=colour, linewidth=1.4, marker="o" if len(steps) == 1 else None)


def _legend(figure: Figure, arms: Sequence[str], looks: Mapping[str, Look], marked: bool = False) -> None:
    """The arms' colours, and their markers, on top of the figure."""
    handles = [
        Line2D([], [], color=looks[arm].colour, marker=looks[arm].marker if marked else None, linewidth=2.0)
        for arm in arms
    ]
    labels = [style.shortened(arm, 30) for arm in arms]
    width = figure.get_size_inches()[0]
    columns = max(1, min(len(arms), int(15 * width) // (8 + max(map(len, labels)))))
    columns = -(-len(arms) // -(-len(arms) // columns))  # as many in each row
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, handlelength=1.4, borderaxespad=0.1)
