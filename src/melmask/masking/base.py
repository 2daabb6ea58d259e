"""How a mask is made: a strategy ranks the patches, hints replace a share of its choice at random, one cut splits them.

A strategy never counts. Because `split` is the only place that cuts, every strategy has exact, fixed counts, and
hints, schedules and validity compose with all of them.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from melmask.types import Mask, PatchGrid

Guide = Literal["nothing", "patches", "features", "attention", "loss"]


@dataclass(frozen=True)
class Needs:
    """What guides a strategy's `priority`.

    Args:
        guide: "nothing"; "patches", their log-mel values; "features" of all patches by an encoder; "attention" that the
            encoder's class token pays to them, a column per head; or the "loss" that the model last had at them, one
            column.
        encoder: whose features or attention: "online", or another of the framework's encoders, such as M2D's "ema".
        smoothing: share of the recorded loss that is kept when a patch gets a new one, in [0, 1).
    """

    guide: Guide = "nothing"
    encoder: str = "online"
    smoothing: float = 0.0


@dataclass(frozen=True, eq=False)
class Seen:
    """What a strategy may learn from: a part of a batch, or a sample of the training data.

    Args:
        patches: the normalised log-mel input.
        grid: its layout.
        valid: False for padding; None if there is none.
        mask: what was masked; None for a sample.
        loss: the model's loss at each masked patch, in the order of ``mask.masked``; None for a sample.
    """

    patches: Float[Tensor, "b n p"]
    grid: PatchGrid
    valid: Bool[Tensor, "b n"] | None = None
    mask: Mask | None = None
    loss: Float[Tensor, "b m"] | None = None


@runtime_checkable
class MaskingStrategy(Protocol):
    """What to mask: subclass it, and define `priority`.

    A strategy is immutable. One that learns during a run returns a new strategy from `start`, `learn` and `restore`;
    the defaults here are those of a strategy that neither needs a guide nor learns.
    """

    @property
    def needs(self) -> Needs:
        """What `priority` is guided by."""
        return Needs()

    @property
    def exponent(self) -> float | None:
        """The exponent of the weights, which a run may anneal; None for a strategy without weights."""
        return None

    @property
    def num_sample_crops(self) -> int:
        """Crops of the training data that `start` needs; with 0 it is not called."""
        return 0

    def priority(
        self, batch_size: int, grid: PatchGrid, num_masked: int, rng: Generator, guide: Float[Tensor, "b n d"] | None
    ) -> Float[Tensor, "b n"]:
        """Rank every patch of every sample: the higher, the sooner it is masked.

        Args:
            batch_size: samples.
            grid: their patches.
            num_masked: how many the cut will mask; only block shapes depend on it.
            rng: the only source of randomness.
            guide: what ``needs`` asks for, or None.
        """
        ...

    def with_exponent(self, exponent: float) -> "MaskingStrategy":
        """The same strategy with another exponent; only for strategies that have one."""
        return dataclasses.replace(self, exponent=exponent)  # type: ignore[type-var]

    def start(self, sample: Seen) -> "MaskingStrategy":
        """The strategy before the first step, from a fixed sample of the training data."""
        return self

    def measure(self, seen: Seen) -> Tensor | None:
        """What one part of a batch teaches, as a tensor of the same shape for every part; None if nothing."""
        return None

    def learn(self, measured: Float[Tensor, "k *shape"]) -> "MaskingStrategy":
        """The strategy after a step, from what `measure` returned for the k parts of all processes."""
        return self

    def state(self) -> dict[str, Tensor]:
        """What it has learnt, for the checkpoint; empty if it learns nothing."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> "MaskingStrategy":
        """The strategy with what `state` returned, as a run resumes."""
        return self


def num_visible_of(num_patches: int, mask_ratio: float) -> int:
    """floor(N (1 - r) + 1e-9): the small term keeps 0.8 from losing a patch to rounding.

    Raises:
        ValueError: the ratio is outside (0, 1), or leaves no patch visible or none masked.

    >>> num_visible_of(190, 0.7), num_visible_of(10, 0.8)
    (57, 2)
    """
    if not 0.0 < mask_ratio < 1.0:
        raise ValueError(f"mask_ratio must lie between 0 and 1, both excluded, got {mask_ratio}")
    num_visible = _floor_visible(num_patches, mask_ratio)
    if not can_mask(num_patches, mask_ratio):
        raise ValueError(
            f"mask_ratio {mask_ratio} of {num_patches} patches leaves {num_visible} visible: "
            "use another ratio or a longer crop"
        )
    return num_visible


def can_mask(num_patches: int, mask_ratio: float) -> bool:
    """Whether the ratio leaves a patch visible and one masked.

    >>> can_mask(5, 0.8), can_mask(5, 0.9)
    (True, False)
    """
    return 0 < _floor_visible(num_patches, mask_ratio) < num_patches


def _floor_visible(num_patches: int, mask_ratio: float) -> int:
    return math.floor(num_patches * (1 - mask_ratio) + 1e-9)


def num_masked_of(num_patches: int, mask_ratio: float) -> int:
    """All patches but the visible ones.

    Raises:
        ValueError: as `num_visible_of`.

    >>> num_masked_of(190, 0.7)
    133
    """
    return num_patches - num_visible_of(num_patches, mask_ratio)


def uniform(shape: tuple[int, ...], rng: Generator) -> Tensor:
    """Uniform noise in [0, 1), drawn where the generator lives so that every device sees the same."""
    return torch.rand(shape, generator=rng, device=rng.device)


def top(priority: Float[Tensor, "b n"], count: int | Int[Tensor, " b"]) -> Bool[Tensor, "b n"]:
    """True for the ``count`` highest of each sample (one count, or one a sample); equal ones go by position.

    Raises:
        ValueError: a priority is NaN, which would be ranked first in silence.
    """
    ascending = _sorted(priority)
    if ascending[:, -1].isnan().any():
        raise ValueError("a masking priority is NaN: check the guide for NaN or infinite values")
    (batch_size, num_patches), device = priority.shape, priority.device
    counts = count[:, None] if isinstance(count, Tensor) else torch.full((batch_size, 1), count, device=device)
    lowest = ascending.gather(1, (num_patches - counts).clamp(max=num_patches - 1))
    chosen = priority >= lowest
    if chosen.sum() > counts.sum():  # equal ones lie on both sides of a cut: the first of them are taken
        above, tied = priority > lowest, priority == lowest
        chosen = above | (tied & (tied.cumsum(dim=1) <= counts - above.sum(dim=1, keepdim=True)))
    return chosen


def _sorted(priority: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """Each sample's values in ascending order, NaN last."""
    if priority.device.type != "cpu" or priority.dtype == torch.bfloat16:
        return priority.sort(dim=1).values
    # numpy sorts bare values with vector instructions, some forty times as fast as torch sorts values with indices.
    return torch.from_numpy(np.sort(priority.detach().numpy(), axis=1))


def _positions(chosen: Bool[Tensor, "b n"]) -> Int[Tensor, "b k"]:
    """Where each sample is True, ascending; every sample must be so equally often."""
    batch_size, num_patches = chosen.shape
    if chosen.device.type != "cpu":
        return chosen.nonzero()[:, 1].reshape(batch_size, -1)
    flat = torch.from_numpy(np.flatnonzero(chosen.numpy())).reshape(batch_size, -1)
    return flat.sub_(torch.arange(batch_size)[:, None] * num_patches)


def break_ties(score: Float[Tensor, "b n"], rng: Generator) -> Float[Tensor, "b n"]:
    """The order of ``score`` with equal scores in random order, so that no position is favoured.

    Random bits fill the 29 bits that float64 has below float32, too few to reach another score. Infinite scores count
    as the largest finite ones.
    """
    largest = torch.finfo(torch.float32).max
    # Adding zero turns -0.0 into the 0.0 that it equals.
    wide = (score.float().clamp(-largest, largest) + 0.0).double()
    bits = torch.randint(2**29, score.shape, generator=rng, device=rng.device).to(score.device)
    return (wide.view(torch.int64) | bits).view(torch.float64)


def split(priority: Float[Tensor, "b n"], num_masked: int) -> Mask:
    """Cut a ranking into a mask: the ``num_masked`` highest of each sample are masked. The only place that cuts.

    Raises:
        ValueError: a priority is NaN.
    """
    masked = top(priority, num_masked)
    return Mask(visible=_positions(~masked), masked=_positions(masked))


def num_hints_of(num_masked: int, hint_ratio: float) -> int:
    """u = floor(m h): how many masked patches are replaced at random.

    Raises:
        ValueError: the hint ratio is outside [0, 1].
    """
    check_hint_ratio(hint_ratio)
    return math.floor(num_masked * hint_ratio + 1e-9)


def check_hint_ratio(hint_ratio: float) -> None:
    """Raise ValueError unless the hint ratio lies in [0, 1]."""
    if not 0.0 <= hint_ratio <= 1.0:
        raise ValueError(f"hint_ratio must lie in [0, 1], got {hint_ratio}")


def with_hints(
    priority: Float[Tensor, "b n"], num_masked: int | Int[Tensor, " b"], hint_ratio: float, rng: Generator
) -> Float[Tensor, "b n"]:
    """Replace a share of an informed mask at random; the result is a ranking again, to be cut at ``num_masked``.

    Of the informed choice M0 (the ``num_masked`` highest) a uniform subset S of m - u patches stays masked, and a
    uniform u-subset of all patches outside S joins it, with u = floor(m h). At h = 1 the mask is exactly uniform.

    Args:
        priority: an informed strategy's ranking.
        num_masked: m, the cut it is meant for; one for all samples, or one a sample.
        hint_ratio: h in [0, 1].
        rng: the only source of randomness.

    Raises:
        ValueError: the hint ratio is outside [0, 1].

    Source: arXiv 2603.23810 ("hints"). Deviates: not at all. As in its published code, the new masked patches may come
    from M0's given-back part too, so that h = 1 is uniform random masking without a special case.
    """
    check_hint_ratio(hint_ratio)
    if hint_ratio == 0:
        return priority
    if isinstance(num_masked, int):
        num_stay: int | Tensor = num_masked - num_hints_of(num_masked, hint_ratio)
    else:
        num_stay = num_masked - (num_masked.double() * hint_ratio + 1e-9).floor().long()
    noise = uniform((2, *priority.shape), rng).to(priority.device)
    informed = top(priority, num_masked)
    stays = top(noise[0] - (~informed).float(), num_stay)
    return noise[1] + 2.0 * stays


def num_valid_masked_of(valid: Bool[Tensor, "b n"], num_masked: int) -> Int[Tensor, " b"]:
    """How many valid patches are masked in each sample: k - floor(k V / N) of its k valid patches."""
    num_valid, num_patches = valid.sum(dim=1), valid.shape[1]
    return num_valid - num_valid * (num_patches - num_masked) // num_patches


def within_valid(
    priority: Float[Tensor, "b n"], valid: Bool[Tensor, "b n"], num_masked: int, rng: Generator
) -> Float[Tensor, "b n"]:
    """Split the cut between valid patches and padding in proportion.

    Valid patches are masked by their ranking, padding at random. Without this, an informed strategy that ranks padding
    last would mask valid patches only and leave mostly padding visible.
    """
    num_valid_masked = num_valid_masked_of(valid, num_masked)
    sound = top(priority.masked_fill(~valid, -torch.inf), num_valid_masked)
    noise = uniform(priority.shape, rng).to(priority.device)
    padding = top(noise - valid.float(), num_masked - num_valid_masked)
    return (sound | padding).float()
