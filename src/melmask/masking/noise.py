"""Masks from thresholded coloured noise."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from melmask.masking.base import MaskingStrategy
from melmask.types import PatchGrid

Colour = Literal["green", "blue", "red"]

SIDE = 256  # patches along a field's sides, or twice the grid where that is more
SEED = 0
FINE, COARSE = 0.75, 1.5  # standard deviations of the two blurs, in patches


@lru_cache(maxsize=16)
def noise_field(colour: Colour, rows: int, columns: int, device: torch.device) -> Float[Tensor, "rows columns"]:
    """White noise on a torus, filtered; the same whenever it is asked for.

    With G the blurs, red is G_coarse W, green (G_fine - G_coarse) W and blue W - G_fine W: they add up to white noise.
    """
    white = torch.randn(rows, columns, dtype=torch.float64, generator=Generator().manual_seed(SEED))
    frequency = torch.fft.fftfreq(rows).square()[:, None] + torch.fft.rfftfreq(columns).square()
    fine, coarse = (torch.exp(-2 * (torch.pi * sigma) ** 2 * frequency.double()) for sigma in (FINE, COARSE))
    passed = {"red": coarse, "green": fine - coarse, "blue": 1 - fine}[colour]
    return torch.fft.irfft2(torch.fft.rfft2(white) * passed, s=(rows, columns)).float().to(device)


@dataclass(frozen=True)
class ColouredNoise(MaskingStrategy):
    """The highest parts of filtered noise are masked. Data-independent.

    One field of noise is made for a grid, once; each sample takes a random crop of it, flipped at random along either
    axis, and masks where it is highest. The field is a torus, so no crop is likelier than another. Green noise
    (band-pass) masks clusters of some patches with gaps as large between them, blue (high-pass) spreads masked and
    visible patches evenly, red (low-pass) makes large regions. Costs little more than `Random`.

    Args:
        colour: "green", "blue" or "red".

    Raises:
        ValueError: no such colour.

    Source: ColorMAE, arXiv 2407.13036; for audio arXiv 2503.16311, which prefers blue noise. Deviates: the blurs of
    0.75 and 1.5 patches are melmask's own, small enough for grids of few rows; the blue is filtered and not optimised.
    """

    colour: Colour = "green"

    def __post_init__(self) -> None:
        if self.colour not in ("green", "blue", "red"):
            raise ValueError(f'noise has the colours "green", "blue" and "red", got {self.colour!r}')

    def priority(
        self, batch_size: int, grid: PatchGrid, num_masked: int, rng: Generator, guide: Tensor | None
    ) -> Float[Tensor, "b n"]:
        rows, columns = max(SIDE, 2 * grid.freq), max(SIDE, 2 * grid.time)
        field = noise_field(self.colour, rows, columns, rng.device)
        row = self._crop(batch_size, grid.freq, rows, rng)[:, :, None]
        column = self._crop(batch_size, grid.time, columns, rng)[:, None, :]
        return field.take(row * columns + column).reshape(batch_size, -1)

    def _crop(self, batch_size: int, length: int, around: int, rng: Generator) -> Int[Tensor, "b length"]:
        """Consecutive positions on a ring from a random one on, in a random direction."""
        start = torch.randint(around, (batch_size, 1), generator=rng, device=rng.device)
        step = 2 * torch.randint(2, (batch_size, 1), generator=rng, device=rng.device) - 1
        return (start + step * torch.arange(length, device=rng.device)) % around
