"""Pictures of a run: the masks it draws over its schedule, its reconstructions, and where its predictions err."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from melmask.logmel import LogMelSpec
from melmask.masking import MaskingStrategy
from melmask.masking.base import num_masked_of
from melmask.patches import unpatchify
from melmask.types import Mask, PatchGrid
from melmask.viz import style
from melmask.viz.masks import NUM_DRAWS, mask_words, masked_share, range_words, show_frequency, show_mask


@dataclass(frozen=True)
class Stage:
    """A moment in a run: the strategy as it is then, and its hint ratio, None if it takes no hints."""

    name: str
    strategy: MaskingStrategy
    hint_ratio: float | None


@style.in_style
def schedule_figure(
    log_mel: Float[Tensor, "b mel frame"],
    names: Sequence[str],
    strategy_name: str,
    guide: Float[Tensor, "b n d"] | None,
    valid: Bool[Tensor, "b n"],
    grid: PatchGrid,
    patch_shape: tuple[int, int],
    spec: LogMelSpec,
    *,
    mask_ratio: float,
    stages: Sequence[Stage],
    seed: int = 0,
) -> Figure:
    """A row for every crop: the input, its mask at each stage of the schedule, and how often its patches are masked.

    Args:
        log_mel: crops.
        names: their recordings.
        strategy_name: what masks them.
        guide: what the strategy looks at.
        valid: False for patches of padding.
        grid: the crops' patches.
        patch_shape: (freq, time) of a patch.
        spec: the front end.
        mask_ratio: share of patches that are masked.
        stages: moments in the run; the last one's frequencies are drawn.
        seed: of the masks.
    """
    figure = style.new_figure(1.32 * len(log_mel) + 0.1)
    panels = figure.subplots(len(log_mel), len(stages) + 2, squeeze=False)
    by_chance = num_masked_of(grid.num_patches, mask_ratio) / grid.num_patches
    for row, (crop, name) in enumerate(zip(log_mel, names, strict=True)):
        limits = style.colour_limits(crop)
        own, sound = None if guide is None else guide[row : row + 1], valid[row : row + 1]
        _show_input(panels[row, 0], crop, spec, limits, name, time=row == len(log_mel) - 1)
        for number, stage in enumerate(stages):
            # The same chance at all stages shows what the schedule does; without one, chance is all there is to show.
            rng = torch.Generator().manual_seed(seed + (number if stage.hint_ratio is None else 0))
            share = masked_share(stage.strategy, grid, mask_ratio, rng, own, stage.hint_ratio or 0.0, valid=sound)
            axes, masked = panels[row, 1 + number], share > 0
            show_mask(axes, crop, style.on_grid(masked, grid), patch_shape, spec, limits)
            words = mask_words(masked, stage.hint_ratio, strategy_name)
            axes.set_title(f"{stage.name}: {words}" if row == 0 else "")
        last, rng = stages[-1], torch.Generator().manual_seed(seed)
        share = masked_share(last.strategy, grid, mask_ratio, rng, own, last.hint_ratio or 0.0, NUM_DRAWS, sound)
        show_frequency(panels[row, -1], style.on_grid(share, grid), by_chance, patch_shape, spec)
        panels[row, -1].set_title((f"{NUM_DRAWS} draws, {last.name}\n" if row == 0 else "") + range_words(share))
    return figure


@style.in_style
def reconstruction_figure(
    log_mel: Float[Tensor, "b mel frame"],
    names: Sequence[str],
    mask: Mask,
    rebuilt: Float[Tensor, "b n p"],
    grid: PatchGrid,
    patch_shape: tuple[int, int],
    spec: LogMelSpec,
) -> Figure:
    """A row for every crop: the input, the patches the encoder saw, and these with the predicted ones."""
    figure = style.new_figure(1.5 * len(log_mel) + 0.2)
    panels = figure.subplots(len(log_mel), 3, squeeze=False)
    pictures = unpatchify(rebuilt, grid)
    for row, (crop, name) in enumerate(zip(log_mel, names, strict=True)):
        limits, last = style.colour_limits(crop), row == len(log_mel) - 1
        _show_input(panels[row, 0], crop, spec, limits, name, time=last)
        show_mask(panels[row, 1], crop, _masked_cells(mask, row, grid), patch_shape, spec, limits)
        style.show_log_mel(panels[row, 2], pictures[row], spec, limits)
        panels[row, 2].set(xticks=[], yticks=[])
    num_visible, num_masked = mask.visible.shape[1], mask.masked.shape[1]
    panels[0, 1].set_title(f"what the encoder sees: {num_visible} visible, {num_masked} masked")
    panels[0, 2].set_title("reconstruction, visible patches as they are")
    return figure


@style.in_style
def error_figure(
    mean_error: Float[Tensor, " n"],
    log_mel: Float[Tensor, "b mel frame"],
    names: Sequence[str],
    mask: Mask,
    error: Float[Tensor, "b m"],
    grid: PatchGrid,
    patch_shape: tuple[int, int],
    spec: LogMelSpec,
    loss_label: str,
) -> Figure:
    """Where predictions err: on average over the grid, and in single crops, beside their input.

    Args:
        mean_error: average error at each place of the grid; NaN where nothing was counted.
        log_mel: crops.
        names: their recordings.
        mask: of the crops.
        error: of their masked patches, in the mask's order.
        grid: the patches' layout.
        patch_shape: (freq, time) of a patch.
        spec: the front end.
        loss_label: what the error is.
    """
    figure = style.new_figure(2.0 + 1.4 * len(log_mel))
    rows = figure.add_gridspec(1 + len(log_mel), 3, height_ratios=[1.25] + [1.0] * len(log_mel))
    average = style.on_grid(mean_error, grid)
    axes = figure.add_subplot(rows[0, :2])
    image = style.show_patches(axes, average, patch_shape, spec, cmap=style.ERROR)
    style.label_axes(axes, spec)
    axes.set_title(f"{loss_label}, on average", fontweight="bold", y=1.0)
    style.scale_above(axes, image)
    _by_band(figure.add_subplot(rows[0, 2]), average, patch_shape, spec)

    low, high = (float(end) for end in np.percentile(error.numpy(), (1, 99)))
    for row, (crop, name) in enumerate(zip(log_mel, names, strict=True), start=1):
        limits, last = style.colour_limits(crop), row == len(log_mel)
        left, middle, right = (figure.add_subplot(rows[row, column]) for column in range(3))
        _show_input(left, crop, spec, limits, name, time=last)
        show_mask(middle, crop, _masked_cells(mask, row - 1, grid), patch_shape, spec, limits)
        cells = torch.full((grid.num_patches,), torch.nan).scatter(0, mask.masked[row - 1], error[row - 1])
        colours = style.error_colours()
        image = style.show_patches(
            right, style.on_grid(cells, grid), patch_shape, spec, cmap=colours, vmin=low, vmax=high
        )
        right.set(xticks=[], yticks=[])
        middle.set_title("what the encoder sees" if row == 1 else "")
        right.set_title("error of masked patches" if row == 1 else "", y=1.0)
        if row == 1:
            style.scale_above(right, image)
    return figure


def _by_band(
    axes: Axes, average: Float[np.ndarray, "freq time"], patch_shape: tuple[int, int], spec: LogMelSpec
) -> None:
    """The average error of each row of patches."""
    values = np.nanmean(average, axis=1)
    centres = (np.arange(len(values)) + 0.5) * patch_shape[0] - 0.5
    axes.plot(values, centres, "o-", color=style.INK, markersize=4, linewidth=1.2)
    axes.set_ylim(-0.5, len(values) * patch_shape[0] - 0.5)
    axes.margins(x=0.15)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    style.label_axes(axes, spec, time=False)
    axes.set_ylabel("")
    axes.xaxis.set_major_locator(style.few_ticks())
    axes.set_title("by frequency band", fontweight="bold")


def _masked_cells(mask: Mask, row: int, grid: PatchGrid) -> np.ndarray:
    flat = torch.zeros(grid.num_patches, dtype=torch.bool).index_fill(0, mask.masked[row], True)
    return style.on_grid(flat, grid)


def _show_input(
    axes: Axes, crop: Tensor, spec: LogMelSpec, limits: tuple[float, float], name: str, *, time: bool
) -> None:
    style.show_log_mel(axes, crop, spec, limits)
    style.label_axes(axes, spec, time=time)
    axes.set_ylabel("")
    axes.set_title(style.shortened(name), fontweight="bold")
