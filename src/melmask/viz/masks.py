"""Figures of masks: what strategies mask of one recording, and how often each of its patches is masked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.patches import Rectangle
from torch import Tensor
from torch.nn import functional as F

from melmask.audio import read_audio
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.files import write_bytes
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
from melmask.viz.spectrogram import (
    Spectrogram,
    label_axes,
    preference_scale,
    show_frequency,
    show_log_mel,
    show_visible,
)

PAPER_STRATEGIES = ("random", "ibm", "sgim", "dwm")
NUM_DRAWS = 200
GUIDED_BY = {  # {}: name of the encoder
    "nothing": "no guide",
    "patches": "guided by the values inside each patch",
    "features": "guided by the features of {}",
    "attention": "guided by the attention of the class token in {}",
    "loss": "guided by the losses of the model of {}",
}
NUM_LOSS_MASKS = 16  # random masks that the losses of a recording are averaged over


@dataclass(frozen=True)
class MaskExamples:
    """Which masks are plotted, on which part of a recording.

    Args:
        strategies: those that are plotted, names in `melmask.masking.STRATEGIES`, or package.module:Class.
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


def save_mask_figure(
    file: Path, out: Path, run: str | Path | None = None, examples: MaskExamples = DEFAULT_EXAMPLES
) -> None:
    """Plot a recording's masks to a PNG.

    Args:
        file: the recording.
        out: the PNG.
        run: its front end, encoder and, for strategies that read losses, model are used; without one the clip is
            normalised by its own statistics and the encoder is untrained, which the figure says.
        examples: what to plot.

    Raises:
        ValueError: the file cannot be read or ends before the part, a setting is out of range, or a
            strategy reads losses and there is no run with a checkpoint.
    """
    encoder = PretrainedEncoder.load(run) if run else None
    spec = encoder.spec if encoder else LogMelSpec()
    patch_shape = encoder.encoder.patch_shape if encoder else (16, 16)
    log_mel = read_log_mel(file, spec, examples.start_s, examples.length_s, patch_shape[1])
    if encoder:
        log_mel = (log_mel - encoder.front_end.mean) / encoder.front_end.std
    else:
        log_mel = (log_mel - log_mel.mean()) / log_mel.std().clamp(min=1e-6)
    needs_losses = any(make_strategy(name).needs.guide == "loss" for name in examples.strategies)
    figure = mask_figure(
        Spectrogram(log_mel, spec, patch_shape, f"Log-mel spectrogram of {file.name}"),
        strategies=examples.strategies,
        mask_ratio=examples.mask_ratio,
        seed=examples.seed,
        encoder=encoder.encoder.cpu() if encoder else None,
        encoder_name=encoder.called if encoder else "",
        losses=losses_of(read_runs([Path(run)])[0], log_mel, examples.seed) if run and needs_losses else None,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, style.png_of(figure))


def read_log_mel(
    file: Path, spec: LogMelSpec, start_s: float, length_s: float, min_frames: int
) -> Float[Tensor, "mel frame"]:
    """The log-mel spectrogram of a part of a recording, zero-padded to ``min_frames`` frames and not normalised."""
    waveform = torch.from_numpy(read_audio(file, spec.sample_rate_hz))
    first, length = (round(at_s * spec.sample_rate_hz) for at_s in (start_s, length_s))
    part = waveform[first : first + length]
    if not len(part):
        total_s = len(waveform) / spec.sample_rate_hz
        raise ValueError(f"{file} lasts {total_s:.2f} s: nothing to show from {start_s} s for {length_s} s")
    min_samples = max(spec.n_fft, (min_frames - 1) * spec.hop_length)
    return LogMel(spec)(F.pad(part, (0, max(0, min_samples - len(part))))[None])[0]


@torch.no_grad()
def losses_of(run: Run, log_mel: Float[Tensor, "mel frame"], seed: int) -> Float[Tensor, " n"]:
    """The loss of a run's model at every patch, averaged over those of `NUM_LOSS_MASKS` random masks that mask it.

    Raises:
        ValueError: the run has no checkpoint.
    """
    if run.model is None:
        raise ValueError(f"{run.folder} has no checkpoint, whose model's losses could guide a strategy")
    patch_shape = run.recipe.patch_shape
    grid, patches = grid_of(log_mel, patch_shape), patchify(whole_patches(log_mel[None], patch_shape), patch_shape)
    mask = random_masks(run, grid, NUM_LOSS_MASKS, seed)
    error = run.model(patches.expand(NUM_LOSS_MASKS, -1, -1), grid, mask).per_patch
    total = torch.zeros(grid.num_patches).index_add_(0, mask.masked.flatten(), error.flatten())
    return total / mask.masked.flatten().bincount(minlength=grid.num_patches).clamp(min=1)


@dataclass(frozen=True, eq=False)
class MaskSampler:
    """Draws masks of one input, to count how often each of its patches is masked.

    Args:
        strategy: what to mask.
        grid: the input's patches.
        mask_ratio: share of patches that are masked.
        guide: of the strategy; None if it needs none.
        valid: False for padding; None if there is none.
    """

    strategy: MaskingStrategy
    grid: PatchGrid
    mask_ratio: float
    guide: Float[Tensor, "1 n d"] | None = None
    valid: Bool[Tensor, "1 n"] | None = None

    def masked(self, seed: int, hint_ratio: float = 0.0) -> Bool[Tensor, " n"]:
        """One mask: True for masked patches."""
        return self.share(seed, hint_ratio) > 0

    def share(self, seed: int, hint_ratio: float = 0.0, num_draws: int = 1) -> Float[Tensor, " n"]:
        """The share of ``num_draws`` masks in which each patch is masked."""
        mask = draw(
            self.strategy,
            grid=self.grid,
            batch_size=num_draws,
            mask_ratio=self.mask_ratio,
            rng=torch.Generator().manual_seed(seed),
            guide=None if self.guide is None else self.guide.expand(num_draws, -1, -1),
            hint_ratio=hint_ratio,
            valid=None if self.valid is None else self.valid.expand(num_draws, -1),
        )
        return mask.masked.flatten().bincount(minlength=self.grid.num_patches) / num_draws


def random_share(grid: PatchGrid, mask_ratio: float) -> float:
    """The exact share of masked patches, which is each patch's share of masks under random masking."""
    return num_masked_of(grid.num_patches, mask_ratio) / grid.num_patches


@style.in_style
def mask_figure(
    spectrogram: Spectrogram,
    *,
    strategies: Sequence[str] = PAPER_STRATEGIES,
    hint_ratios: Sequence[float] = (1.0, 0.5, 0.0),
    mask_ratio: float = 0.7,
    seed: int = 0,
    encoder: Encoder | None = None,
    encoder_name: str = "the encoder",
    losses: Float[Tensor, " n"] | None = None,
) -> Figure:
    """A spectrogram, and under it a row for each strategy: single masks, and how often each patch is masked.

    Guided strategies are shown at every hint ratio, with the same random numbers; the others with as many independent
    masks, without hints.

    Args:
        spectrogram: a remainder that fills no patch is shown at the top only.
        strategies: a row each.
        hint_ratios: a column each; 1 is random masking, 0 the strategy without hints.
        mask_ratio: share of patches that are masked.
        seed: of the masks.
        encoder: for strategies guided by its features or attention; None for an untrained one, which the figure states.
        encoder_name: what the figure calls the encoder.
        losses: a trained model's loss at every patch, for strategies guided by losses.

    Raises:
        ValueError: an unknown strategy, one guided by losses without ``losses``, a setting out of range, or a
            spectrogram smaller than a patch.
    """
    if encoder is None:
        encoder, encoder_name = untrained_encoder(spectrogram.patch_shape, seed), "an untrained encoder"
    grid, hint_ratios = spectrogram.grid, tuple(hint_ratios) or (0.0,)
    figure = style.new_figure(2.15 + 1.43 * len(strategies))
    heights = [1.5] + [0.24, 1.0] * len(strategies)
    rows = figure.add_gridspec(len(heights), len(hint_ratios) + 1, height_ratios=heights)
    top = figure.add_subplot(rows[0, :-1])
    show_log_mel(top, spectrogram.log_mel, spectrogram.spec, spectrogram.limits)
    label_axes(top, spectrogram.spec)
    top.set_title(spectrogram.title, fontsize=11, fontweight="bold", pad=8)
    _key(figure, rows[0, -1], random_share(grid, mask_ratio))

    for row, name in enumerate(strategies):
        unfitted = make_strategy(name)
        strategy = fitted(unfitted, spectrogram.patches, grid)
        note = GUIDED_BY[strategy.needs.guide].format(encoder_name)
        if strategy is not unfitted:
            note = f"{note}; fitted to this recording"
        style.head(figure.add_subplot(rows[2 * row + 1, :]), name, note)
        sampler = MaskSampler(strategy, grid, mask_ratio, _guide(name, strategy, spectrogram, encoder, losses))
        panels = [figure.add_subplot(rows[2 * row + 2, column]) for column in range(len(hint_ratios) + 1)]
        _show_strategy(panels, name, sampler, spectrogram, hint_ratios, seed)
    return figure


def _show_strategy(
    panels: Sequence[Axes],
    name: str,
    sampler: MaskSampler,
    spectrogram: Spectrogram,
    hint_ratios: Sequence[float],
    seed: int,
) -> None:
    """A mask at every hint ratio, and how often each patch is masked without hints."""
    informed = sampler.strategy.needs.guide != "nothing"
    for column, axes in enumerate(panels[:-1]):
        hint_ratio = hint_ratios[column] if informed else None
        masked = sampler.masked(seed + (0 if informed else column), hint_ratio or 0.0)
        show_visible(axes, spectrogram, masked)
        axes.set_title(f"{name}, {mask_words(masked, hint_ratio, f'draw {column + 1}')}")
    share = sampler.share(seed, num_draws=NUM_DRAWS)
    show_frequency(panels[-1], spectrogram, share, random_share(sampler.grid, sampler.mask_ratio))
    without_hints = " at h = 0, λ = 1" if informed else ""
    panels[-1].set_title(f"{name}, {NUM_DRAWS} draws{without_hints}\n{range_words(share)}")


def fitted(strategy: MaskingStrategy, patches: Float[Tensor, "b n p"], grid: PatchGrid) -> MaskingStrategy:
    """The strategy started with these patches as its sample; unchanged if it takes none or all patches are constant."""
    is_constant = bool((patches == patches[:, :, :1]).all())
    return strategy if is_constant or not strategy.num_sample_crops else strategy.start(Seen(patches, grid))


def _guide(
    name: str,
    strategy: MaskingStrategy,
    spectrogram: Spectrogram,
    encoder: Encoder,
    losses: Float[Tensor, " n"] | None,
) -> Float[Tensor, "1 n d"] | None:
    """The guide of the strategy of that name."""
    if strategy.needs.guide == "loss" and losses is None:
        raise ValueError(f"{name} is guided by the losses of a trained model: name its run, or leave this strategy out")
    given = None if losses is None else losses[None, :, None]
    return guide_of(strategy.needs, {strategy.needs.encoder: encoder}, spectrogram.patches, spectrogram.grid, given)


def _key(figure: Figure, place: SubplotSpec, expected: float) -> None:
    """How to read the panels: the colour of masked patches, and the scale of frequencies around the expected share."""
    rows = place.subgridspec(3, 1, height_ratios=[5.2, 0.8, 1.6])
    text = figure.add_subplot(rows[0])
    text.set_axis_off()
    text.add_patch(Rectangle((0, 0.80), 0.09, 0.15, facecolor=style.COVER, transform=text.transAxes, clip_on=False))
    text.text(0.13, 0.875, "masked patch", va="center", transform=text.transAxes)
    words = (
        "h  hint ratio: share of the masked\n    patches that is redrawn at random\n"
        "λ  guidance: share of the strategy's\n    preference that remains"
    )
    small: dict[str, Any] = {"color": style.MUTED, "fontsize": style.SMALL, "linespacing": 1.5, "in_layout": False}
    text.text(0, 0.70, words, va="top", transform=text.transAxes, **small)
    bar = figure.add_subplot(rows[1])
    scale = ScalarMappable(preference_scale(expected), style.PREFERENCE)
    colours = figure.colorbar(scale, cax=bar, orientation="horizontal", ticks=[0, expected, 1], spacing="proportional")
    colours.outline.set_visible(False)
    bar.set_xticklabels(["never", f"as at random, {expected:.0%}".replace("%", " %"), "always"], in_layout=False)
    never, _, always = bar.get_xticklabels()
    never.set_horizontalalignment("left")
    always.set_horizontalalignment("right")
    bar.set_title("Last column: how often a patch is masked", fontsize=style.SMALL, color=style.MUTED, in_layout=False)


def mask_words(masked: Bool[Tensor, " n"], hint_ratio: float | None, otherwise: str) -> str:
    """Hint ratio, guidance and exact counts of a mask, as a title; ``otherwise`` starts it without hints."""
    num_masked = int(masked.sum())
    counts = f"{len(masked) - num_masked} visible, {num_masked} masked"
    if hint_ratio is None:
        return f"{otherwise}\n{counts}"
    return f"h = {hint_ratio:g}, λ = {guidance(len(masked), num_masked, hint_ratio):.2g}\n{counts}"


def range_words(share: Float[Tensor, " n"]) -> str:
    """The smallest and the largest share, as a title."""
    return f"masked {float(share.min()):.0%} to {float(share.max()):.0%}".replace("%", " %")


def untrained_encoder(patch_shape: tuple[int, int], seed: int) -> Encoder:
    """A tiny encoder with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(SIZES["tiny"], patch_shape)
