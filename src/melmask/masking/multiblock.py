"""Masks made of a few large blocks."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from melmask.masking.base import MaskingStrategy, break_ties, uniform
from melmask.types import PatchGrid

SCALES = (0.15, 0.2)
ASPECTS = (0.75, 1.5)


@dataclass(frozen=True)
class MultiBlock(MaskingStrategy):
    """A few large target blocks are *masked*, and all the rest is their context. Data-independent.

    Each target has a random size relative to the others, a random aspect relative to the grid's own, and a uniform
    place. They grow together, each around a fixed point, until exactly m patches are masked; what the last step
    reaches is masked in part, in random order.

    Time is a ring: a target that crosses the end wraps around, so that every column is masked equally often. Inside the
    borders, as rows always are, targets favour the middle: at r = 0.7 on 5 x 38 the first column is masked with
    probability 0.1 and the middle one with 0.9. Costs about three times `Random`.

    Args:
        targets: blocks in a sample.
        ring: False keeps targets inside the borders of time, as the paper does those of images.

    Raises:
        ValueError: there is no target.

    Source: I-JEPA, arXiv 2301.08243 (4 targets of 0.15 to 0.2 of the image with aspects of 0.75 to 1.5). Deviates:
    the scales keep their ratios and grow to the mask ratio; each target has a size of its own; aspects are scaled by
    the grid's; the ring; the context is all the rest and not one block of it.
    """

    targets: int = 4
    ring: bool = True

    def __post_init__(self) -> None:
        if self.targets < 1:
            raise ValueError(f"multiblock needs at least 1 target, got {self.targets}")

    def priority(
        self, batch_size: int, grid: PatchGrid, num_masked: int, rng: Generator, guide: Tensor | None
    ) -> Float[Tensor, "b n"]:
        scale, shape, down, along = uniform((4, self.targets, batch_size, 1), rng)
        scale = SCALES[0] + (SCALES[1] - SCALES[0]) * scale
        aspect = (ASPECTS[0] + (ASPECTS[1] - ASPECTS[0]) * shape) * grid.freq / grid.time
        rows = area_to_reach(reach(down, grid.freq), aspect, grid.time) / scale
        columns = area_to_reach(reach(along, grid.time, self.ring), 1 / aspect, grid.freq) / scale
        reached = torch.full((batch_size, grid.freq, grid.time), torch.inf, device=rng.device)
        for row, column in zip(rows, columns, strict=True):
            reached = torch.minimum(reached, torch.maximum(row[:, :, None], column[:, None, :]))
        return break_ties(-reached.reshape(batch_size, -1), rng)


def reach(place: Float[Tensor, "k b 1"], length: int, ring: bool = False) -> Float[Tensor, "k b length"]:
    """How many positions a block must have to reach each of them: 1 where it begins to grow.

    On a ring it grows alike in both directions. Between borders, one of s positions begins at
    place * (length - s + 1), rounded down.

    Args:
        place: uniform in [0, 1): where on the ring, or among the places between the borders, the block is.
        length: positions there are.
        ring: the first position follows the last.
    """
    origin, position = place * length, torch.arange(length, device=place.device)
    if ring:
        apart = (position + 0.5 - origin).abs()
        return (2 * torch.minimum(apart, length - apart)).clamp(min=1)
    backward, forward = (origin - (position + 1)) / place, (position - origin) / (1 - place)
    return 1 + torch.maximum(backward, forward).clamp(min=0)


def area_to_reach(
    size: Float[Tensor, "k b length"], aspect: Float[Tensor, "k b 1"], across: int
) -> Float[Tensor, "k b length"]:
    """The area from which on a block has this size along one axis.

    A block of area A is sqrt(A aspect) long, unless it would be less than one patch or more than ``across`` wide.
    """
    area = torch.maximum(size, torch.minimum(size.square() / aspect, size * across))
    return torch.where(size > 1, area, 1.0)
