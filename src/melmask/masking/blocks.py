"""Masks made of rectangles on the grid: inverse blocks, which stay visible, and blocks, which are masked."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn.functional import pad

from melmask.masking.base import MaskingStrategy, break_ties, uniform
from melmask.types import PatchGrid

MAX_BLOCKS = 62  # one bit of an int64 each


def sliding_max(image: Tensor, size: int, dim: int) -> Tensor:
    """Largest of every ``size`` neighbours along a dimension, which gets size - 1 shorter.

    Twice as many neighbours are compared by every step.
    """
    width = 1
    while width < size:
        step = min(width, size - width)
        length = image.shape[dim] - step
        image = torch.maximum(image.narrow(dim, 0, length), image.narrow(dim, step, length))
        width += step
    return image


@dataclass(frozen=True)
class InverseBlock(MaskingStrategy):
    """Inverse block masking (IBM): squares around random centres stay *visible*, random cells adjust the count.

    With q the visible share, n = int(N (q + adjust) / side^2) centres are drawn uniformly with replacement; a
    side x side square around each, clipped at the borders, is visible; then uniformly random cells are added or given
    up until the count is exact. On narrow audio grids few centres fit (5 x 38 at r = 0.7: two; 5 x 13 at r = 0.75:
    none, i.e. plain random masking). ``blocks="cover"`` draws centres until their squares cover the visible count
    instead, and only the last square gives up cells. Data-independent; costs twice `Random`.

    Args:
        side: patches along a square's side.
        adjust: added to the visible share when counting centres.
        blocks: "paper" or "cover".
        time_side: patches along time, which makes the squares rectangles of side x time_side; 0 keeps them square.

    Raises:
        ValueError: a side or adjust is out of range, or blocks is neither form.

    Source: data2vec 2.0, arXiv 2212.07525; defaults of EAT, arXiv 2401.03497. Deviates: "cover" and rectangles are
    melmask's own.
    """

    side: int = 5
    adjust: float = 0.07
    blocks: Literal["paper", "cover"] = "paper"
    time_side: int = 0

    def __post_init__(self) -> None:
        if self.side < 1 or not 0.0 <= self.adjust < 1.0:
            raise ValueError(f"ibm needs side >= 1 and adjust in [0, 1), got side {self.side}, adjust {self.adjust}")
        if self.time_side < 0:
            raise ValueError(f"ibm needs time_side >= 1, or 0 for squares, got {self.time_side}")
        if self.blocks not in ("paper", "cover"):
            raise ValueError(f'ibm has blocks "paper" or "cover", got {self.blocks!r}')

    def num_centres(self, grid: PatchGrid, num_masked: int) -> int:
        """How many centres the paper's rule draws on this grid."""
        num_visible = grid.num_patches - num_masked
        area = self.side * (self.time_side or self.side)
        return int((num_visible + grid.num_patches * self.adjust) / area + 1e-9)

    def priority(
        self, batch_size: int, grid: PatchGrid, num_masked: int, rng: Generator, guide: Tensor | None
    ) -> Float[Tensor, "b n"]:
        if self.blocks == "paper":
            centres = self._centres(batch_size, grid, num_masked, rng)
        else:  # all cells are centres, the highest first: a cell is visible as early as the first to reach it
            centres = uniform((batch_size, grid.num_patches), rng)
        return break_ties(-self.pool(centres, grid), rng)

    def _centres(self, batch_size: int, grid: PatchGrid, num_masked: int, rng: Generator) -> Float[Tensor, "b n"]:
        """One at every drawn centre, else zero."""
        num_centres = self.num_centres(grid, num_masked)
        drawn = torch.randint(grid.num_patches, (batch_size, num_centres), generator=rng, device=rng.device)
        return torch.zeros(batch_size, grid.num_patches, device=rng.device).scatter_(1, drawn, 1.0)

    def pool(self, centres: Float[Tensor, "b n"], grid: PatchGrid) -> Float[Tensor, "b n"]:
        """Largest value among the centres whose block reaches a cell; even sides reach one further forward."""
        # A side longer than the grid reaches all of it from everywhere, as one of twice the grid does.
        rows, columns = min(self.side, 2 * grid.freq), min(self.time_side or self.side, 2 * grid.time)
        frame = (columns // 2, (columns - 1) // 2, rows // 2, (rows - 1) // 2)
        image = pad(centres.view(-1, grid.freq, grid.time), frame)
        return sliding_max(sliding_max(image, columns, dim=2), rows, dim=1).reshape(len(centres), -1)


@dataclass(frozen=True)
class Blockwise(MaskingStrategy):
    """Blockwise masking: rectangles of random size, shape and place are *masked* in turn. Data-independent.

    A block takes a uniform share of what the blocks before it have left of the count, or the smallest area where that
    is more; its aspect, rows over columns, is log-uniform between ``aspect`` and its inverse, and where the grid is
    too narrow for it the block is longer instead; its place is uniform. Small blocks follow until overlaps are made
    up for. The block at the cut is masked in part, in random order, as is what no block reaches (in some samples, from
    r = 0.9 on).

    Time is a ring: a block that crosses the end wraps around, so that every column is masked equally often. Inside the
    borders, as rows always are, blocks favour the middle: at r = 0.7 on 5 x 38 the first column is masked with
    probability 0.2 and the middle one with 0.9. Costs three to four times `Random`.

    Args:
        smallest: share of the grid's patches in the smallest block; the paper's 16 of 14 x 14.
        aspect: the flattest block's rows over columns.
        ring: False keeps blocks inside the borders of time, as the paper does those of images.

    Raises:
        ValueError: smallest or aspect is out of range.

    Source: BEiT, arXiv 2106.08254, Algorithm 1. Deviates: what is left is counted as if blocks did not overlap, so
    that all are drawn at once; areas under the smallest are raised to it; sides are fitted to narrow grids; the ring;
    exact counts.
    """

    smallest: float = 16 / 196
    aspect: float = 0.3
    ring: bool = True

    def __post_init__(self) -> None:
        if not 0.0 < self.smallest <= 1.0 or not 0.0 < self.aspect <= 1.0:
            raise ValueError(
                f"block needs smallest and aspect in (0, 1], got smallest {self.smallest}, aspect {self.aspect}"
            )

    def priority(
        self, batch_size: int, grid: PatchGrid, num_masked: int, rng: Generator, guide: Tensor | None
    ) -> Float[Tensor, "b n"]:
        num_blocks = self.num_blocks(grid, num_masked)
        share, shape, down, along = uniform((4, batch_size, num_blocks), rng)
        area = self._areas(share, grid, num_masked)
        height = area.sqrt() * torch.exp(math.log(self.aspect) * (shape - 0.5))
        height = (torch.maximum(height, area / grid.time).clamp(max=grid.freq) + 0.5).floor().clamp(min=1)
        width = (area / height + 0.5).floor().clamp(1, grid.time)
        rows, columns = blocks_at(down, height, grid.freq), blocks_at(along, width, grid.time, self.ring)
        blocks = (rows[:, :, None] & columns[:, None, :]).view(batch_size, -1)
        first = torch.where(blocks == 0, 1 << num_blocks, blocks & -blocks)  # of several bits the lowest alone
        return break_ties(-first.float(), rng)

    def num_blocks(self, grid: PatchGrid, num_masked: int) -> int:
        """Blocks to draw: 2.5 times as many of the smallest as leave the visible share uncovered on average."""
        visible_share = 1 - num_masked / grid.num_patches
        return min(MAX_BLOCKS, math.ceil(-2.5 * math.log(visible_share) / self.smallest))

    def _areas(self, share: Float[Tensor, "b k"], grid: PatchGrid, num_masked: int) -> Float[Tensor, "b k"]:
        """Each block's share of what is left, or the smallest area."""
        left = num_masked * torch.cat([torch.ones_like(share[:, :1]), (1 - share).cumprod(dim=1)], dim=1)
        return (left[:, :-1] - left[:, 1:]).clamp(min=self.smallest * grid.num_patches)


def blocks_at(
    place: Float[Tensor, "b k"], size: Float[Tensor, "b k"], length: int, ring: bool = False
) -> Int[Tensor, "b length"]:
    """Which blocks hold each position along one side of the grid: bit k for block k.

    Args:
        place: uniform in [0, 1), from a block's first possible position to its last.
        size: positions that a block holds.
        length: positions there are.
        ring: blocks may begin anywhere and wrap around.
    """
    starts = length if ring else length - size + 1
    start = (place * starts).long()
    bit = (1 << torch.arange(place.shape[1], device=place.device)).expand_as(start)
    change = torch.zeros(len(place), 2 * length, dtype=torch.int64, device=place.device)
    change.scatter_add_(1, start, bit).scatter_add_(1, start + size.long(), -bit)
    held = change.cumsum(dim=1)
    return held[:, :length] | held[:, length:]
