"""Uniform random masks."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Generator, Tensor

from melmask.masking.base import MaskingStrategy, uniform
from melmask.types import PatchGrid


@dataclass(frozen=True)
class Random(MaskingStrategy):
    """Every set of m patches is equally likely. Data-independent.

    Source: MAE, arXiv 2111.06377. Deviates: not at all.
    """

    def priority(
        self, batch_size: int, grid: PatchGrid, num_masked: int, rng: Generator, guide: Tensor | None
    ) -> Float[Tensor, "b n"]:
        return uniform((batch_size, grid.num_patches), rng)
