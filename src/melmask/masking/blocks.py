"""Masks made of rectangles on the grid."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn.functional import max_pool2d, pad

from melmask.masking.base import Needs, uniform
from melmask.types import PatchGrid


@dataclass(frozen=True)
class InverseBlock:
    """Inverse block masking (IBM): squares around random centres stay *visible*, chance adjusts the count.

    With q the visible share, n = int(N (q + adjust) / side^2) centres are drawn uniformly with replacement; a
    side x side square around each, clipped at the borders, is visible; then uniformly random cells are added or given
    up until the count is exact. On narrow audio grids few centres fit (5 x 38 at r = 0.7: two; 5 x 13 at r = 0.75:
    none, i.e. plain random masking). ``blocks="cover"`` draws centres until their squares cover the visible count
    instead, and only the last square gives up cells. Data-independent.

    Args:
        side: patches along a square's side.
        adjust: added to the visible share when counting centres.
        blocks: "paper" or "cover".

    Raises:
        ValueError: side or adjust is out of range, or blocks is neither form.

    Source: data2vec 2.0, arXiv 2212.07525; defaults of EAT, arXiv 2401.03497. Deviates: "cover" is melmask's own.
    """

    side: int = 5
    adjust: float = 0.07
    blocks: Literal["paper", "cover"] = "paper"
    needs: ClassVar[Needs] = "nothing"

    def __post_init__(self) -> None:
        if self.side < 1 or not 0.0 <= self.adjust < 1.0:
            raise ValueError(f"ibm needs side >= 1 and adjust in [0, 1), got side {self.side}, adjust {self.adjust}")
        if self.blocks not in ("paper", "cover"):
            raise ValueError(f'ibm has blocks "paper" or "cover", got {self.blocks!r}')

    def num_centres(self, grid: PatchGrid, num_masked: int) -> int:
        """How many centres the paper's rule draws on this grid."""
        num_visible = grid.num_patches - num_masked
        return int((num_visible + grid.num_patches * self.adjust) / self.side**2 + 1e-9)

    def priority(
        self, batch_size: int, grid: PatchGrid, num_masked: int, rng: Generator, guide: Tensor | None
    ) -> Float[Tensor, "b n"]:
        noise = uniform((batch_size, grid.num_patches), rng)
        if self.blocks == "paper":
            return noise - self._pool(self._centres(batch_size, grid, num_masked, rng), grid)
        # The first time a cell is covered is the smallest rank among the centres whose square reaches it: a min-pool.
        rank = uniform((batch_size, grid.num_patches), rng).argsort(dim=1).argsort(dim=1).float()
        return noise - self._pool(-rank, grid)

    def _centres(self, batch_size: int, grid: PatchGrid, num_masked: int, rng: Generator) -> Tensor:
        """An image [b, n] with a one at every drawn centre."""
        num_centres = self.num_centres(grid, num_masked)
        drawn = torch.randint(grid.num_patches, (batch_size, num_centres), generator=rng, device=rng.device)
        return torch.zeros(batch_size, grid.num_patches, device=rng.device).scatter_(1, drawn, 1.0)

    def _pool(self, image: Tensor, grid: PatchGrid) -> Tensor:
        """Largest value in the square around each cell, the outside not counted; even sides reach one further back."""
        before, after = self.side // 2, (self.side - 1) // 2
        framed = pad(image.reshape(-1, 1, grid.freq, grid.time), (before, after, before, after), value=-torch.inf)
        return max_pool2d(framed, self.side, stride=1).reshape(len(image), -1)
