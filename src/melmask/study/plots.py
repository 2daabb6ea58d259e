"""Pictures of spectrograms, masks and predictions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from melmask.logmel import LogMelSpec
from melmask.masking import MaskingStrategy, draw, make_strategy
from melmask.masking.base import num_visible_of
from melmask.masking.laws import guidance
from melmask.patches import grid_of, patchify
from melmask.study import style
from melmask.types import PatchGrid
from melmask.vit import SIZES, Encoder

NUM_DRAWS = 200
LOOKS_AT = {"nothing": "looks at nothing", "patches": "looks at the patches", "features": "looks at features"}


@style.in_style
def mask_figure(
    log_mel: Float[Tensor, "mel frame"],
    spec: LogMelSpec,
    patch_shape: tuple[int, int],
    *,
    strategies: Sequence[str] = ("random", "ibm", "sgim", "dwm"),
    hint_ratios: Sequence[float] = (1.0, 0.5, 0.0),
    mask_ratio: float = 0.7,
    seed: int = 0,
    features: Float[Tensor, "n d"] | None = None,
    features_from: str = "a given encoder",
    title: str = "",
) -> Figure:
    """A spectrogram, and under it what each strategy masks of it: single masks, and how often each patch is masked.

    Strategies that look at something are drawn at every hint ratio, the others, which take no hints, as often anew.

    Args:
        log_mel: a normalised spectrogram; a rest that fills no patch is shown on top only.
        spec: its front end, for the axes.
        patch_shape: (freq, time) of a patch, in mel bands and frames.
        strategies: a row each.
        hint_ratios: a column each; 1 is plain chance, 0 the strategy's choice alone.
        mask_ratio: share of patches that are masked.
        seed: of the masks.
        features: an encoder's features of all patches, for strategies that look at them; None for those of an
            encoder that was never trained, which the picture then says.
        features_from: whose features they are, for the picture.
        title: what is shown.

    Raises:
        ValueError: an unknown strategy, a setting out of range, or a spectrogram smaller than a patch.
    """
    grid = grid_of(log_mel, patch_shape)
    patches = patchify(log_mel[None], patch_shape)
    if features is None:
        features, features_from = untrained_features(patches, grid, patch_shape, seed), "an untrained encoder"
    guides = {"nothing": None, "patches": patches, "features": features[None]}
    num_columns = max(1, len(hint_ratios)) + 1

    figure = style.new_figure(2.35 + 1.23 * len(strategies))
    rows = figure.add_gridspec(1 + len(strategies), num_columns, height_ratios=[1.45] + [1.0] * len(strategies))
    limits = style.colour_limits(log_mel)
    top = figure.add_subplot(rows[0, :-1])
    style.show_log_mel(top, log_mel, spec, limits)
    style.label_axes(top, spec)
    top.set_title(title or "log-mel spectrogram", fontsize=10, fontweight="bold")
    _key(figure.add_subplot(rows[0, -1]), grid, mask_ratio, seed)

    for row, name in enumerate(strategies, start=1):
        strategy = make_strategy(name)
        guide = guides[strategy.needs]
        note = f"features of {features_from}" if strategy.needs == "features" else LOOKS_AT[strategy.needs]
        hints = hint_ratios if strategy.needs != "nothing" else [None] * max(1, len(hint_ratios))
        for column, hint_ratio in enumerate(hints):
            rng = torch.Generator().manual_seed(seed + column)
            masked = masked_share(strategy, guide, grid, mask_ratio, hint_ratio or 0.0, 1, rng)
            axes = figure.add_subplot(rows[row, column])
            show_mask(axes, log_mel, masked > 0, patch_shape, spec, limits)
            _mask_title(axes, name, grid, masked, hint_ratio, f"draw {column + 1}")
            if column == 0:
                axes.set_ylabel(f"{name}\n{note.replace(' of ', ' of' + chr(10))}", labelpad=4)
        rng = torch.Generator().manual_seed(seed)
        share = masked_share(strategy, guide, grid, mask_ratio, 0.0, NUM_DRAWS, rng)
        axes = figure.add_subplot(rows[row, -1])
        show_frequency(axes, share, mask_ratio, patch_shape, spec)
        axes.set_title(f"{name}: how often masked", fontweight="bold")
    return figure


def untrained_features(
    patches: Float[Tensor, "1 n p"], grid: PatchGrid, patch_shape: tuple[int, int], seed: int
) -> Float[Tensor, "n d"]:
    """Features of the smallest published encoder size with fresh weights."""
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(seed)
        return Encoder(SIZES["tiny"], patch_shape)(patches, grid)[0, 1:]
