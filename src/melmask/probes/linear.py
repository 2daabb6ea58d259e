"""A linear layer, trained with Adam."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float32

from melmask.evaluate.metrics import score_of
from melmask.probes.base import Features, Targets, as_tensor, loss_of, probabilities, with_one


@dataclass(frozen=True)
class LinearProbe:
    """One linear layer, trained with Adam; the epoch with the best validation score counts.

    The problem is convex, so weights start at 0: what is left to chance, and to seeds, is the order of the clips.

    Args:
        learning_rate: None is 1 / num_features: a step of Adam moves a logit by about 1, whatever the width. M2D's 3e-5
            on 3840 features is a ninth of it: on 2,000 clips, 200 epochs of that are far from a fit.
        weight_decay: of Adam, added to the gradient.
        batch_size: at most; fewer clips are one batch.
        max_epochs: an epoch is one pass over the training clips.
        patience: training stops after so many epochs without a better validation score.

    Source: EVAR, the evaluation package of M2D (arXiv 2404.06095). Deviates: the default learning rate, and
    weights that start at 0.
    """

    learning_rate: float | None = None
    weight_decay: float = 1e-8
    batch_size: int = 200
    max_epochs: int = 200
    patience: int = 20
    is_seeded: ClassVar[bool] = True

    def fit_predict(
        self, train_x: Features, train_y: Targets, valid_x: Features, valid_y: Targets, test_x: Features,
        *, num_classes: int, multilabel: bool, seed: int,
    ) -> Float32[np.ndarray, "test num_classes"]:  # fmt: skip
        """See `Probe`."""
        rng = torch.Generator().manual_seed(seed)
        train, valid, test = (with_one(x) for x in (train_x, valid_x, test_x))
        y = as_tensor(train_y)
        weight = torch.zeros(train.shape[1], num_classes, requires_grad=True)
        learning_rate = self.learning_rate or 1 / train_x.shape[1]
        adam = torch.optim.Adam([weight], learning_rate, weight_decay=self.weight_decay, fused=True)
        best_score, best_epoch, best_weight = -1.0, 0, weight.detach()
        for epoch in range(self.max_epochs):
            for batch in torch.randperm(len(train), generator=rng).split(self.batch_size):
                adam.zero_grad()
                loss_of(train[batch] @ weight, y[batch]).backward()
                adam.step()
            score = score_of(valid_y, (valid @ weight.detach()).numpy())
            if score > best_score:
                best_score, best_epoch, best_weight = score, epoch, weight.detach().clone()
            elif epoch - best_epoch >= self.patience:
                break
        return probabilities(test @ best_weight, multilabel)
