"""Masks made of small squares."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from melmask.masking.base import MaskingStrategy, break_ties, uniform
from melmask.masking.blocks import sliding_max
from melmask.types import PatchGrid


@dataclass(frozen=True)
class Cluster(MaskingStrategy):
    """Squares of patches at random places are *masked*, one after the other, of one size in a sample. Data-independent.

    The side is uniform from ``smallest`` to ``largest``. A square may extend beyond the borders as long as it
    holds a patch, and is clipped there: every patch lies in equally many squares, so borders are masked as often as the
    middle.
    The square at the cut is masked in part, in random order. Costs three to four times `Random`.

    Args:
        smallest: patches along the side of the smallest squares.
        largest: patches along the side of the largest squares.

    Raises:
        ValueError: the sides are out of order or below 1.

    Source: SSAST, arXiv 2110.09784, Algorithm 1 (sides of 3 to 5). Deviates: squares extend beyond the first row
    and column too; the same place is not drawn twice; exact counts.
    """

    smallest: int = 3
    largest: int = 5

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.largest:
            raise ValueError(f"cluster needs 1 <= smallest <= largest, got {self.smallest} and {self.largest}")

    def priority(
        self, batch_size: int, grid: PatchGrid, num_masked: int, rng: Generator, guide: Tensor | None
    ) -> Float[Tensor, "b n"]:
        side = torch.randint(self.smallest, self.largest + 1, (batch_size, 1, 1), generator=rng, device=rng.device)
        # The last rows and columns of a square, wherever it can be: the highest is drawn first.
        squares = uniform((batch_size, grid.freq + self.largest - 1, grid.time + self.largest - 1), rng)
        score = torch.zeros(batch_size, grid.freq, grid.time, device=rng.device)
        for size in range(self.smallest, self.largest + 1):
            reaching = squares[:, : grid.freq + size - 1, : grid.time + size - 1]
            first = sliding_max(sliding_max(reaching, size, dim=1), size, dim=2)
            score = torch.where(side == size, first, score)
        return break_ties(score.reshape(batch_size, -1), rng)
