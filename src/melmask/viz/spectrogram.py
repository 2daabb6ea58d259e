"""Spectrograms on axes in seconds and Hz, with masks or one value for each patch drawn on them."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm, to_rgba
from matplotlib.image import AxesImage
from numpy import ndarray
from torch import Tensor

from melmask.logmel import LogMelSpec, mel_filterbank
from melmask.patches import grid_of, patchify, whole_patches
from melmask.types import PatchGrid
from melmask.viz import style

TICKS_HZ = (100.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0, 16000.0)


@dataclass(frozen=True, eq=False)
class Spectrogram:
    """A log-mel spectrogram to draw on.

    Args:
        log_mel: normalised values; a remainder that fills no patch is drawn, but has no patches.
        spec: its front end, for the axes.
        patch_shape: (freq, time) of a patch, in mel bands and frames.
        title: of its panel.

    Raises:
        ValueError: it is smaller than one patch; raised on first use of its patches.
    """

    log_mel: Float[Tensor, "mel frame"]
    spec: LogMelSpec
    patch_shape: tuple[int, int]
    title: str = ""

    @property
    def grid(self) -> PatchGrid:
        return grid_of(self.log_mel, self.patch_shape)

    @cached_property
    def patches(self) -> Float[Tensor, "1 n p"]:
        return patchify(whole_patches(self.log_mel[None], self.patch_shape), self.patch_shape)

    @cached_property
    def limits(self) -> tuple[float, float]:
        """Ends of the colour scale: percentiles, which are robust to a click or a silent gap."""
        low, high = np.percentile(self.log_mel.numpy(), (2, 99.7))
        return float(low), float(max(high, low + 1e-3))


def show_log_mel(
    axes: Axes, log_mel: Float[Tensor, "mel frame"], spec: LogMelSpec, limits: tuple[float, float]
) -> AxesImage:
    """A spectrogram with time in seconds and low frequencies at the bottom; ticks are left to the caller."""
    num_mels, num_frames = log_mel.shape
    extent = (0, num_frames / spec.frames_per_s, -0.5, num_mels - 0.5)
    axes.spines[:].set_visible(False)
    return axes.imshow(
        log_mel.numpy(), origin="lower", aspect="auto", cmap=style.SPECTROGRAM,
        vmin=limits[0], vmax=limits[1], extent=extent,
    )  # fmt: skip


def show_input(axes: Axes, spectrogram: Spectrogram, *, time: bool = True) -> None:
    """A spectrogram with its title and its axes; ``time`` is for labels in seconds."""
    show_log_mel(axes, spectrogram.log_mel, spectrogram.spec, spectrogram.limits)
    label_axes(axes, spectrogram.spec, time=time, frequency_label=False)
    axes.set_title(style.shortened(spectrogram.title), fontweight="bold")


def show_visible(axes: Axes, spectrogram: Spectrogram, masked: Bool[Tensor, " n"]) -> None:
    """The visible patches of a spectrogram, the masked ones covered with one colour."""
    whole = whole_patches(spectrogram.log_mel, spectrogram.patch_shape)
    show_log_mel(axes, whole, spectrogram.spec, spectrogram.limits)
    show_cover(axes, spectrogram, masked)
    axes.set(xticks=[], yticks=[])


def show_cover(axes: Axes, spectrogram: Spectrogram, masked: Bool[Tensor, " n"], opacity: float = 1.0) -> None:
    """Cover the masked patches of a spectrogram that is drawn already."""
    colours = np.zeros((len(masked), 4), np.float32)
    colours[masked.numpy()] = to_rgba(style.COVER, opacity)
    show_patches(axes, spectrogram, colours)


def show_frequency(axes: Axes, spectrogram: Spectrogram, share: Float[Tensor, " n"], random_share: float) -> None:
    """The share of masks in which each patch is masked, as a heat map around the share under random masking."""
    show_patches(axes, spectrogram, share.numpy(), cmap=style.PREFERENCE, norm=preference_scale(random_share))
    axes.set(xticks=[], yticks=[])


def preference_scale(random_share: float) -> TwoSlopeNorm:
    """Colours of shares from 0 to 1, with the share under random masking in the middle."""
    return TwoSlopeNorm(vmin=0.0, vcenter=random_share, vmax=1.0)


def show_patches(axes: Axes, spectrogram: Spectrogram, values: Float[ndarray, "n *rgba"], **settings: Any) -> AxesImage:
    """One value or colour for every patch, on the same axes as the spectrogram.

    Args:
        axes: where to draw.
        spectrogram: its grid is laid out.
        values: in the order of the grid.
        settings: of matplotlib's ``imshow``.
    """
    grid, (freq, time) = spectrogram.grid, spectrogram.patch_shape
    extent = (0, grid.time * time / spectrogram.spec.frames_per_s, -0.5, grid.freq * freq - 0.5)
    axes.spines[:].set_visible(False)
    image = values.reshape(grid.freq, grid.time, *values.shape[1:])
    return axes.imshow(image, origin="lower", aspect="auto", extent=extent, **settings)


def label_axes(axes: Axes, spec: LogMelSpec, *, time: bool = True, frequency_label: bool = True) -> None:
    """Ticks in seconds and, at their place among the mel bands, in Hz.

    Args:
        axes: of a spectrogram.
        spec: its front end.
        time: whether the time axis has ticks and a label.
        frequency_label: whether the frequency axis has a label.
    """
    axes.set_xticks([]) if not time else axes.set_xlabel("time in s", loc="right", labelpad=1)
    ticks = [hz for hz in TICKS_HZ if spec.fmin_hz <= hz <= band_centres_hz(spec)[-1] * 1.05]
    axes.set_yticks([band_of_hz(spec, hz) for hz in ticks], [name_hz(hz) for hz in ticks])
    if frequency_label:
        axes.set_ylabel("frequency in Hz", labelpad=2)


@lru_cache(maxsize=8)
def band_centres_hz(spec: LogMelSpec) -> ndarray:
    """The frequency at the peak of every mel band, read off the filterbank on a fine frequency axis."""
    fine = dataclasses.replace(spec, n_fft=2**16)
    return mel_filterbank(fine).argmax(dim=1).numpy() * (fine.sample_rate_hz / fine.n_fft)


def band_of_hz(spec: LogMelSpec, hz: float) -> float:
    """Where a frequency lies on the axis of mel bands, between bands as a fraction."""
    return float(np.interp(hz, band_centres_hz(spec), np.arange(spec.num_mels)))


def row_centres(num_rows: int, patch_shape: tuple[int, int]) -> Float[ndarray, " freq"]:
    """The centre of each row of patches on the axis of mel bands."""
    return (np.arange(num_rows) + 0.5) * patch_shape[0] - 0.5


def name_hz(hz: float) -> str:
    """
    >>> name_hz(500.0), name_hz(4000.0)
    ('500', '4k')
    """
    return f"{hz / 1000:g}k" if hz >= 1000 else f"{hz:g}"
