"""The pictures of docs/masking.md: what every strategy masks of the same four sounds."""

import dataclasses
import io
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from field_guide.schedules import schedules_figure
from field_guide.subjects import MASK_RATIO, Subject, made_for
from melmask.masking import STRATEGIES, MaskingStrategy, make_strategy
from melmask.types import PatchGrid
from melmask.viz import style
from melmask.viz.masks import MaskSampler, random_share, range_words
from melmask.viz.spectrogram import Spectrogram, preference_scale, show_cover, show_frequency, show_log_mel

NUM_DRAWS = 500
NARROW = (PatchGrid(5, 13), 0.75)  # crops of 2.08 s, and a mask ratio at which the paper's form of ibm has no centre
WIDTH_IN, DPI, DIMMED = 9.2, 112, 0.82  # at that resolution, letters of 8 points stay sharp
SHOWN_IN_OVERVIEW, PADDED = "music", "speech"

# Options that are shown, at most four; a strategy that is not listed is shown with its defaults only.
VARIANTS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "time_product": ({"balance": 0.2}, {"balance": 0.5}, {"balance": 0.8}, {"balance": 1.0}),
    "spans": ({"length": 1}, {"length": 6}, {"starts": "wav2vec2"}, {"length": 6, "starts": "wav2vec2"}),
    "block": ({"smallest": 0.03}, {"smallest": 0.2}, {"aspect": 0.1}, {"ring": False}),
    "ibm": ({"blocks": "cover"}, {"side": 3}, {"blocks": "cover", "side": 3}, {"blocks": "cover", "time_side": 9}),
    "cluster": ({"smallest": 1, "largest": 2}, {"smallest": 2, "largest": 2}, {"smallest": 5, "largest": 5}),
    "multiblock": ({"targets": 1}, {"targets": 2}, {"targets": 8}, {"ring": False}),
    "noise": ({"colour": "green"}, {"colour": "blue"}, {"colour": "red"}),
    "freq_profile": ({"exponent": 2.0}, {"exponent": 4.0}, {"exponent": float("inf")}),
    "dwm": ({"statistic": "flux"}, {"exponent": 4.0}, {"floor": 1.0}, {"deterministic": True}),
    "dwm_inverse": ({"statistic": "flux"}, {"exponent": 4.0}, {"floor": 1.0}, {"deterministic": True}),
    "dwm_ibm": ({"side": 2}, {"side": 3}, {"exponent": 4.0}, {"deterministic": True}),
    "dwm_band": ({"exponent": 4.0}, {"floor": 1.0}, {"statistic": "entropy"}, {"deterministic": True}),
    "sgim": ({"form": "pca"}, {"form": "spectral"}),
    "attention": ({"mode": "low"}, {"mode": "hint"}, {"mode": "hint", "shown": 0.5}),
    "hard": ({"exponent": 2.0}, {"exponent": 4.0}, {"exponent": float("inf")}),
}
KINDS = {"nothing": "data-independent", "patches": "input-dependent"}  # by guide; all others are of a model
KIND_COLOURS = {"data-independent": "#0072b2", "input-dependent": "#b04a00", "model-dependent": "#007a58"}


def kind_of(strategy: MaskingStrategy) -> str:
    """The class of a strategy, by its guide."""
    return KINDS.get(strategy.needs.guide, "model-dependent")


def save_pictures(subjects: Sequence[Subject], out: Path, only: Sequence[str] | None = None) -> Iterator[Path]:
    """Draw all pictures of the guide: one for every strategy, the overview, the schedules and the limits.

    Args:
        subjects: the sounds.
        out: folder; is created if missing. Files have the names of the strategies.
        only: names of pictures; None for all.

    Raises:
        ValueError: there is no picture of that name.
    """
    figures = {name: partial(strategy_figure, name, subjects) for name in STRATEGIES}
    figures["overview"] = partial(overview_figure, subjects)
    figures["schedules"] = partial(schedules_figure, num_patches=190, mask_ratio=MASK_RATIO)
    figures["limits"] = partial(limits_figure, subjects)
    for name in figures if only is None else only:
        if name not in figures:
            raise ValueError(f"the guide has no picture {name!r}; there are: {', '.join(figures)}")
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{name}.png").write_bytes(small_png(figures[name]()))
        yield out / f"{name}.png"


def small_png(figure: Figure) -> bytes:
    """The figure as a PNG with the guide's palette, which makes the file a third as large."""
    drawn, small = io.BytesIO(), io.BytesIO()
    with style.styled():
        figure.savefig(drawn, format="png", dpi=DPI)
    picture = Image.open(drawn).convert("RGB").quantize(palette=_palette(), dither=Image.Dither.NONE)
    picture.save(small, format="png", optimize=True)
    return small.getvalue()


def _palette() -> Image.Image:
    """The colours of spectrograms, plain and dimmed, of frequencies, and of text and lines on white."""
    spectrogram, cover, white = (
        style.SPECTROGRAM(np.linspace(0, 1, 33))[:, :3],
        np.array(to_rgb(style.COVER)),
        np.ones(3),
    )
    inks = [style.INK, style.MUTED, *KIND_COLOURS.values(), *style.RUN_COLOURS[:8]]
    fading = np.linspace(0, 1, 6)[:-1, None]
    colours = [
        spectrogram,
        DIMMED * cover + (1 - DIMMED) * spectrogram[::2],
        style.PREFERENCE(np.linspace(0, 1, 61))[:, :3],
        *(fading * white + (1 - fading) * np.array(to_rgb(ink)) for ink in inks),
        np.array([to_rgb(style.LINE), to_rgb("#e9ecf0"), white]),
    ]
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.round(255 * np.concatenate(colours)).astype(np.uint8).tobytes())
    return palette


@style.in_style
def strategy_figure(name: str, subjects: Sequence[Subject]) -> Figure:
    """One strategy: a mask of each sound, how often each patch is masked, and a mask of the first sound per option.

    Args:
        name: of the strategy.
        subjects: a column each.
    """
    variants = VARIANTS.get(name, ())
    heights = [0.34, 0.05, 1.0, 0.95] + [0.95] * bool(variants)
    figure = style.new_figure(0.35 + 1.12 * sum(heights[1:]), WIDTH_IN)
    rows = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    strategy = made_for(name, {}, subjects)
    head = figure.add_subplot(rows[0])
    style.head(head, name, kind_of(strategy))
    _scale(head, random_share(subjects[0].spectrogram.grid, MASK_RATIO))
    panels = [rows[row].subgridspec(1, len(subjects)).subplots(squeeze=False)[0] for row in (2, 3)]
    for column, subject in enumerate(subjects):
        single, often = panels[0][column], panels[1][column]
        sampler = subject.sampler(strategy)
        show_dimmed(single, subject.spectrogram, sampler.masked(seed=column))
        single.set_title(subject.name)
        share = sampler.share(column, num_draws=NUM_DRAWS)
        show_frequency(often, subject.spectrogram, share, random_share(sampler.grid, MASK_RATIO))
        often.set_title(range_words(share), color=style.MUTED)
    _label(panels[0][0], "one mask")
    _label(panels[1][0], f"{NUM_DRAWS} masks")
    if variants:
        panels = rows[4].subgridspec(1, max(len(subjects), len(variants))).subplots(squeeze=False)[0]
        _show_variants(list(panels), name, variants, subjects)
    return figure


def _show_variants(
    panels: Sequence[Axes], name: str, variants: Sequence[Mapping[str, Any]], subjects: Sequence[Subject]
) -> None:
    """One mask of the first sound for every set of options."""
    for axes in panels[len(variants) :]:
        axes.set_axis_off()
    for axes, options in zip(panels, variants, strict=False):  # panels left over are empty
        sampler = subjects[0].sampler(made_for(name, options, subjects))
        show_dimmed(axes, subjects[0].spectrogram, sampler.masked(seed=0))
        axes.set_title(", ".join(_words(key, value) for key, value in options.items()))
    _label(panels[0], "options")


def _words(option: str, value: Any) -> str:
    """
    >>> _words("exponent", 4.0), _words("ring", False), _words("colour", "red")
    ('exponent 4', 'ring off', 'colour red')
    """
    if isinstance(value, bool):
        return f"{option} {'on' if value else 'off'}"
    return f"{option} {value:g}" if isinstance(value, float) else f"{option} {value}"


@style.in_style
def overview_figure(subjects: Sequence[Subject]) -> Figure:
    """One mask of every strategy on one sound, in the order of STRATEGIES, after the sound itself."""
    subject = next((subject for subject in subjects if subject.name == SHOWN_IN_OVERVIEW), subjects[0])
    num_across = 5
    num_down = -(-(1 + len(STRATEGIES)) // num_across)
    figure = style.new_figure(0.25 + 0.8 * num_down, WIDTH_IN)
    panels = figure.subplots(num_down, num_across, squeeze=False).flat
    plain = next(panels)
    show_dimmed(plain, subject.spectrogram, torch.zeros(subject.spectrogram.grid.num_patches, dtype=torch.bool))
    plain.set_title(f"the sound: {subject.name}")
    for seed, name in enumerate(STRATEGIES):
        axes, strategy = next(panels), made_for(name, {}, subjects)
        show_dimmed(axes, subject.spectrogram, subject.sampler(strategy).masked(seed))
        axes.set_title(name, fontweight="bold", color=KIND_COLOURS[kind_of(strategy)])
    for axes in panels:
        axes.set_axis_off()
    handles = [Rectangle((0, 0), 1, 1, facecolor=colour) for colour in KIND_COLOURS.values()]
    figure.legend(handles, list(KIND_COLOURS), loc="outside lower left", ncols=3, handlelength=0.8, handleheight=0.8)
    return figure


@style.in_style
def limits_figure(subjects: Sequence[Subject]) -> Figure:
    """What padding does to an informed strategy, and what a narrow grid does to blocks."""
    subject = next((subject for subject in subjects if subject.name == PADDED), subjects[0])
    figure = style.new_figure(1.45, WIDTH_IN)
    panels = figure.subplots(1, 4)
    whole, grid = subject.spectrogram, subject.spectrogram.grid
    patch_mels, patch_frames = whole.patch_shape
    num_columns = round(0.4 * grid.time)
    log_mel = whole.log_mel.clone()
    log_mel[:, num_columns * patch_frames :] = subject.silence
    padded = dataclasses.replace(whole, log_mel=log_mel)
    valid = (torch.arange(grid.time) < num_columns).repeat(grid.freq)[None]
    dwm = made_for("dwm", {}, subjects)
    for axes, given in zip(panels, (None, valid), strict=False):
        masked = MaskSampler(dwm, grid, MASK_RATIO, padded.patches, given).masked(seed=0)
        show_dimmed(axes, padded, masked, whole.limits)
        seen = int((valid[0] & ~masked).sum())
        words = "without valid" if given is None else "with valid"
        axes.set_title(f"dwm, {words}:\n{seen} patches of sound visible")
    narrow, ratio = NARROW
    cut = dataclasses.replace(whole, log_mel=whole.log_mel[: narrow.freq * patch_mels, : narrow.time * patch_frames])
    for axes, blocks in zip(panels[2:], ("paper", "cover"), strict=True):
        masked = MaskSampler(make_strategy("ibm", {"blocks": blocks}), narrow, ratio).masked(seed=0)
        show_dimmed(axes, cut, masked, whole.limits)
        axes.set_title(f'ibm, blocks "{blocks}":\n{narrow.freq} x {narrow.time}, r = {ratio}')
    return figure


def show_dimmed(
    axes: Axes,
    spectrogram: Spectrogram,
    masked: Bool[Tensor, " n"],
    limits: tuple[float, float] | None = None,
) -> None:
    """A spectrogram with its masked patches dimmed, so that they can still be seen.

    Args:
        axes: where to draw.
        spectrogram: of whole patches.
        masked: True for masked patches.
        limits: ends of the colour scale; None for the spectrogram's own.
    """
    show_log_mel(axes, spectrogram.log_mel, spectrogram.spec, limits or spectrogram.limits)
    show_cover(axes, spectrogram, masked, DIMMED)
    axes.set(xticks=[], yticks=[])


def _label(axes: Axes, words: str) -> None:
    """Label a row of panels at its left side."""
    axes.set_ylabel(words, labelpad=3)


def _scale(head: Axes, expected: float) -> None:
    """The colour scale of frequencies, at the right end of the headline."""
    bar = head.inset_axes((0.66, 0.05, 0.34, 0.28))
    scale = ScalarMappable(preference_scale(expected), style.PREFERENCE)
    colours = head.figure.colorbar(scale, cax=bar, orientation="horizontal", ticks=[], spacing="proportional")
    colours.outline.set_visible(False)
    bar.axvline(expected, color=style.INK, linewidth=0.8)
    words = {0.0: "never masked", expected: f"at random {expected:.0%}".replace("%", " %"), 1.0: "always"}
    for (place, word), align in zip(words.items(), ("left", "center", "right"), strict=True):
        bar.annotate(
            word, (place, 1), (0, 2), xycoords=("data", "axes fraction"), textcoords="offset points", ha=align,
            fontsize=style.SMALL, color=style.MUTED, in_layout=False,
        )  # fmt: skip
