"""Charts: scores with their intervals, curves over training steps, and masking by frequency band."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from melmask.logmel import LogMelSpec
from melmask.study.runs import Run
from melmask.study.table import Column, ScoreCurve, Table
from melmask.viz import style
from melmask.viz.masks import random_share
from melmask.viz.spectrogram import label_axes, row_centres

SCHEDULES = {"guidance", "hint_ratio", "learning_rate"}  # exact values, which are not smoothed
CURVES = {
    "effective_rank": "effective rank",
    "feature_deviation": "feature deviation",
    "guidance": "guidance λ; dashed: hints h",
    "learning_rate": "learning rate",
    "samples_per_s": "samples per second",
}


@style.in_style
def results_figure(table: Table, colours: Mapping[str, str]) -> Figure:
    """Bar charts of an evaluation table: a panel for every column, a bar with its 95 % interval for every row.

    Args:
        table: runs and baselines against tasks and probes.
        colours: of the runs, by name; baselines are grey.
    """
    columns, rows = table.columns, table.rows
    num_across = len(columns) if len(columns) < 4 else 2 if len(columns) == 4 else 3
    num_down = math.ceil(len(columns) / num_across)
    figure = style.new_figure(num_down * (0.62 + 0.25 * len(rows)))
    panels = figure.subplots(num_down, num_across, squeeze=False, sharey=True)
    for axes in panels.flat[len(columns) :]:
        axes.set_axis_off()
    for axes, column in zip(panels.flat, columns, strict=False):
        scored = [(place, row, row.cells[column]) for place, row in enumerate(rows) if column in row.cells]
        for place, row, cell in scored:
            score, low, high = 100 * cell.score, 100 * cell.low, 100 * cell.high
            colour = colours[row.run] if row.is_run else style.BASELINE_COLOUR
            axes.barh(place, score, height=0.66, color=colour)
            axes.errorbar(score, place, xerr=[[score - low], [high - score]], color=style.INK, linewidth=1, capsize=2.5)
            axes.annotate(f"{score:.1f}", (high, place), (4, 0), textcoords="offset points", va="center", fontsize=7.5)
        axes.set_title(column.title, fontweight="bold")
        axes.set_xlabel(f"{column.metric}, %", loc="right")
        axes.set_xlim(0, min(112, 1.18 * max(100 * cell.high for _, _, cell in scored)))
        axes.set_yticks(range(len(rows)), [style.shortened(row.label, 40) for row in rows])
        axes.tick_params(axis="y", length=0, labelcolor=style.INK)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
    panels[0, 0].invert_yaxis()
    return figure


@style.in_style
def scores_figure(curves: Mapping[Column, Sequence[ScoreCurve]], colours: Mapping[str, str]) -> Figure:
    """Scores over the steps of the runs: a panel for every column, a line with its 95 % intervals for every run.

    Args:
        curves: of `melmask.study.table.score_curves`, at least one.
        colours: of the runs, by name.
    """
    num_across = min(3, len(curves))
    num_down = math.ceil(len(curves) / num_across)
    figure = style.new_figure(0.3 + 2.2 * num_down)
    panels = figure.subplots(num_down, num_across, squeeze=False).flat
    for axes in panels[len(curves) :]:
        axes.set_axis_off()
    for axes, (column, of_runs) in zip(panels, curves.items(), strict=False):
        for curve in of_runs:
            steps, results = list(curve.results), list(curve.results.values())
            score, low, high = (100 * np.array([getattr(one, k) for one in results]) for k in ("score", "low", "high"))
            axes.plot(steps, score, "o-", color=colours[curve.run], markersize=3)
            axes.fill_between(steps, low, high, color=colours[curve.run], alpha=0.15, linewidth=0)
        axes.set_title(column.title, fontweight="bold")
        axes.set_ylabel(f"{column.metric}, %")
        axes.set_xlabel("optimiser steps", loc="right", labelpad=1)
        axes.grid(axis="y")
    labels = {curve.label: colours[curve.run] for of_runs in curves.values() for curve in of_runs}
    _legend(figure, list(labels), labels)
    return figure


@dataclass(frozen=True)
class Curve:
    """One line of a panel."""

    run: Run
    step: np.ndarray
    value: np.ndarray
    is_schedule: bool
    dashed: bool


@style.in_style
def curves_figure(runs: Sequence[Run], colours: Mapping[str, str]) -> Figure:
    """Loss, monitors of the features, guidance, learning rate and speed over the steps of the runs.

    Losses of different frameworks are not comparable and have a panel each.
    """
    panels: list[tuple[str, list[Curve]]] = []
    for framework in dict.fromkeys(run.recipe.framework for run in runs):
        of_framework = [run for run in runs if run.recipe.framework == framework]
        panels.append((f"loss, {framework}", _curves(of_framework, "loss")))
    for name, title in CURVES.items():
        extra = _curves(runs, "hint_ratio", dashed=True) if name == "guidance" else []
        panels.append((title, _curves(runs, name) + extra))
    for name in dict.fromkeys(name for run in runs for line in run.log for name in line.get("measured", {})):
        panels.append((name, _curves(runs, name)))
    panels = [(title, curves) for title, curves in panels if curves]
    num_across = 4 if len(panels) > 6 else 3
    num_down = math.ceil(len(panels) / num_across)
    figure = style.new_figure(0.3 + 1.75 * num_down)
    axes_list = figure.subplots(num_down, num_across, squeeze=False).flat
    for axes in axes_list[len(panels) :]:
        axes.set_axis_off()
    for axes, (title, curves) in zip(axes_list, panels, strict=False):
        for curve in curves:
            _draw_curve(axes, curve, colours[curve.run.name])
        axes.set_title(title, fontweight="bold")
        axes.grid(axis="y")
        axes.margins(x=0.01)
        if title == CURVES["samples_per_s"]:
            axes.set_ylim(bottom=0)
    for axes in axes_list[max(0, len(panels) - num_across) : len(panels)]:
        axes.set_xlabel("optimiser steps", loc="right", labelpad=1)
    _legend(figure, [run.name for run in runs if run.log], colours)
    return figure


def _curves(runs: Sequence[Run], name: str, dashed: bool = False) -> list[Curve]:
    """The logged values of those runs that have any."""
    curves = []
    for run in runs:
        every = [{**line.get("measured", {}), **line} for line in run.log]
        lines = [line for line in every if line.get(name) is not None]
        if lines:
            step, value = (np.array([line[key] for line in lines], dtype=float) for key in ("step", name))
            curves.append(Curve(run, step, value, name in SCHEDULES, dashed))
    return curves


def _draw_curve(axes: Axes, curve: Curve, colour: str) -> None:
    """A line; a noisy one faint, with its moving average over it."""
    width = len(curve.value) // 25
    if curve.dashed:
        axes.plot(curve.step, curve.value, color=colour, linewidth=1, linestyle=(0, (4, 3)), alpha=0.8)
    elif width < 2 or curve.is_schedule:
        marker = "o" if len(curve.value) == 1 else None
        axes.plot(curve.step, curve.value, color=colour, marker=marker, markersize=3)
    else:
        axes.plot(curve.step, curve.value, color=colour, linewidth=0.7, alpha=0.3)
        axes.plot(curve.step, moving_average(curve.value, width), color=colour)


def moving_average(values: np.ndarray, width: int) -> np.ndarray:
    """The mean of up to ``width`` values on either side of each, fewer towards the ends.

    >>> moving_average(np.array([0.0, 3.0, 6.0]), 1).tolist()
    [1.5, 3.0, 4.5]
    """
    total = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(np.arange(len(values)) - width, 0)
    last = np.minimum(np.arange(len(values)) + width + 1, len(values))
    return (total[last] - total[first]) / (last - first)


@style.in_style
def band_figure(
    frequency: Mapping[str, Tensor], runs: Mapping[str, Run], spec: LogMelSpec, colours: Mapping[str, str]
) -> Figure:
    """How much more often than under random masking each frequency band is masked, a line for every run.

    Args:
        frequency: by name of the run, the share of masks in which each row of patches is masked, lowest band first.
        runs: the runs, by name.
        spec: the front end.
        colours: of the runs.
    """
    figure = style.new_figure(2.3, width_in=6.2)
    axes = figure.subplots()
    axes.axvline(0, color=style.MUTED, linewidth=1)
    for name, share in frequency.items():
        recipe = runs[name].recipe
        points = 100 * (share.numpy() - random_share(recipe.grid(spec.num_mels), recipe.mask_ratio))
        bands = row_centres(len(share), recipe.patch_shape)
        axes.plot(points, bands, "o-", color=colours[name], markersize=4.5, label=name)
    label_axes(axes, spec)
    reach = max(5.0, 1.1 * float(np.abs(axes.get_xlim()).max()))
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-0.5, spec.num_mels - 0.5)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_xlabel("masked more often than at random, in percentage points", loc="right")
    _legend(figure, list(frequency), colours)
    return figure


def _legend(figure: Figure, names: Sequence[str], colours: Mapping[str, str]) -> None:
    """The runs' colours, on top of the figure."""
    handles = [Line2D([], [], color=colours[name], linewidth=2.5) for name in names]
    labels = [style.shortened(name, 48) for name in names]
    columns = max(1, min(len(names), 150 // (8 + max(map(len, labels), default=1))))
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, handlelength=1.4, borderaxespad=0.1)
