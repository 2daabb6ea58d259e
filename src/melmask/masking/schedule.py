"""How hints change over a run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class HintSchedule:
    """The hint ratio over a run: 1 before ``start``, then 1 - progress^power; or one constant throughout.

    Args:
        power: k, how late guidance sets in.
        start: share of the run that is plain random masking; the paper's 50 of 300 epochs.
        constant: this hint ratio throughout, instead.

    Raises:
        ValueError: a setting is out of range.

    Source: arXiv 2603.23810. Deviates: progress is counted in steps and not in whole epochs.

    >>> [round(HintSchedule()(progress), 3) for progress in (0.0, 0.1, 0.5, 1.0)]
    [1.0, 1.0, 0.75, 0.0]
    """

    power: float = 2.0
    start: float = 1 / 6
    constant: float | None = None

    def __post_init__(self) -> None:
        if self.power <= 0 or not 0.0 <= self.start <= 1.0:
            raise ValueError(f"hints need power > 0 and start in [0, 1], got power {self.power}, start {self.start}")
        if self.constant is not None and not 0.0 <= self.constant <= 1.0:
            raise ValueError(f"a constant hint ratio must lie in [0, 1], got {self.constant}")

    def __call__(self, progress: float) -> float:
        if self.constant is not None:
            return self.constant
        return 1.0 if progress < self.start else 1.0 - progress**self.power
