"""What fine-tuning does to its training clips: mixup, resized crops, hidden stripes and rows and columns of patches.

Every draw comes from the generator that is handed in, so a batch is a pure function of its seed. Log-mels are natural
logarithms of power, and normalised only where it is said.
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
VIRTUAL_WIDTH = 1.5  # how far a resized crop may reach in time, relative to the input
MAX_HIDDEN_SHARE = 0.5  # of an axis that a stripe may take


@dataclass(frozen=True)
class Lines:
    """The rows and columns of the grid of patches that are visible; every other patch is not encoded.

    Args:
        rows: along frequency, sorted.
        columns: along time, sorted.
    """

    rows: Int[Tensor, "b f"]
    columns: Int[Tensor, "b t"]

    def index(self, grid: PatchGrid) -> Int[Tensor, "b v"]:
        """The visible patches in the order of the grid; v = f t."""
        return (self.rows[:, :, None] * grid.time + self.columns[:, None, :]).flatten(1)


def mix(
    log_mel: Float[Tensor, "frame mel"], other: Float[Tensor, "frame mel"], share: float
) -> Float[Tensor, "frame mel"]:
    """The log-mel of ``share`` of one sound's power and the rest of another's.

    Sounds of different sources add in power: here a mixture is what a microphone would have heard, and silence adds
    nothing to it. A mean of logarithms would lift silence and halve every contrast.

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
    """Each clip mixed in power with another of the batch, and its labels by the same shares.

    A clip keeps its length: the other is cut, or laid over a part of it, at random.

    Args:
        clips: log-mels, frame-major, of any lengths.
        flags: the classes of each clip.
        alpha: the shares are drawn from Beta(alpha, alpha); the clip itself gets the larger one, at least half.
        silence: the log-mel value of silence.
        rng: of the shares, the partners and their places.

    Source: mixup, arXiv 1710.09412; `mix`. Deviates: the larger share stays with the clip whose length counts.
    """
    shares = rng.beta(alpha, alpha, len(clips))
    shares = np.maximum(shares, 1 - shares)
    partners = rng.permutation(len(clips))
    mixed = [
        mix(clip, _fitted(clips[partner], len(clip), silence, rng), float(share))
        for clip, partner, share in zip(clips, partners, shares, strict=True)
    ]
    share = torch.from_numpy(shares).float()[:, None]
    return mixed, share * flags + (1 - share) * flags[torch.from_numpy(partners)]


def resized_crop(
    log_mel: Float[Tensor, "b mel frame"], *, silence: float, rng: np.random.Generator
) -> Float[Tensor, "b mel frame"]:
    """A random rectangle of each spectrogram, stretched to the size of the whole: shifts of pitch, tempo and onset.

    Height and width are drawn from `RESIZED_SCALE`, cut at the full height and at `VIRTUAL_WIDTH` of the length; what
    lies before and after the clip is silence.

    Args:
        log_mel: spectrograms.
        silence: the log-mel value of silence.
        rng: of sizes and places.

    Source: BYOL-A, arXiv 2103.06695. Deviates: places are not rounded to bands and frames, and there is silence around
    the clip, not the mean.
    """
    size, num_frames = len(log_mel), log_mel.shape[2]
    beside = math.ceil(num_frames * (VIRTUAL_WIDTH - 1) / 2)
    virtual = F.pad(log_mel, (beside, beside), value=silence)
    height = np.minimum(rng.uniform(*RESIZED_SCALE, size), 1.0)
    width = np.minimum(rng.uniform(*RESIZED_SCALE, size), VIRTUAL_WIDTH) * num_frames / virtual.shape[2]
    top, left = rng.uniform(0, 1 - height), rng.uniform(0, 1 - width)
    move = np.zeros((size, 2, 3))  # from -1..1 over the crop to -1..1 over the virtual spectrogram, (time, freq)
    move[:, 0, 0], move[:, 0, 2] = width, 2 * left + width - 1
    move[:, 1, 1], move[:, 1, 2] = height, 2 * top + height - 1
    places = F.affine_grid(torch.from_numpy(move).float(), [size, 1, *log_mel.shape[1:]], align_corners=False)
    stretched = F.grid_sample(virtual[:, None], places, mode="bicubic", padding_mode="border", align_corners=False)
    return stretched[:, 0]


def hide_stripes(
    log_mel: Float[Tensor, "b mel frame"], *, max_bands: int, max_frames: int, rng: np.random.Generator
) -> Float[Tensor, "b mel frame"]:
    """A stripe of adjacent bands and one of adjacent frames of each spectrogram set to 0.

    Args:
        log_mel: spectrograms, normalised, so that 0 is the mean.
        max_bands, max_frames: the widths are drawn from 0 to these, and to half of the axis at most.
        rng: of widths and places.

    Source: SpecAugment, arXiv 1904.08779. Deviates: one stripe an axis, no time warping, never more than half hidden.
    """
    bands = _stripes(len(log_mel), log_mel.shape[1], max_bands, rng)
    frames = _stripes(len(log_mel), log_mel.shape[2], max_frames, rng)
    return log_mel.masked_fill(bands[:, :, None] | frames[:, None, :], 0.0)


def num_lines(grid: PatchGrid, ratio: float) -> tuple[int, int]:
    """How many rows and columns stay visible when about ``ratio`` of the patches is to be masked by whole lines.

    Both axes give about the same share; the columns, which are more, make up for the rounding of the rows.

    >>> num_lines(PatchGrid(5, 38), 0.5)
    (4, 24)
    """
    rows = max(1, round(grid.freq * math.sqrt(1 - ratio)))
    return rows, min(grid.time, max(1, round(grid.num_patches * (1 - ratio) / rows)))


def draw_lines(batch_size: int, grid: PatchGrid, ratio: float, rng: np.random.Generator) -> Lines:
    """Random rows and columns to be visible, each sample its own, as many as `num_lines` says.

    Source: structured patchout of PaSST, arXiv 2110.05069. Deviates: a ratio of patches for both axes together, where
    PaSST has a number of lines for each.
    """
    rows, columns = num_lines(grid, ratio)
    return Lines(_draw(batch_size, grid.freq, rows, rng), _draw(batch_size, grid.time, columns, rng))


def _draw(batch_size: int, size: int, count: int, rng: np.random.Generator) -> Int[Tensor, "b count"]:
    lines = rng.permuted(np.tile(np.arange(size), (batch_size, 1)), axis=1)[:, :count]
    return torch.from_numpy(np.sort(lines, axis=1))


def _fitted(log_mel: Tensor, num_frames: int, silence: float, rng: np.random.Generator) -> Float[Tensor, "frame mel"]:
    """A random part of so many frames, or the whole at a random place in silence."""
    start = int(rng.integers(abs(len(log_mel) - num_frames) + 1))
    if len(log_mel) >= num_frames:
        return log_mel[start : start + num_frames]
    return F.pad(log_mel, (0, 0, start, num_frames - len(log_mel) - start), value=silence)


def _stripes(batch_size: int, size: int, max_width: int, rng: np.random.Generator) -> Tensor:
    """True inside one stripe of each sample [b, size]."""
    widest = min(max_width, int(size * MAX_HIDDEN_SHARE))
    width = rng.integers(0, widest + 1, (batch_size, 1))
    start = rng.integers(0, size - width + 1)
    place = np.arange(size)
    return torch.from_numpy((place >= start) & (place < start + width))
