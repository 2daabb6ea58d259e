"""Masks drawn to where a spectrogram varies."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from melmask.masking.base import Needs, break_ties
from melmask.types import PatchGrid


def dispersion(patches: Float[Tensor, "b n p"], statistic: Literal["mad", "variance"]) -> Float[Tensor, "b n"]:
    """How much the values inside each patch vary: mean absolute deviation around their mean, or variance.

    Computed in float32 whatever the input's type.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    values = patches.float()
    # Measured from a value of its own, a constant patch is exactly zero everywhere; around its rounded mean it is not.
    values = values - values[:, :, :1]
    deviation = values - values.mean(dim=2, keepdim=True)
    weight = deviation.abs().mean(dim=2) if statistic == "mad" else deviation.square().mean(dim=2)
    if not weight.isfinite().all():
        sample = int((~weight.isfinite()).any(dim=1).nonzero()[0, 0])
        raise ValueError(f"sample {sample} of the guide holds NaN, infinite or overflowing values: repair that input")
    return weight


@dataclass(frozen=True)
class Dispersion:
    """Dispersion-weighted masking (DWM): patches whose log-mel values vary more are masked more often. Input-dependent.

    M0 is a weighted sample of m patches without replacement (successive sampling) with the dispersions as weights. As
    a ranking this is log w_i + Gumbel noise, whose m highest *are* such a sample. Patches without any dispersion
    (digital silence) follow after all others, in random order. Costs one pass over the patches.

    Args:
        statistic: "mad", mean absolute deviation around the patch's mean, or "variance".
        deterministic: mask the largest weights instead of sampling; equal ones in random order.

    Raises:
        ValueError: unknown statistic; the guide is missing or not finite.

    Source: arXiv 2603.23810. Deviates: not at all; the Gumbel form (Efraimidis and Spirakis 2006) samples the same law.
    """

    statistic: Literal["mad", "variance"] = "mad"
    deterministic: bool = False
    needs: ClassVar[Needs] = "patches"

    def __post_init__(self) -> None:
        if self.statistic not in ("mad", "variance"):
            raise ValueError(f'dwm has the statistics "mad" and "variance", got {self.statistic!r}')

    def priority(
        self, batch_size: int, grid: PatchGrid, num_masked: int, rng: Generator, guide: Tensor | None
    ) -> Float[Tensor, "b n"]:
        assert guide is not None  # draw() has checked it
        weight = dispersion(guide, self.statistic)
        if self.deterministic:
            return break_ties(weight, rng)
        # Minus the log of an exponential is Gumbel noise. The floor ranks zero weights below all others, by chance.
        floor = torch.finfo(torch.float32).tiny
        exponential = torch.empty(batch_size, grid.num_patches, device=rng.device).exponential_(generator=rng)
        return weight.clamp(min=floor).log() - exponential.clamp(min=floor).log().to(weight.device)
