"""The moving average of the encoder's weights, of which a run's encoder file is written."""

import copy

import torch
from torch import Tensor

from melmask.nn.vit import Encoder

AVERAGE = "average."  # prefix of its tensors in a checkpoint


class WeightsAverage:
    """An exponential moving average of an encoder's weights over optimiser steps.

    After step t the average keeps the share min(decay, (1 + t) / (10 + t)) of itself, so that it follows the last ninth
    of the steps so far until that is longer than the decay's own horizon of 1 / (1 - decay) steps: runs shorter than
    that are averaged as well, and the random weights at their start are forgotten. Training does not see the average.

    Args:
        encoder: the trained encoder, at its start.
        decay: the largest share, in (0, 1).

    Attributes:
        encoder: with the average as its weights.

    Source: Polyak and Juditsky (1992); with this form of the decay `tf.train.ExponentialMovingAverage`. Deviates: the
    encoder alone is averaged.
    """

    def __init__(self, encoder: Encoder, decay: float) -> None:
        self.encoder, self.decay = copy.deepcopy(encoder).requires_grad_(False), decay

    @torch.no_grad()
    def after_step(self, num_steps: int, encoder: Encoder) -> None:
        """Move the average towards the encoder.

        Args:
            num_steps: optimiser steps done.
            encoder: as the last of them left it.
        """
        kept = min(self.decay, (1 + num_steps) / (10 + num_steps))
        torch._foreach_lerp_(list(self.encoder.parameters()), list(encoder.parameters()), 1.0 - kept)

    def state(self) -> dict[str, Tensor]:
        """Its part of a checkpoint."""
        return {AVERAGE + name: tensor for name, tensor in self.encoder.state_dict().items()}
