"""Masks made of whole columns (time steps) and whole rows (bands) of the grid."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from melmask.masking.base import MaskingStrategy, break_ties, uniform
from melmask.types import PatchGrid


def shuffled(batch_size: int, count: int, rng: Generator) -> Int[Tensor, "b count"]:
    """A uniform random order of 0..count-1 for every sample."""
    return uniform((batch_size, count), rng).argsort(dim=1)


def on_grid(score: Tensor, grid: PatchGrid) -> Float[Tensor, "b n"]:
    """Scores [b, freq or 1, time or 1] spread over all patches."""
    return score.expand(-1, grid.freq, grid.time).reshape(len(score), -1).float()


@dataclass(frozen=True)
class TimeLines(MaskingStrategy):
    """Whole columns, time steps with all their bands, are masked in random order. Data-independent.

    The column at the cut is masked in part, in random order, so that the count is exact. Every column, and so every
    patch, is masked equally often. Costs two to three times `Random`.

    Source: "time" of the structured maskings in AudioMAE, arXiv 2207.06405. Deviates: exact counts by the cut column.
    """

    def priority(
        self, batch_size: int, grid: PatchGrid, num_masked: int, rng: Generator, guide: Tensor | None
    ) -> Float[Tensor, "b n"]:
        return break_ties(on_grid(shuffled(batch_size, grid.time, rng)[:, None, :], grid), rng)


@dataclass(frozen=True)
class FreqLines(MaskingStrategy):
    """Whole rows, bands with all their time steps, are masked in random order. Data-independent.

    The row at the cut is masked in part, in random order, so that the count is exact. On five rows at r = 0.7 that is
    three rows and a half; on one row it is random masking. Costs twice `Random`.

    Source: "frequency" of the structured maskings in AudioMAE, arXiv 2207.06405. Deviates: exact counts by the cut row.
    """

    def priority(
        self, batch_size: int, grid: PatchGrid, num_masked: int, rng: Generator, guide: Tensor | None
    ) -> Float[Tensor, "b n"]:
        return break_ties(on_grid(shuffled(batch_size, grid.freq, rng)[:, :, None], grid), rng)


@dataclass(frozen=True)
class TimeFreqLines(MaskingStrategy):
    """Whole columns and whole rows are masked in one random order of them all. Data-independent.

    Each of the freq + time lines is equally likely to be next. As many patches lie in all rows as in all columns, so
    neither direction takes more of the mask. What the line at the cut adds is masked in part, in random order. Costs
    about three times `Random`.

    Source: the time and frequency masks of SpecAugment, arXiv 1904.08779, on patches. Deviates: lines one patch wide,
    as many as the count needs; `TimeProduct` is AudioMAE's form.
    """

    def priority(
        self, batch_size: int, grid: PatchGrid, num_masked: int, rng: Generator, guide: Tensor | None
    ) -> Float[Tensor, "b n"]:
        row, column = shuffled(batch_size, grid.freq + grid.time, rng).split([grid.freq, grid.time], dim=1)
        return break_ties(on_grid(torch.maximum(row[:, :, None], column[:, None, :]), grid), rng)


@dataclass(frozen=True)
class TimeProduct(MaskingStrategy):
    """What is visible are the crossings of visible rows and visible columns, both chosen at random. Data-independent.

    Of the visible share q, the rows get q^(1 - balance) and the columns q^balance. The rows' share is rounded to whole
    rows, and then columns become visible in these rows, one after the other, until the count is exact; the last of
    them in part, at random patches. On one row, or at balance 1, this is `TimeLines`. Costs about
    three times `Random`.

    Args:
        balance: how much of the masking is done along time; 0.5 masks rows and columns at the same rate.

    Raises:
        ValueError: balance is outside [0, 1].

    Source: "time+frequency" of AudioMAE, arXiv 2207.06405, whose two rates are set independently. Deviates: the rates
    follow from the mask ratio and the balance, and the count is exact.
    """

    balance: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.balance <= 1.0:
            raise ValueError(f"time_product needs balance in [0, 1], 0.5 for equal rates, got {self.balance}")

    def num_visible_rows(self, grid: PatchGrid, num_masked: int) -> int:
        """The rows' share in whole rows: enough to hold all visible patches, and none that would hold nothing."""
        num_visible = grid.num_patches - num_masked
        share = (num_visible / grid.num_patches) ** (1 - self.balance)
        fewest, most = math.ceil(num_visible / grid.time), min(grid.freq, num_visible)
        return min(max(round(grid.freq * share), fewest), most)

    def priority(
        self, batch_size: int, grid: PatchGrid, num_masked: int, rng: Generator, guide: Tensor | None
    ) -> Float[Tensor, "b n"]:
        row = shuffled(batch_size, grid.freq, rng)[:, :, None]
        column = shuffled(batch_size, grid.time, rng)[:, None, :]
        visible_row = row < self.num_visible_rows(grid, num_masked)
        return break_ties(on_grid(torch.where(visible_row, column, grid.time), grid), rng)
