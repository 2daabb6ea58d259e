"""How masking changes over a run: the hint ratio, the guidance that remains, the weights' exponent."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np

from melmask.masking.laws import hint_ratio_for

HintShape = Literal["power", "cosine", "delayed"]
Schedule = Callable[[float], float]  # progress in [0, 1] -> a setting


@dataclass(frozen=True)
class HintSchedule:
    """The hint ratio over a run: 1 before ``start``, then falling to 0, or 0 at once; or one constant throughout.

    Args:
        power: k in h = 1 - progress^k; the larger, the later h falls.
        start: share of the run that is plain random masking; the paper's 50 of 300 epochs.
        constant: this hint ratio throughout, instead.
        shape: "power"; "cosine" for h = (1 + cos(pi progress)) / 2; or "delayed" for h = 0, the strategy alone, from
            ``start`` on, which the paper's published code has for inverse block masking.

    Raises:
        ValueError: a setting is out of range.

    Source: arXiv 2603.23810. Deviates: progress is counted in steps and not in whole epochs; "cosine" is melmask's own.

    >>> [round(HintSchedule()(progress), 3) for progress in (0.0, 0.1, 0.5, 1.0)]
    [1.0, 1.0, 0.75, 0.0]
    >>> [HintSchedule(shape="delayed")(progress) for progress in (0.0, 0.1, 0.5, 1.0)]
    [1.0, 1.0, 0.0, 0.0]
    """

    power: float = 2.0
    start: float = 1 / 6
    constant: float | None = None
    shape: HintShape = "power"

    def __post_init__(self) -> None:
        if self.power <= 0 or not 0.0 <= self.start <= 1.0:
            raise ValueError(f"hints need power > 0 and start in [0, 1], got power {self.power}, start {self.start}")
        if self.constant is not None and not 0.0 <= self.constant <= 1.0:
            raise ValueError(f"a constant hint ratio must lie in [0, 1], got {self.constant}")
        if self.shape not in get_args(HintShape):
            raise ValueError(f'hints fall in the shape "power", "cosine" or "delayed", got {self.shape!r}')

    def __call__(self, progress: float) -> float:
        if self.constant is not None:
            return self.constant
        if progress < self.start:
            return 1.0
        if self.shape == "delayed":
            return 0.0
        return 0.5 + 0.5 * math.cos(math.pi * progress) if self.shape == "cosine" else 1.0 - progress**self.power


@dataclass(frozen=True)
class GuidanceSchedule:
    """The hint ratio over a run that gives a wanted guidance λ, as near as whole numbers of hints allow.

    λ is linear between the points, and level before the first and after the last.

    Args:
        points: (progress, λ), in the order of progress.
        num_patches: N of the inputs.
        num_masked: m.

    Raises:
        ValueError: there are no points, they are out of order, or one is out of range.

    Source: melmask's own.

    >>> schedule = GuidanceSchedule(((0.2, 0.0), (1.0, 1.0)), num_patches=190, num_masked=133)
    >>> [round(schedule(progress), 3) for progress in (0.0, 0.2, 0.6, 1.0)]
    [1.0, 1.0, 0.233, 0.0]
    """

    points: tuple[tuple[float, float], ...]
    num_patches: int
    num_masked: int

    def __post_init__(self) -> None:
        check_points(self.points)

    def __call__(self, progress: float) -> float:
        return hint_ratio_for(self.guidance(progress), self.num_patches, self.num_masked)

    def guidance(self, progress: float) -> float:
        """The λ that is asked for."""
        at, values = zip(*self.points, strict=True)
        return float(np.interp(progress, at, values))


def check_points(points: tuple[tuple[float, float], ...]) -> None:
    """Raise ValueError unless the points (progress, λ) make a schedule."""
    progress = [point[0] for point in points]
    if not points or any(one >= other for one, other in pairwise(progress)):
        raise ValueError(f"a schedule of guidance needs points (progress, λ) of growing progress, got {points}")
    if not all(0.0 <= value <= 1.0 for point in points for value in point):
        raise ValueError(f"progress and guidance must lie in [0, 1], got {points}")


@dataclass(frozen=True)
class ExponentSchedule:
    """The weights' exponent over a run: final * progress^power, from 0, which is random masking.

    Args:
        final: the exponent at the end.
        power: k; the larger, the later it rises.

    Raises:
        ValueError: a setting is out of range.

    Source: melmask's own.

    >>> [ExponentSchedule(final=2.0)(progress) for progress in (0.0, 0.5, 1.0)]
    [0.0, 1.0, 2.0]
    """

    final: float = 1.0
    power: float = 1.0

    def __post_init__(self) -> None:
        if self.power <= 0 or not 0.0 <= self.final < math.inf:
            raise ValueError(
                f"an exponent is annealed with power > 0 to a finite value of at least 0, got power {self.power}, "
                f"final {self.final}"
            )

    def __call__(self, progress: float) -> float:
        return self.final * progress**self.power
