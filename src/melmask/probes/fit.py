"""Training of what reads time steps: Adam, until the validation score has not risen for a while."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Fitting:
    """How to train.

    Args:
        learning_rate: None is 1 / num_dims: a step of Adam moves a logit by about 1, whatever the width.
        weight_decay: of Adam, added to the gradient.
        batch_size: clips, at most.
        max_epochs: an epoch is one pass over the training clips.
        patience: training stops after so many epochs without a better validation score.
    """

    learning_rate: float | None = None
    weight_decay: float = 1e-8
    batch_size: int = 64
    max_epochs: int = 100
    patience: int = 10


def fit(
    weights: Sequence[Tensor], num_dims: int, epoch: Callable[[], Iterable[Tensor]], score: Callable[[], float],
    how: Fitting,
) -> None:  # fmt: skip
    """Train weights in place; they end as they were after the epoch of the (first) best validation score.

    Args:
        weights: leaves that require gradients.
        num_dims: features that each logit depends on.
        epoch: gives the loss of one batch after the other, each with the weights as they then are.
        score: of the weights as they are, on validation clips; higher is better.
        how: settings.
    """
    adam = torch.optim.Adam(weights, how.learning_rate or 1 / num_dims, weight_decay=how.weight_decay)
    best_score, best_number, best = float("-inf"), 0, [weight.detach().clone() for weight in weights]
    for number in range(how.max_epochs):
        for loss in epoch():
            adam.zero_grad()
            loss.backward()
            adam.step()
        with torch.no_grad():
            reached = score()
        if reached > best_score:
            best_score, best_number, best = reached, number, [weight.detach().clone() for weight in weights]
        elif number - best_number >= how.patience:
            break
    with torch.no_grad():
        for weight, kept in zip(weights, best, strict=True):
            weight.copy_(kept)
