"""Augmentation of training clips: mixup, resized crops, stripes, and masked rows and columns of patches.

All randomness comes from the generator passed in, so a batch is a pure function of its seed. Log-mels are natural
logarithms of power, and not normalised unless stated.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from melmask.types import PatchGrid

RESIZED_SCALE = (0.6, 1.5)  # of height and width of a resized crop, relative to the input
VIRTUAL_WIDTH = 1.5  # of the padded input that a resized crop is taken from, relative to the input
MAX_HIDDEN_SHARE = 0.5  # of an axis that a stripe may cover


@dataclass(frozen=True)
class Lines:
    """The visible rows and columns of a patch grid; all other patches are masked, that is, not encoded.

    Args:
        rows: along frequency, sorted.
        columns: along time, sorted.
    """

    rows: Int[Tensor, "b f"]
    columns: Int[Tensor, "b t"]

    def index(self, grid: PatchGrid) -> Int[Tensor, "b v"]:
        """Indices of the visible patches in grid order; v = f t."""
        return (self.rows[:, :, None] * grid.time + self.columns[:, None, :]).flatten(1)


def mix(
    log_mel: Float[Tensor, "frame mel"], other: Float[Tensor, "frame mel"], share: float
) -> Float[Tensor, "frame mel"]:
    """Mix two log-mels in power: ``share`` of the first and the rest of the second.

    Sounds of different sources add in power, as at a microphone, and silence adds nothing. A mean of the logarithms
    would raise silence and halve every contrast.

    Source: BYOL-A, arXiv 2103.06695, "log-mixup-exp". Deviates: not at all.

    >>> mix(torch.zeros(1, 1), torch.full((1, 1), -100.0), 0.5).exp().item()
    0.5
    """
    if share >= 1:
        return log_mel
    return torch.logaddexp(log_mel + math.log(share), other + math.log1p(-share))


def mixup(
    clips: Sequence[Float[Tensor, "_ mel"]],
    flags: Float[Tensor, "b num_classes"],
    *,
    alpha: float,
    silence: float,
    rng: np.random.Generator,
) -> tuple[list[Tensor], Float[Tensor, "b num_classes"]]:
    """Mix each clip in power with another clip of the batch, and their labels with the same shares.

    A clip keeps its length: a random part of a longer partner is used, and a shorter one is padded with silence.

    Args:
        clips: log-mels, frame-major, of any lengths.
        flags: the classes of each clip.
        alpha: the shares are drawn from Beta(alpha, alpha); the larger one is the clip's own.
        silence: the log-mel value of silence.
        rng: draws shares, partners and positions.

    Returns:
        The mixed clips, and their shares of the classes.

    Source: mixup, arXiv 1710.09412; `mix`. Deviates: the larger share is that of the clip that keeps its length.
    """
    shares = rng.beta(alpha, alpha, len(clips))
    shares = np.maximum(shares, 1 - shares)
    partners = rng.permutation(len(clips))
    mixed = [
        mix(clip, _fit_length(clips[partner], len(clip), silence, rng), float(share))
        for clip, partner, share in zip(clips, partners, shares, strict=True)
    ]
    share = torch.from_numpy(shares).float()[:, None]
    return mixed, share * flags + (1 - share) * flags[torch.from_numpy(partners)]


def resized_crop(
    log_mel: Float[Tensor, "b mel frame"], *, silence: float, rng: np.random.Generator
) -> Float[Tensor, "b mel frame"]:
    """Resize a random rectangle of each spectrogram to the size of the whole: shifts of pitch, tempo and onset.

    The spectrogram is padded in time with silence to `VIRTUAL_WIDTH` of its length. Height and width of the rectangle
    are drawn from `RESIZED_SCALE`, and at most the padded size.

    Args:
        log_mel: spectrograms.
        silence: the log-mel value of silence.
        rng: draws sizes and positions.

    Source: BYOL-A, arXiv 2103.06695. Deviates: positions are not rounded to bands and frames; the clip is padded with
    silence, not with the mean.
    """
    size, num_frames = len(log_mel), log_mel.shape[2]
    padding = math.ceil(num_frames * (VIRTUAL_WIDTH - 1) / 2)
    virtual = F.pad(log_mel, (padding, padding), value=silence)
    height = np.minimum(rng.uniform(*RESIZED_SCALE, size), 1.0)
    width = np.minimum(rng.uniform(*RESIZED_SCALE, size), VIRTUAL_WIDTH) * num_frames / virtual.shape[2]
    top, left = rng.uniform(0, 1 - height), rng.uniform(0, 1 - width)
    affine = np.zeros((size, 2, 3))  # from -1..1 over the crop to -1..1 over the padded spectrogram, (time, freq)
    affine[:, 0, 0], affine[:, 0, 2] = width, 2 * left + width - 1
    affine[:, 1, 1], affine[:, 1, 2] = height, 2 * top + height - 1
    positions = F.affine_grid(torch.from_numpy(affine).float(), [size, 1, *log_mel.shape[1:]], align_corners=False)
    resized = F.grid_sample(virtual[:, None], positions, mode="bicubic", padding_mode="border", align_corners=False)
    return resized[:, 0]


def hide_stripes(
    log_mel: Float[Tensor, "b mel frame"], *, max_bands: int, max_frames: int, rng: np.random.Generator
) -> Float[Tensor, "b mel frame"]:
    """Set one stripe of adjacent bands and one of adjacent frames of each spectrogram to 0.

    Args:
        log_mel: normalised spectrograms, so that 0 is the mean.
        max_bands, max_frames: maximum widths of the stripes; each covers at most half of its axis.
        rng: draws widths and positions.

    Source: SpecAugment, arXiv 1904.08779. Deviates: one stripe per axis, no time warping, at most half of an axis.
    """
    bands = _stripes(len(log_mel), log_mel.shape[1], max_bands, rng)
    frames = _stripes(len(log_mel), log_mel.shape[2], max_frames, rng)
    return log_mel.masked_fill(bands[:, :, None] | frames[:, None, :], 0.0)


def num_lines(grid: PatchGrid, ratio: float) -> tuple[int, int]:
    """Number of visible rows and columns if whole rows and columns mask about ``ratio`` of the patches.

    About the same share of rows and of columns is masked; the columns, which are more, compensate for rounding.

    >>> num_lines(PatchGrid(5, 38), 0.5)
    (4, 24)
    """
    rows = max(1, round(grid.freq * math.sqrt(1 - ratio)))
    return rows, min(grid.time, max(1, round(grid.num_patches * (1 - ratio) / rows)))


def draw_lines(batch_size: int, grid: PatchGrid, ratio: float, rng: np.random.Generator) -> Lines:
    """Draw the visible rows and columns of each sample; `num_lines` gives their number.

    Source: structured patchout of PaSST, arXiv 2110.05069. Deviates: one ratio of patches for both axes, not a number
    of lines for each.
    """
    rows, columns = num_lines(grid, ratio)
    return Lines(_draw(batch_size, grid.freq, rows, rng), _draw(batch_size, grid.time, columns, rng))


def _draw(batch_size: int, size: int, count: int, rng: np.random.Generator) -> Int[Tensor, "b count"]:
    lines = rng.permuted(np.tile(np.arange(size), (batch_size, 1)), axis=1)[:, :count]
    return torch.from_numpy(np.sort(lines, axis=1))


def _fit_length(
    log_mel: Tensor, num_frames: int, silence: float, rng: np.random.Generator
) -> Float[Tensor, "frame mel"]:
    """A random part of ``num_frames`` frames, or the whole padded with silence at a random position."""
    start = int(rng.integers(abs(len(log_mel) - num_frames) + 1))
    if len(log_mel) >= num_frames:
        return log_mel[start : start + num_frames]
    return F.pad(log_mel, (0, 0, start, num_frames - len(log_mel) - start), value=silence)


def _stripes(batch_size: int, size: int, max_width: int, rng: np.random.Generator) -> Tensor:
    """One stripe per sample: True inside it [b, size]."""
    widest = min(max_width, int(size * MAX_HIDDEN_SHARE))
    width = rng.integers(0, widest + 1, (batch_size, 1))
    start = rng.integers(0, size - width + 1)
    index = np.arange(size)
    return torch.from_numpy((index >= start) & (index < start + width))
