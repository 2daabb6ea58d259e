"""What the arms of a study mask of the same sounds, at the end of their schedules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure

from melmask.logmel import LogMelSpec
from melmask.nn.vit import Encoder
from melmask.study.study import Cell
from melmask.train.masker import guide_of
from melmask.viz import style
from melmask.viz.masks import NUM_DRAWS, MaskSampler, fitted, random_share, read_log_mel, untrained_encoder
from melmask.viz.spectrogram import Spectrogram, label_axes, show_frequency, show_log_mel, show_visible


@dataclass(frozen=True)
class Sound:
    """A recording that is shown, with the name that it is shown by."""

    path: Path
    name: str


@torch.no_grad()
@style.in_style
def arms_figure(
    sounds: Sequence[Sound],
    cells: Sequence[Cell],
    encoders: Mapping[str, Encoder],
    spec: LogMelSpec | None = None,
    seed: int = 0,
) -> Figure:
    """The sounds, and under each of them a mask of every arm, and how often each patch is masked.

    Args:
        sounds: a pair of columns each; the first seconds that a crop of the recipes lasts.
        cells: a row each, of one patch shape, mask ratio and crop length.
        encoders: by arm, those whose features or attention guide it; an untrained one for those without.
        spec: the front end.
        seed: of the masks.

    Raises:
        ValueError: a sound cannot be read.
    """
    spec, recipe = spec or LogMelSpec(), cells[0].recipe
    shown = [_spectrogram(sound, spec, recipe.crop_frames, recipe.patch_shape) for sound in sounds]
    figure = style.new_figure(1.35 + 0.72 * len(cells))
    rows = figure.add_gridspec(1 + len(cells), 2 * len(shown), height_ratios=[1.35] + [1.0] * len(cells))
    for column, spectrogram in enumerate(shown):
        top = figure.add_subplot(rows[0, 2 * column])
        show_log_mel(top, spectrogram.log_mel, spec, spectrogram.limits)
        label_axes(top, spec, time=False, frequency_label=False)
        if column:
            top.set_yticks([])
        top.set_title(spectrogram.title, fontweight="bold")
    for row, cell in enumerate(cells, start=1):
        for column, spectrogram in enumerate(shown):
            sampler, hint_ratio = _sampler(cell, spectrogram, encoders.get(cell.arm), seed)
            left, right = (figure.add_subplot(rows[row, 2 * column + side]) for side in (0, 1))
            show_visible(left, spectrogram, sampler.masked(seed, hint_ratio))
            share = sampler.share(seed, hint_ratio, NUM_DRAWS)
            show_frequency(right, spectrogram, share, random_share(sampler.grid, sampler.mask_ratio))
            if not column:
                label = style.shortened(cell.arm, 30)
                left.set_ylabel(label, rotation=0, ha="right", va="center", color=style.INK, fontweight="bold")
            if row == 1:
                left.set_title("a mask")
                right.set_title(f"how often, {NUM_DRAWS} draws")
    return figure


def _spectrogram(sound: Sound, spec: LogMelSpec, num_frames: int, patch_shape: tuple[int, int]) -> Spectrogram:
    """The first frames of a recording, normalised by their own statistics."""
    log_mel = read_log_mel(sound.path, spec, 0.0, num_frames / spec.frames_per_s, num_frames)[:, :num_frames]
    log_mel = (log_mel - log_mel.mean()) / log_mel.std().clamp(min=1e-6)
    return Spectrogram(log_mel, spec, patch_shape, style.shortened(sound.name))


def _sampler(cell: Cell, spectrogram: Spectrogram, encoder: Encoder | None, seed: int) -> tuple[MaskSampler, float]:
    """What draws the masks of a cell, and the hint ratio at the end of its schedule."""
    recipe, grid = cell.recipe, spectrogram.grid
    strategy = fitted(recipe.make_strategy(), spectrogram.patches, grid)
    guided_by = encoder or untrained_encoder(recipe.patch_shape, seed)
    guide = guide_of(strategy.needs, {strategy.needs.encoder: guided_by}, spectrogram.patches, grid)
    return MaskSampler(strategy, grid, recipe.mask_ratio, guide), recipe.hints(grid)(1.0)
