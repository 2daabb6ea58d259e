"""The picture behind `melmask mask`: one recording, and what each strategy would mask of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.patches import Rectangle
from torch import Tensor

from melmask.audio import read_audio
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.logmel import LogMel, LogMelSpec
from melmask.masking import MaskingStrategy, draw, make_strategy
from melmask.masking.base import Seen, num_masked_of
from melmask.masking.laws import guidance
from melmask.nn.vit import SIZES, Encoder
from melmask.patches import grid_of, patchify, whole_patches
from melmask.study.runs import Run, random_masks, read_runs
from melmask.train.masker import guide_of
from melmask.types import PatchGrid
from melmask.viz import style
from melmask.viz.style import png_of

PAPER_STRATEGIES = ("random", "ibm", "sgim", "dwm")
NUM_DRAWS = 200
LOOKS_AT = {  # {}: whose encoder
    "nothing": "looks at nothing",
    "patches": "looks at the values inside each patch",
    "features": "looks at the features of {}",
    "attention": "looks at the attention of the class token in {}",
    "loss": "looks at the losses of the model of {}",
}
NUM_MASKS = 16


@dataclass(frozen=True)
class MaskExamples:
    """Which masks are plotted, on which part of a recording.

    Args:
        strategies: names in `melmask.masking.STRATEGIES`, or package.module:Class.
        mask_ratio: share of patches that are masked.
        start_s: start of the part that is shown, in seconds.
        length_s: its length in seconds, at most.
        seed: of the masks.
    """

    strategies: tuple[str, ...] = PAPER_STRATEGIES
    mask_ratio: float = 0.7
    start_s: float = 0.0
    length_s: float = 6.08
    seed: int = 0


DEFAULT_EXAMPLES = MaskExamples()


def save_mask_figure(file: Path, out: Path, run: Path | None = None, examples: MaskExamples = DEFAULT_EXAMPLES) -> None:
    """Plot a recording's masks to a PNG.

    Args:
        file: the recording.
        out: the PNG.
        run: its front end, encoder and, for strategies that read losses, model are used; without one the clip is
            normalised by its own statistics and the encoder is untrained, which the figure says.
        examples: what to plot.

    Raises:
        ValueError: the file cannot be read, the part is shorter than a patch, a setting is out of range, or a
            strategy reads losses and there is no run with a checkpoint.
    """
    encoder = PretrainedEncoder.load(run) if run else None
    spec = encoder.spec if encoder else LogMelSpec()
    patch_shape = encoder.encoder.patch_shape if encoder else (16, 16)
    waveform = torch.from_numpy(read_audio(file, spec.sample_rate_hz))
    first, length = (round(at_s * spec.sample_rate_hz) for at_s in (examples.start_s, examples.length_s))
    part = waveform[first : first + length]
    if len(part) <= spec.n_fft:
        total_s = len(waveform) / spec.sample_rate_hz
        raise ValueError(f"{file} lasts {total_s:.2f} s: nothing to show from {examples.start_s} s on")
    log_mel = LogMel(spec)(part[None])[0]
    if encoder:
        log_mel = (log_mel - encoder.front_end.mean) / encoder.front_end.std
    else:
        log_mel = (log_mel - log_mel.mean()) / log_mel.std().clamp(min=1e-6)
    looks_at_loss = any(make_strategy(name).needs.guide == "loss" for name in examples.strategies)
    figure = mask_figure(
        log_mel,
        spec,
        patch_shape,
        strategies=examples.strategies,
        mask_ratio=examples.mask_ratio,
        seed=examples.seed,
        encoder=encoder.encoder.cpu() if encoder else None,
        encoder_name=run.name if run else "",
        losses=losses_of(read_runs([run])[0], log_mel, examples.seed) if run and looks_at_loss else None,
        title=f"Log-mel spectrogram of {file.name}",
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(png_of(figure))


@torch.no_grad()
def losses_of(run: Run, log_mel: Float[Tensor, "mel frame"], seed: int) -> Float[Tensor, " n"]:
    """The error of a run's model at every patch: the mean over `NUM_MASKS` random masks of those that hide it.

    Raises:
        ValueError: the run has no checkpoint.
    """
    if run.model is None:
        raise ValueError(f"{run.folder} has not saved a checkpoint, whose model's losses could be looked at")
    patch_shape = run.recipe.patch_shape
    grid, patches = grid_of(log_mel, patch_shape), patchify(whole_patches(log_mel[None], patch_shape), patch_shape)
    mask = random_masks(run, grid, NUM_MASKS, seed)
    error = run.model(patches.expand(NUM_MASKS, -1, -1), grid, mask).per_patch
    total = torch.zeros(grid.num_patches).index_add_(0, mask.masked.flatten(), error.flatten())
    return total / mask.masked.flatten().bincount(minlength=grid.num_patches).clamp(min=1)


@style.in_style
def mask_figure(
    log_mel: Float[Tensor, "mel frame"],
    spec: LogMelSpec,
    patch_shape: tuple[int, int],
    *,
    strategies: Sequence[str] = PAPER_STRATEGIES,
    hint_ratios: Sequence[float] = (1.0, 0.5, 0.0),
    mask_ratio: float = 0.7,
    seed: int = 0,
    encoder: Encoder | None = None,
    encoder_name: str = "the encoder",
    losses: Float[Tensor, " n"] | None = None,
    title: str = "Log-mel spectrogram",
) -> Figure:
    """A spectrogram, and under it what each strategy masks of it: single masks, and how often each patch is masked.

    Strategies that look at something are drawn at every hint ratio, from the same choice M0; the others as often anew,
    without hints.

    Args:
        log_mel: a normalised spectrogram; a rest that fills no patch is shown on top only.
        spec: its front end, for the axes.
        patch_shape: (freq, time) of a patch, in mel bands and frames.
        strategies: a row each.
        hint_ratios: a column each; 1 is plain chance, 0 the strategy's choice alone.
        mask_ratio: share of patches that are masked.
        seed: of the masks.
        encoder: for strategies that look at its features or attention; None for one that was never trained, which the
            picture then says.
        encoder_name: whose encoder it is, for the picture.
        losses: a trained model's error at every patch, for strategies that look at it.
        title: what is shown.

    Raises:
        ValueError: an unknown strategy, one that needs losses where there are none, a setting out of range, or a
            spectrogram smaller than a patch.
    """
    grid, patches = grid_of(log_mel, patch_shape), patchify(whole_patches(log_mel[None], patch_shape), patch_shape)
    if encoder is None:
        encoder, encoder_name = untrained_encoder(patch_shape, seed), "an untrained encoder"
    hint_ratios = tuple(hint_ratios) or (0.0,)
    num_masks = len(hint_ratios)

    figure = style.new_figure(2.15 + 1.43 * len(strategies))
    heights = [1.5] + [0.24, 1.0] * len(strategies)
    rows = figure.add_gridspec(len(heights), num_masks + 1, height_ratios=heights)
    limits = style.colour_limits(log_mel)
    top = figure.add_subplot(rows[0, :-1])
    style.show_log_mel(top, log_mel, spec, limits)
    style.label_axes(top, spec)
    top.set_title(title, fontsize=11, fontweight="bold", pad=8)
    by_chance = num_masked_of(grid.num_patches, mask_ratio) / grid.num_patches
    _key(figure, rows[0, -1], by_chance)

    for i, name in enumerate(strategies):
        row = 2 * i + 2
        as_it_comes = make_strategy(name)
        strategy = learnt(as_it_comes, patches, grid)
        note = LOOKS_AT[strategy.needs.guide].format(encoder_name)
        if strategy is not as_it_comes:
            note = f"{note}; knows how much each band varies in this recording"
        style.head(figure.add_subplot(rows[row - 1, :]), name, note)
        guide, informed = _guide(strategy, patches, grid, encoder, losses), strategy.needs.guide != "nothing"
        for column in range(num_masks):
            rng = torch.Generator().manual_seed(seed + (0 if informed else column))
            hint_ratio = hint_ratios[column] if informed else None
            masked = masked_share(strategy, grid, mask_ratio, rng, guide, hint_ratio or 0.0) > 0
            axes = figure.add_subplot(rows[row, column])
            show_mask(axes, log_mel, style.on_grid(masked, grid), patch_shape, spec, limits)
            axes.set_title(f"{name}, {mask_words(masked, hint_ratio, f'draw {column + 1}')}")
        share = masked_share(
            strategy, grid, mask_ratio, torch.Generator().manual_seed(seed), guide, num_draws=NUM_DRAWS
        )
        axes = figure.add_subplot(rows[row, num_masks])
        show_frequency(axes, style.on_grid(share, grid), by_chance, patch_shape, spec)
        axes.set_title(
            f"{name}, {NUM_DRAWS} draws" + (" at h = 0, λ = 1" if informed else "") + f"\n{range_words(share)}"
        )
    return figure


def learnt(strategy: MaskingStrategy, patches: Float[Tensor, "b n p"], grid: PatchGrid) -> MaskingStrategy:
    """The strategy as it starts on these patches as its sample; unchanged if it needs none, or all are constant."""
    is_constant = bool((patches == patches[:, :, :1]).all())
    return strategy if is_constant or not strategy.num_sample_crops else strategy.start(Seen(patches, grid))


def _guide(
    strategy: MaskingStrategy, patches: Tensor, grid: PatchGrid, encoder: Encoder, losses: Tensor | None
) -> Tensor | None:
    """What the strategy looks at [1, n, d]."""
    if strategy.needs.guide == "loss" and losses is None:
        raise ValueError("hard looks at the losses of a trained model: name its run, or leave this strategy out")
    encoders = {} if encoder is None else {strategy.needs.encoder: encoder}
    return guide_of(strategy.needs, encoders, patches, grid, None if losses is None else losses[None, :, None])


def _key(figure: Figure, place: SubplotSpec, by_chance: float) -> None:
    """How to read the panels: the colour of masked patches and the scale of frequencies."""
    rows = place.subgridspec(3, 1, height_ratios=[5.2, 0.8, 1.6])
    text = figure.add_subplot(rows[0])
    text.set_axis_off()
    text.add_patch(Rectangle((0, 0.80), 0.09, 0.15, facecolor=style.COVER, transform=text.transAxes, clip_on=False))
    text.text(0.13, 0.875, "masked patch", va="center", transform=text.transAxes)
    words = (
        "h  hint ratio: share of the choice\n    that is given back to chance\n"
        "λ  guidance: how much of the\n    preference survives"
    )
    small: dict[str, Any] = {"color": style.MUTED, "fontsize": style.SMALL, "linespacing": 1.5, "in_layout": False}
    text.text(0, 0.70, words, va="top", transform=text.transAxes, **small)
    bar = figure.add_subplot(rows[1])
    scale = ScalarMappable(preference_scale(by_chance), style.PREFERENCE)
    colours = figure.colorbar(scale, cax=bar, orientation="horizontal", ticks=[0, by_chance, 1], spacing="proportional")
    colours.outline.set_visible(False)
    bar.set_xticklabels(["never", f"as by chance, {by_chance:.0%}".replace("%", " %"), "always"], in_layout=False)
    never, _, always = bar.get_xticklabels()
    never.set_horizontalalignment("left")
    always.set_horizontalalignment("right")
    bar.set_title("Last column: how often a patch is masked", fontsize=style.SMALL, color=style.MUTED, in_layout=False)


def preference_scale(by_chance: float) -> TwoSlopeNorm:
    """Frequencies 0..1 with plain chance in the middle of the colours."""
    return TwoSlopeNorm(vmin=0.0, vcenter=by_chance, vmax=1.0)


def mask_words(masked: Bool[Tensor, " n"], hint_ratio: float | None, otherwise: str) -> str:
    """Hint ratio, guidance and exact counts of a mask, for its title."""
    num_masked = int(masked.sum())
    counts = f"{len(masked) - num_masked} visible, {num_masked} masked"
    if hint_ratio is None:
        return f"{otherwise}\n{counts}"
    return f"h = {hint_ratio:g}, λ = {guidance(len(masked), num_masked, hint_ratio):.2g}\n{counts}"


def range_words(share: Float[Tensor, " n"]) -> str:
    """The smallest and the largest share, in words."""
    return f"masked {float(share.min()):.0%} to {float(share.max()):.0%}".replace("%", " %")


def masked_share(
    strategy: MaskingStrategy,
    grid: PatchGrid,
    mask_ratio: float,
    rng: torch.Generator,
    guide: Float[Tensor, "1 n d"] | None,
    hint_ratio: float = 0.0,
    num_draws: int = 1,
    valid: Bool[Tensor, "1 n"] | None = None,
) -> Float[Tensor, " n"]:
    """The share of ``num_draws`` masks of one input in which each patch is masked; ``valid`` is False for padding."""
    masks = draw(
        strategy,
        grid=grid,
        batch_size=num_draws,
        mask_ratio=mask_ratio,
        rng=rng,
        guide=None if guide is None else guide.expand(num_draws, -1, -1),
        hint_ratio=hint_ratio,
        valid=None if valid is None else valid.expand(num_draws, -1),
    )
    return masks.masked.flatten().bincount(minlength=grid.num_patches) / num_draws


def untrained_encoder(patch_shape: tuple[int, int], seed: int) -> Encoder:
    """A small encoder with fresh weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(SIZES["tiny"], patch_shape)


def show_mask(
    axes: Axes,
    log_mel: Float[Tensor, "mel frame"],
    masked: Bool[np.ndarray, "freq time"],
    patch_shape: tuple[int, int],
    spec: LogMelSpec,
    limits: tuple[float, float],
) -> None:
    """The visible patches of a spectrogram, the masked ones covered."""
    freq, time = masked.shape
    style.show_log_mel(axes, log_mel[: freq * patch_shape[0], : time * patch_shape[1]], spec, limits)
    style.cover(axes, masked, patch_shape, spec)
    axes.set(xticks=[], yticks=[])


def show_frequency(
    axes: Axes,
    share: Float[np.ndarray, "freq time"],
    by_chance: float,
    patch_shape: tuple[int, int],
    spec: LogMelSpec,
) -> None:
    """How often each patch is masked, as a heat map around plain chance."""
    style.show_patches(axes, share, patch_shape, spec, cmap=style.PREFERENCE, norm=preference_scale(by_chance))
    axes.set(xticks=[], yticks=[])
