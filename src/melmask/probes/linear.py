"""A linear layer, trained with Adam."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from melmask.probes.base import (
    Features,
    LinearPrediction,
    Probe,
    ScoreFunction,
    State,
    Targets,
    as_tensor,
    loss_of,
    with_one,
)
from melmask.probes.fit import AdamSettings, fit


@dataclass(frozen=True)
class LinearProbe(AdamSettings, LinearPrediction, Probe):
    """One linear layer, trained with Adam; the epoch with the best validation score is kept.

    The problem is convex, so weights start at 0, and seeds differ in the order of the clips only. The settings are
    those of `AdamSettings`; M2D's learning rate of 3e-5 on 3840 features is a ninth of the default, and on 2,000 clips
    does not converge in 200 epochs.

    Args:
        ties_are_better: of epochs with equal validation scores the last is kept and not the first, and each counts as
            better for ``patience``.

    Source: EVAR, the evaluation package of M2D (arXiv 2404.06095). Deviates: the default learning rate; weights that
    start at 0; and, unless ``ties_are_better``, the first of equal epochs is kept.
    """

    batch_size: int = 200
    max_epochs: int = 200
    patience: int = 20
    ties_are_better: bool = False

    def num_trainings(self, num_seeds: int) -> int:
        """See `Probe`."""
        return num_seeds

    def train(
        self, train_x: Features, train_y: Targets, valid_x: Features, valid_y: Targets,
        *, num_classes: int, multilabel: bool, seed: int, score: ScoreFunction,
    ) -> State:  # fmt: skip
        """See `Probe`."""
        rng = torch.Generator().manual_seed(seed)
        train, valid = with_one(train_x), with_one(valid_x)
        y = as_tensor(train_y)
        weight = torch.zeros(train.shape[1], num_classes, requires_grad=True)

        def epoch() -> Iterator[Tensor]:
            for batch in torch.randperm(len(train), generator=rng).split(self.batch_size):
                yield loss_of(train[batch] @ weight, y[batch])

        fit(
            self.optimiser([weight], train_x.shape[1], fused=True),
            [weight],
            epoch,
            lambda: score(valid_y, (valid @ weight).numpy()),
            max_epochs=self.max_epochs,
            patience=self.patience,
            ties_are_better=self.ties_are_better,
        )
        return {"weight": weight.detach()}
