"""Figures of a run on crops of its data: masks over its schedule, reconstructions, and prediction errors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from melmask.masking import MaskingStrategy
from melmask.patches import unpatchify
from melmask.types import Mask
from melmask.viz import style
from melmask.viz.masks import NUM_DRAWS, MaskSampler, mask_words, random_share, range_words
from melmask.viz.spectrogram import (
    Spectrogram,
    label_axes,
    row_centres,
    show_frequency,
    show_input,
    show_log_mel,
    show_patches,
    show_visible,
)


@dataclass(frozen=True)
class Stage:
    """A moment in a run: its strategy at that moment, and the hint ratio, None if it takes no hints."""

    name: str
    strategy: MaskingStrategy
    hint_ratio: float | None


@style.in_style
def schedule_figure(
    crops: Sequence[Spectrogram],
    guide: Float[Tensor, "b n d"] | None,
    valid: Bool[Tensor, "b n"],
    *,
    stages: Sequence[Stage],
    strategy_name: str,
    mask_ratio: float,
    seed: int = 0,
) -> Figure:
    """A row for every crop: the input, a mask at each stage of the schedule, and how often its patches are masked.

    Args:
        crops: of equal size.
        guide: of the strategy.
        valid: False for padding.
        stages: moments in the run; how often patches are masked is shown for the last one.
        strategy_name: for titles.
        mask_ratio: share of patches that are masked.
        seed: of the masks.
    """
    figure = style.new_figure(1.32 * len(crops) + 0.1)
    panels = figure.subplots(len(crops), len(stages) + 2, squeeze=False)
    grid, last = crops[0].grid, stages[-1]
    for row, crop in enumerate(crops):
        own = None if guide is None else guide[row : row + 1]
        samplers = [MaskSampler(stage.strategy, grid, mask_ratio, own, valid[row : row + 1]) for stage in stages]
        show_input(panels[row, 0], crop, time=row == len(crops) - 1)
        for number, (stage, sampler) in enumerate(zip(stages, samplers, strict=True)):
            # With one seed at all stages, masks differ by the schedule alone; without hints, each stage is a new draw.
            masked = sampler.masked(seed + (number if stage.hint_ratio is None else 0), stage.hint_ratio or 0.0)
            show_visible(panels[row, 1 + number], crop, masked)
            words = f"{stage.name}: {mask_words(masked, stage.hint_ratio, strategy_name)}"
            panels[row, 1 + number].set_title(words if row == 0 else "")
        share = samplers[-1].share(seed, last.hint_ratio or 0.0, NUM_DRAWS)
        show_frequency(panels[row, -1], crop, share, random_share(grid, mask_ratio))
        panels[row, -1].set_title((f"{NUM_DRAWS} draws, {last.name}\n" if row == 0 else "") + range_words(share))
    return figure


@style.in_style
def reconstruction_figure(crops: Sequence[Spectrogram], mask: Mask, reconstruction: Float[Tensor, "b n p"]) -> Figure:
    """A row for every crop: the input, its visible patches, and its reconstruction.

    Args:
        crops: of equal size.
        mask: of the crops.
        reconstruction: their patches, the masked ones predicted.
    """
    figure = style.new_figure(1.5 * len(crops) + 0.2)
    panels = figure.subplots(len(crops), 3, squeeze=False)
    masked = mask.as_bool()
    pictures = unpatchify(reconstruction, crops[0].grid)
    for row, crop in enumerate(crops):
        show_input(panels[row, 0], crop, time=row == len(crops) - 1)
        show_visible(panels[row, 1], crop, masked[row])
        show_log_mel(panels[row, 2], pictures[row], crop.spec, crop.limits)
        panels[row, 2].set(xticks=[], yticks=[])
    num_visible, num_masked = mask.visible.shape[1], mask.masked.shape[1]
    panels[0, 1].set_title(f"encoder input: {num_visible} visible, {num_masked} masked")
    panels[0, 2].set_title("reconstruction; visible patches unchanged")
    return figure


@style.in_style
def error_figure(
    mean_error: Float[Tensor, " n"],
    crops: Sequence[Spectrogram],
    mask: Mask,
    error: Float[Tensor, "b m"],
    loss_label: str,
) -> Figure:
    """The errors of predictions: the mean at each patch of the grid, and those of single crops beside their input.

    Args:
        mean_error: at each patch of the grid; NaN where there is none.
        crops: of equal size.
        mask: of the crops.
        error: of their masked patches, in the order of ``mask.masked``.
        loss_label: of the framework: what the error is.
    """
    figure = style.new_figure(2.0 + 1.4 * len(crops))
    rows = figure.add_gridspec(1 + len(crops), 3, height_ratios=[1.25] + [1.0] * len(crops))
    average = figure.add_subplot(rows[0, :2])
    image = show_patches(average, crops[0], mean_error.numpy(), cmap=style.ERROR)
    label_axes(average, crops[0].spec)
    average.set_title(f"{loss_label}, on average", fontweight="bold", y=1.0)
    style.scale_above(average, image)
    _show_by_band(figure.add_subplot(rows[0, 2]), mean_error, crops[0])

    low, high = (float(end) for end in np.percentile(error.numpy(), (1, 99)))
    masked = mask.as_bool()
    for row, crop in enumerate(crops):
        left, middle, right = (figure.add_subplot(rows[1 + row, column]) for column in range(3))
        show_input(left, crop, time=row == len(crops) - 1)
        show_visible(middle, crop, masked[row])
        values = torch.full((crop.grid.num_patches,), torch.nan).scatter(0, mask.masked[row], error[row])
        image = show_patches(right, crop, values.numpy(), cmap=style.error_colours(), vmin=low, vmax=high)
        right.set(xticks=[], yticks=[])
        middle.set_title("encoder input" if row == 0 else "")
        right.set_title("error of masked patches" if row == 0 else "", y=1.0)
        if row == 0:
            style.scale_above(right, image)
    return figure


def _show_by_band(axes: Axes, mean_error: Float[Tensor, " n"], crop: Spectrogram) -> None:
    """The mean error of each row of patches."""
    grid, (freq, _) = crop.grid, crop.patch_shape
    values = np.nanmean(mean_error.reshape(grid.freq, grid.time).numpy(), axis=1)
    axes.plot(values, row_centres(grid.freq, crop.patch_shape), "o-", color=style.INK, markersize=4, linewidth=1.2)
    axes.set_ylim(-0.5, grid.freq * freq - 0.5)
    axes.margins(x=0.15)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    label_axes(axes, crop.spec, time=False, frequency_label=False)
    axes.xaxis.set_major_locator(style.few_ticks())
    axes.set_title("by frequency band", fontweight="bold")
