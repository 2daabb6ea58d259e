"""Masks that prefer the patches whose values vary most, or avoid them."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from melmask.masking.base import MaskingStrategy, Needs, break_ties, uniform
from melmask.masking.blocks import InverseBlock
from melmask.masking.statistics import STATISTICS, Statistic, dispersion
from melmask.types import PatchGrid

# With a larger exponent, float32 cannot tell the sample from the deterministic choice.
MAX_EXPONENT = 100.0
BEYOND = 1e30  # larger than any logarithm of a weight to a power, also when multiplied by the smallest noise
NONZERO = 1e-9  # less than the steps of uniform noise, and not zero


def successive_order(weight: Float[Tensor, "b n"], exponent: float, rng: Generator) -> Float[Tensor, "b n"]:
    """A ranking whose m highest are drawn one after the other without replacement, by weight^exponent (any m).

    That is exponent * log w_i + Gumbel noise (Efraimidis and Spirakis 2006). Weights of zero follow after all others,
    in random order, and come first if the exponent is negative; at exponent 0 all are alike. An infinite exponent
    ranks by weight, equal ones in random order.

    Args:
        weight: finite and not negative.
        exponent: of either sign.
        rng: the only source of randomness.
    """
    if math.isinf(exponent):
        return break_ties(weight * math.copysign(1.0, exponent), rng)
    # Minus the log of uniform noise is an exponential, and minus its log again is Gumbel noise.
    exponential = -uniform(tuple(weight.shape), rng).clamp_(min=NONZERO).log_().to(weight.device)
    if exponent == 0:
        return -exponential
    order = exponent * weight.log() - exponential.log()
    return torch.where(weight == 0, exponential * -math.copysign(BEYOND, exponent), order)  # NaN stays NaN


def check_exponent(name: str, exponent: float) -> None:
    """Raise ValueError unless weights can be taken to that power."""
    if not (0.0 <= exponent <= MAX_EXPONENT or exponent == math.inf):
        raise ValueError(
            f"{name} takes an exponent from 0 to {MAX_EXPONENT:.0f}, or inf for the largest weights deterministically, "
            f"got {exponent}"
        )


@dataclass(frozen=True)
class Dispersion(MaskingStrategy):
    """Dispersion-weighted masking (DWM): patches whose log-mel values vary more are masked more often. Input-dependent.

    M0 is a weighted sample of m patches without replacement (successive sampling) with the dispersions as weights. As
    a ranking this is log w_i + Gumbel noise, whose m highest *are* such a sample. Patches without any dispersion
    (digital silence) follow after all others, in random order. Costs one pass over the patches.

    Args:
        statistic: of a patch's values, as `dispersion` defines them; "mad" is the paper's, "variance" its alternative.
        exponent: α, to which the weights are raised: 0 is random masking, 1 DWM, inf masks the largest
            deterministically.
        floor: β, how much of the sample's mean weight is added to each, so that silence cannot fill the whole visible
            set; the mean is over patches that vary at all, and so the same however much padding follows.
        deterministic: mask the largest weights instead of sampling, as with exponent inf; equal ones in random order.

    Raises:
        ValueError: an option is out of range; the guide is missing or not finite.

    Source: arXiv 2603.23810. Deviates: not at all by default; the Gumbel form samples the same law. Exponents, floors
    and the other statistics are melmask's own.
    """

    statistic: Statistic = "mad"
    exponent: float = 1.0
    floor: float = 0.0
    deterministic: bool = False

    @property
    def needs(self) -> Needs:
        return Needs("patches")

    def __post_init__(self) -> None:
        if self.statistic not in STATISTICS:
            raise ValueError(f"dispersion has the statistics {', '.join(STATISTICS)}, got {self.statistic!r}")
        check_exponent("dispersion", self.exponent)
        if not 0.0 <= self.floor < math.inf:
            raise ValueError(f"a floor of weights must be at least 0 and finite, got {self.floor}")

    @property
    def power(self) -> float:
        """The exponent, infinite for a deterministic choice."""
        return math.inf if self.deterministic else self.exponent

    def weight(self, patches: Float[Tensor, "b n p"], grid: PatchGrid) -> Float[Tensor, "b n"]:
        """What each patch weighs, before the exponent."""
        return self.raised(dispersion(patches, self.statistic, grid.patch))

    def raised(self, weight: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """The weights with the floor under them."""
        if self.floor == 0:
            return weight
        num_varied = (weight > 0).sum(dim=1, keepdim=True).clamp(min=1)
        return weight + self.floor * (weight / num_varied).sum(dim=1, keepdim=True)

    def priority(
        self, batch_size: int, grid: PatchGrid, num_masked: int, rng: Generator, guide: Tensor | None
    ) -> Float[Tensor, "b n"]:
        assert guide is not None  # draw() has checked it
        return successive_order(self.weight(guide, grid), self.power, rng)


@dataclass(frozen=True)
class InverseDispersion(Dispersion):
    """Inverse DWM, the control: patches that vary *less* are masked more often. Input-dependent.

    Successive sampling with weights 1/w_i; patches without any dispersion weigh infinitely, and so are masked first, in
    random order. If this helps as much as `Dispersion` does, the preference for varying patches does not explain the
    gain. Costs one pass over the patches. Options as for `Dispersion`; ``deterministic`` masks the smallest weights.

    Source: melmask's own control.
    """

    def priority(
        self, batch_size: int, grid: PatchGrid, num_masked: int, rng: Generator, guide: Tensor | None
    ) -> Float[Tensor, "b n"]:
        assert guide is not None  # draw() has checked it
        return successive_order(self.weight(guide, grid), -self.power, rng)


@dataclass(frozen=True)
class DispersionBlock(Dispersion):
    """Inverse blocks around low-dispersion centres: squares stay visible as in `InverseBlock`, away from what varies.

    The squares' centres are drawn one after the other without replacement with weights 1/w_i, until their squares,
    clipped at the borders, cover the visible count; the last one gives up random cells. The visible patches form
    blocks, as in inverse block masking, and have low dispersion, as in dispersion-weighted masking.
    At exponent 0 the law is exactly that of ibm with ``blocks="cover"``. Input-dependent; costs one pass over the
    patches.

    Args:
        side: patches along a square's side.

    Raises:
        ValueError: an option is out of range; the guide is missing or not finite.

    Source: melmask's own combination of arXiv 2603.23810 and data2vec 2.0, arXiv 2212.07525. There is no form with the
    latter's number of centres: on narrow grids it is zero, which leaves no centre to weight.
    """

    side: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.side < 1:
            raise ValueError(f"squares need side >= 1, got side {self.side}")

    def priority(
        self, batch_size: int, grid: PatchGrid, num_masked: int, rng: Generator, guide: Tensor | None
    ) -> Float[Tensor, "b n"]:
        assert guide is not None  # draw() has checked it
        last_first = successive_order(self.weight(guide, grid), -self.power, rng).argsort(dim=1)
        place = torch.arange(grid.num_patches, dtype=torch.float32, device=last_first.device).expand(batch_size, -1)
        rank = torch.empty_like(place).scatter(1, last_first, place)  # the highest is the first centre
        return break_ties(-InverseBlock(side=self.side).pool(rank, grid), rng)
