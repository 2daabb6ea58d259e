"""Masks made of spans of time."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from melmask.masking.base import MaskingStrategy, break_ties
from melmask.masking.lines import on_grid, shuffled
from melmask.types import PatchGrid


def spread_on_ring(order: Int[Tensor, "b t"], length: int, slope: int) -> Int[Tensor, "b t"]:
    """Smallest order[t - o] + slope * o over the offsets o < length, where time wraps around.

    Every step covers twice as many offsets.
    """
    width = 1
    while width < length:
        step = min(width, length - width)
        order = torch.minimum(order, order.roll(step, dims=1) + slope * step)
        width += step
    return order


@dataclass(frozen=True)
class Spans(MaskingStrategy):
    """Spans of consecutive columns are masked, with all their bands. Data-independent.

    Spans start at random columns, one after the other, until the count is reached; the last one is cut short, and its
    last column is masked in part, at random patches. Time is a ring here: a span that crosses the end wraps
    around, so every column is masked equally often, which is not so for spans that stop at the end. Costs about three
    times `Random`.

    ``starts="wav2vec2"`` draws a fixed number of starts instead, so many that their overlapping spans mask r of all
    columns on average, and then random columns are added or given up until the count is exact.

    Args:
        length: columns in a span, all of them at most. 3 columns of 16 frames of 10 ms are 0.5 s.
        starts: "cover" or "wav2vec2".

    Raises:
        ValueError: length is below 1, or starts is neither form.

    Source: wav2vec 2.0, arXiv 2006.11477, whose spans are 10 steps of 20 ms. Deviates: the ring, exact counts, and the
    starts follow from the mask ratio; "cover" and the default length are melmask's own.
    """

    length: int = 3
    starts: Literal["cover", "wav2vec2"] = "cover"

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"spans need a length of at least 1 column, got {self.length}")
        if self.starts not in ("cover", "wav2vec2"):
            raise ValueError(f'spans have starts "cover" or "wav2vec2", got {self.starts!r}')

    def num_starts(self, grid: PatchGrid, num_masked: int) -> int:
        """How many starts "wav2vec2" draws: each column with probability p, so that 1 - (1 - p)^length is r."""
        visible_share = 1 - num_masked / grid.num_patches
        return max(1, round(grid.time * (1 - visible_share ** (1 / min(self.length, grid.time)))))

    def priority(
        self, batch_size: int, grid: PatchGrid, num_masked: int, rng: Generator, guide: Tensor | None
    ) -> Float[Tensor, "b n"]:
        length, start = min(self.length, grid.time), shuffled(batch_size, grid.time, rng)
        if self.starts == "cover":  # the columns of the first span in their order, then those of the second, ...
            order = spread_on_ring(start * length, length, slope=1)
        else:
            outside = spread_on_ring((start >= self.num_starts(grid, num_masked)).long(), length, slope=0)
            order = outside * grid.time + shuffled(batch_size, grid.time, rng)
        return break_ties(on_grid(-order[:, None, :], grid), rng)
