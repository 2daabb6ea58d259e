"""Masks guided by the model's recorded losses."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Generator, Tensor

from melmask.masking.base import MaskingStrategy, Needs
from melmask.masking.dispersion import check_exponent, successive_order
from melmask.masking.selfguided import check_finite
from melmask.types import PatchGrid


@dataclass(frozen=True)
class Hard(MaskingStrategy):
    """Hard-patch masking: patches with a large recorded loss are masked more often.

    A run records, for every patch of every recording, the model's own loss when it was last masked, smoothed over
    visits. M0 is a weighted sample of m patches without replacement (successive sampling) with these losses to the
    power ``exponent`` as weights; what was never masked weighs as much as the recording's mean, and before the first
    loss all patches weigh the same. Model-dependent; needs no encoder pass, but 4 bytes of RAM for every patch of the
    training data (450 kB an hour at 16 x 16 patches), saved in the checkpoint.

    Args:
        exponent: of the weights; 0 is random masking, inf masks the largest deterministically.
        smoothing: share of the recorded loss that is kept when a new one comes, in [0, 1).

    Raises:
        ValueError: an option is out of range; the guide is missing or not finite.

    Source: hard patches mining, arXiv 2304.05919. Deviates: the losses are the model's own and recorded, where the
    paper's teacher predicts them with an extra head; they are weights of a sample, where the paper masks the largest;
    and the schedule from easy to hard is that of the hints.
    """

    exponent: float = 1.0
    smoothing: float = 0.5

    @property
    def needs(self) -> Needs:
        return Needs("loss", smoothing=self.smoothing)

    def __post_init__(self) -> None:
        check_exponent("hard", self.exponent)
        if not 0.0 <= self.smoothing < 1.0:
            raise ValueError(f"hard keeps a share in [0, 1) of a recorded loss, got smoothing {self.smoothing}")

    def priority(
        self, batch_size: int, grid: PatchGrid, num_masked: int, rng: Generator, guide: Tensor | None
    ) -> Float[Tensor, "b n"]:
        assert guide is not None  # draw() has checked it
        loss = guide.float().mean(dim=2)
        check_finite(loss[:, :, None], "the recorded losses")
        return successive_order(loss.clamp(min=0.0), self.exponent, rng)  # rounding can leave 2 - 2 cos below zero
