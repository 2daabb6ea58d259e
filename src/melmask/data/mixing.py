"""Other recordings mixed into the crops of a batch, so that one crop has several sounds at once."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

LEVELS_DB = (-20.0, 6.0)  # from and to: of the crop that is mixed in, over that of the other
MAX_CORRECTION = 4.0  # of the difference of two levels, in nats (17 dB): silence is not made as loud as a sound


@dataclass(frozen=True)
class Mixing:
    """Which crops of a batch are mixed, with which other one of it, and how loud that one is.

    Args:
        chosen: those that are mixed; the others stay as they are.
        other: index of the crop that each is mixed with.
        level_db: of the other crop, over its own.
    """

    chosen: Bool[np.ndarray, " b"]
    other: Int[np.ndarray, " b"]
    level_db: Float[np.ndarray, " b"]

    @staticmethod
    def draw(rng: np.random.Generator, num_crops: int, share: float) -> "Mixing":
        """Choose each crop with a probability of ``share``, and its other one by a permutation of the batch.

        A crop that the permutation leaves in its place is only louder.
        """
        return Mixing(rng.random(num_crops) < share, rng.permutation(num_crops), rng.uniform(*LEVELS_DB, num_crops))

    @staticmethod
    def none(num_crops: int) -> "Mixing":
        """No crop is mixed."""
        return Mixing(np.zeros(num_crops, dtype=bool), np.arange(num_crops), np.zeros(num_crops))

    def lengths(self, num_valid: Int[np.ndarray, " b"]) -> Int[np.ndarray, " b"]:
        """Valid length of each crop after mixing, in any unit: a mixed one is as long as the longer of its two."""
        return np.where(self.chosen, np.maximum(num_valid, num_valid[self.other]), num_valid)

    def mix(self, log_mel: Float[Tensor, "b mel frame"]) -> Float[Tensor, "b mel frame"]:
        """Add the power of the other crop to each chosen one.

        Source: mixup of log-mels after exponentiation, BYOL-A, arXiv 2103.06695, section III-B. It deviates: BYOL-A
        scales both by shares of up to 0.4 whatever their levels, takes the other from the last 2,048 inputs, and mixes
        every crop.

        Args:
            log_mel: natural logarithms of power, not normalised, with padding at the value of silence.
        """
        levels = _level(log_mel)
        mixed = torch.from_numpy(np.flatnonzero(self.chosen)).to(log_mel.device)
        other = torch.from_numpy(self.other[self.chosen]).to(log_mel.device)
        difference = (levels[mixed] - levels[other]).clamp(-MAX_CORRECTION, MAX_CORRECTION)
        level = torch.from_numpy(self.level_db[self.chosen] * (math.log(10) / 10)).to(difference) + difference
        sums = torch.logaddexp(log_mel[mixed], log_mel[other] + level[:, None, None])
        return log_mel.index_copy(0, mixed, sums)


def _level(log_mel: Float[Tensor, "b mel frame"]) -> Float[Tensor, " b"]:
    """Logarithm of the mean power."""
    return log_mel.exp().mean((1, 2)).log()
