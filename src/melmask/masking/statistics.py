"""How much the values inside a patch vary, by seven statistics, each in one pass over the batch."""

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

Statistic = Literal["mad", "variance", "iqr", "range", "entropy", "flux", "contrast"]

# Values in flight at a time: 4 MB stay in a processor's cache; a GPU wants more work at once.
CPU_CHUNK, GPU_CHUNK = 2**20, 2**24


@torch.no_grad()
def dispersion(
    patches: Float[Tensor, "b n p"], statistic: Statistic = "mad", patch: tuple[int, int] | None = None
) -> Float[Tensor, "b n"]:
    """How much the values inside each patch vary, in float32 whatever the input's type.

    All statistics are at least zero, exactly zero on constant patches, independent of a patch's level, and change by a
    common factor (entropy: not at all) when all patches are scaled. With x the p values of a patch and d = x - mean(x):

    - "mad": mean |d|; "variance": mean d².
    - "iqr": upper minus lower quartile of x, linearly interpolated; "range": largest minus smallest.
    - "contrast": mean of the highest fifth of x minus mean of the lowest fifth (at least one value each), the spectral
      contrast of Jiang et al. (2002) inside a patch.
    - "flux": mean |x[f, t + 1] - x[f, t]|, from each frame of the patch to the next.
    - "entropy": -Σ q log q of the shares q = |d| / Σ |d|, in nats: how evenly the patch deviates, up to log p, and not
      how much; noise is high however faint, a lone click low.

    The batch goes through in chunks that fit the cache, so that memory is read once and nothing of the batch's size is
    written. "variance", "range" and "flux" cost about as much as "mad"; "iqr" and "contrast", which sort, twice that;
    "entropy" five times, for its logarithms.

    Args:
        patches: values of a patch ordered (freq, time).
        statistic: which.
        patch: shape (freq, time) of a patch, in mel bands and frames, which only "flux" depends on; None: square.

    Raises:
        ValueError: a value is NaN or infinite; or for "flux", the patches do not have that shape, or only one frame.
    """
    batch_size, num_patches, num_values = patches.shape
    frames = frames_of(num_values, patch) if statistic == "flux" else 0
    chunk = (CPU_CHUNK if patches.device.type == "cpu" else GPU_CHUNK) // (num_patches * num_values)
    size = min(max(chunk, 1), max(batch_size, 1))
    scratch = torch.empty(size, num_patches, num_values, device=patches.device)
    weight = torch.empty(batch_size, num_patches, device=patches.device)
    for start in range(0, batch_size, size):
        part = patches[start : start + size].float()
        # Measured from a value of its own, a constant patch is exactly zero; around its rounded mean it is not.
        values = torch.sub(part, part[:, :, :1], out=scratch[: len(part)])
        weight[start : start + size] = _MEASURES[statistic](values, frames)
    if not weight.isfinite().all():
        sample = int((~weight.isfinite()).any(dim=1).nonzero()[0, 0])
        raise ValueError(f"sample {sample} of the guide holds NaN, infinite or overflowing values: repair that input")
    return weight


def frames_of(num_values: int, patch: tuple[int, int] | None) -> int:
    """Frames of a patch of that shape, or of a square one.

    Raises:
        ValueError: a patch of that shape does not hold that many values, or has only one frame.
    """
    freq, time = patch or (math.isqrt(num_values), math.isqrt(num_values))
    if num_values != freq * time:
        raise ValueError(f"patches of {num_values} values are not {freq} x {time}: name their shape in the PatchGrid")
    if time < 2:
        raise ValueError("flux needs patches of at least two frames: use longer patches or another statistic")
    return time


# Each takes values [b, n, p] that it may overwrite, and the frames of a patch.


def _mad(values: Tensor, frames: int) -> Tensor:
    values -= values.mean(dim=2, keepdim=True)
    return values.abs_().mean(dim=2)


def _variance(values: Tensor, frames: int) -> Tensor:
    values -= values.mean(dim=2, keepdim=True)
    return values.square_().mean(dim=2)


def _iqr(values: Tensor, frames: int) -> Tensor:
    ascending = _sort(values)
    last = values.shape[2] - 1

    def quantile(share: float) -> Tensor:
        below, part = divmod(share * last, 1)
        return torch.lerp(ascending[:, :, int(below)], ascending[:, :, min(int(below) + 1, last)], part)

    # NaN and infinities sort to the ends, where quartiles do not see them; their difference times zero is NaN.
    return quantile(0.75) - quantile(0.25) + 0.0 * (ascending[:, :, last] - ascending[:, :, 0])


def _range(values: Tensor, frames: int) -> Tensor:
    return values.amax(dim=2) - values.amin(dim=2)


def _entropy(values: Tensor, frames: int) -> Tensor:
    values -= values.mean(dim=2, keepdim=True)
    total = values.abs_().sum(dim=2, keepdim=True)
    values /= total.clamp(min=torch.finfo(torch.float32).tiny)
    return torch.special.entr(values, out=values).sum(dim=2)


def _flux(values: Tensor, frames: int) -> Tensor:
    image = values.view(*values.shape[:2], -1, frames)
    steps = image[..., 1:] - image[..., :-1]
    return steps.abs_().mean(dim=(2, 3))


def _contrast(values: Tensor, frames: int) -> Tensor:
    ascending, fifth = _sort(values), max(values.shape[2] // 5, 1)
    return ascending[:, :, -fifth:].mean(dim=2) - ascending[:, :, :fifth].mean(dim=2)


def _sort(values: Tensor) -> Tensor:
    """Each patch's values ascending, NaN last."""
    if values.device.type != "cpu":
        return values.sort(dim=2).values
    values.numpy().sort(axis=2)  # in place; with vector instructions, some fifty times as fast as torch's
    return values


_MEASURES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "mad": _mad,
    "variance": _variance,
    "iqr": _iqr,
    "range": _range,
    "entropy": _entropy,
    "flux": _flux,
    "contrast": _contrast,
}
STATISTICS: tuple[str, ...] = get_args(Statistic)
