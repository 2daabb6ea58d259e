"""Spectrogram <-> patches, picking and placing patches, and fixed positions."""

import warnings
from functools import cache
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from melmask.types import PatchGrid

PositionOrder = Literal["freq-time", "time-freq"]


def grid_of(log_mel: Tensor, patch_shape: tuple[int, int]) -> PatchGrid:
    """The grid of whole patches in ``log_mel`` [..., mel, frame]; a rest that fills no patch is not counted.

    Args:
        log_mel: spectrograms.
        patch_shape: (freq, time) of one patch, in mel bands and frames.

    Raises:
        ValueError: less than one patch along an axis.
    """
    mel, frame = log_mel.shape[-2:]
    freq, time = patch_shape
    if mel < freq or frame < time:
        raise ValueError(f"{mel} x {frame} (mel x frame) is smaller than one patch of {freq} x {time}")
    return PatchGrid(mel // freq, frame // time, patch_shape)


def whole_patches(
    log_mel: Float[Tensor, "*b mel frame"], patch_shape: tuple[int, int]
) -> Float[Tensor, "*b high late"]:
    """The part of ``log_mel`` that fills whole patches, as a view: for those who mean to crop before `patchify`.

    Raises:
        ValueError: less than one patch along an axis.

    >>> whole_patches(torch.zeros(80, 623), (16, 16)).shape
    torch.Size([80, 608])
    """
    grid, (freq, time) = grid_of(log_mel, patch_shape), patch_shape
    return log_mel[..., : grid.freq * freq, : grid.time * time]


def patchify(log_mel: Float[Tensor, "b mel frame"], patch_shape: tuple[int, int]) -> Float[Tensor, "b n p"]:
    """Cut spectrograms into patches, in the order of `PatchGrid`; values inside a patch are ordered (freq, time).

    Args:
        log_mel: spectrograms; a rest at the high or late end that fills no patch is cropped, and a warning names it,
            once for each size.
        patch_shape: (freq, time) of one patch, in mel bands and frames.

    Raises:
        ValueError: less than one patch along an axis.

    >>> patchify(torch.zeros(2, 80, 208), (16, 16)).shape
    torch.Size([2, 65, 256])
    """
    grid, (freq, time) = grid_of(log_mel, patch_shape), patch_shape
    _warn_of_rest(log_mel.shape[1], freq, "mel bands")
    _warn_of_rest(log_mel.shape[2], time, "frames")
    blocks = whole_patches(log_mel, patch_shape).reshape(-1, grid.freq, freq, grid.time, time).transpose(2, 3)
    return blocks.reshape(-1, grid.num_patches, freq * time)


@cache
def _warn_of_rest(size: int, step: int, unit: str) -> None:
    """Say what is left out where ``step`` does not divide ``size``; being cached, say it once."""
    if size % step:
        warnings.warn(
            f"{size} {unit} are no multiple of a patch's {step}: {unit} {size - size % step} to {size - 1} "
            "(counted from 0) are left out",
            stacklevel=3,
        )


def unpatchify(patches: Float[Tensor, "b n p"], grid: PatchGrid) -> Float[Tensor, "b mel frame"]:
    """The inverse of `patchify` for inputs that divide into whole patches.

    >>> x = torch.arange(2 * 32 * 48.0).reshape(2, 32, 48)
    >>> torch.equal(unpatchify(patchify(x, (16, 16)), PatchGrid(2, 3)), x)
    True
    """
    freq, time = grid.patch
    blocks = patches.reshape(-1, grid.freq, grid.time, freq, time).transpose(2, 3)
    return blocks.reshape(-1, grid.freq * freq, grid.time * time)


def take(tokens: Float[Tensor, "b n d"], index: Int[Tensor, "b k"]) -> Float[Tensor, "b k d"]:
    """The tokens at ``index`` of each sample."""
    return tokens.gather(1, index[:, :, None].expand(-1, -1, tokens.shape[2]))


def place(
    tokens: Float[Tensor, "b n d"], index: Int[Tensor, "b k"], new: Float[Tensor, "b k d"]
) -> Float[Tensor, "b n d"]:
    """A copy of ``tokens`` with ``new`` at ``index`` of each sample."""
    return tokens.scatter(1, index[:, :, None].expand(-1, -1, tokens.shape[2]), new.to(tokens.dtype))


def valid_patches(num_valid_frames: Int[Tensor, " b"], grid: PatchGrid) -> Bool[Tensor, "b n"]:
    """True for patches with at least one valid frame, False for padding.

    >>> valid_patches(torch.tensor([17, 48]), PatchGrid(1, 3)).tolist()
    [[True, True, False], [True, True, True]]
    """
    start_frame = torch.arange(grid.time, device=num_valid_frames.device) * grid.patch[1]
    return (start_frame < num_valid_frames[:, None]).repeat(1, grid.freq)


def sincos_positions(grid: PatchGrid, dim: int, order: PositionOrder = "freq-time") -> Float[Tensor, "n d"]:
    """Fixed 2-D sine-cosine positions on the (freq, time) grid: one half of the width says freq, the other time.

    Args:
        grid: the patches' grid; any length in time, so longer input only adds positions.
        dim: feature width, a multiple of 4.
        order: which axis the first half of the width says.

    Raises:
        ValueError: dim is not a multiple of 4.

    Source: Vaswani et al. (2017), arXiv 1706.03762, in two dimensions as usual for ViTs (arXiv 2010.11929, 2111.06377).
    Deviates: the first half says freq by default; in the published weights of MSM-MAE and M2D it says time.
    """
    if dim % 4:
        raise ValueError(f"2-D sine-cosine positions need a width that is a multiple of 4, got {dim}")
    rate = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))

    def waves(position: Tensor) -> Tensor:
        angle = position[:, None] * rate
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    freq = torch.arange(grid.freq, dtype=torch.float64).repeat_interleave(grid.time)
    time = torch.arange(grid.time, dtype=torch.float64).repeat(grid.freq)
    halves = (freq, time) if order == "freq-time" else (time, freq)
    return torch.cat([waves(axis) for axis in halves], dim=1).float()
