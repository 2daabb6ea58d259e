"""Training by gradient descent until the validation score has stopped rising."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from melmask.probes.base import check_ranges
from melmask.threads import following_load


@dataclass(frozen=True)
class AdamSettings:
    """How long and how fast Adam trains.

    Args:
        learning_rate: None is 1 / num_features: a step of Adam moves a logit by about 1, whatever the width.
        weight_decay: of Adam, added to the gradient.
        batch_size: clips, at most; fewer clips are one batch.
        max_epochs: an epoch is one pass over the training clips.
        patience: training stops after so many epochs without a better validation score.

    Raises:
        ValueError: a setting is out of its range.
    """

    learning_rate: float | None = None
    weight_decay: float = 1e-8
    batch_size: int = 64
    max_epochs: int = 100
    patience: int = 10

    def __post_init__(self) -> None:
        check_ranges(self, may_be_zero=("weight_decay",))

    def optimiser(self, weights: Sequence[Tensor], num_features: int, *, fused: bool = False) -> Adam:
        """Make Adam for these weights.

        Args:
            weights: leaves that require gradients.
            num_features: features that each logit depends on.
            fused: PyTorch's fused implementation, which rounds differently from the other one.
        """
        learning_rate = self.learning_rate or 1 / num_features
        return Adam(weights, learning_rate, weight_decay=self.weight_decay, fused=fused)


def fit(
    optimiser: Optimizer,
    state: Sequence[Tensor],
    epoch: Callable[[], Iterable[Tensor]],
    score: Callable[[], float],
    *,
    max_epochs: int,
    patience: int,
    check_every: int = 1,
    ties_are_better: bool = False,
) -> float:
    """Train in place; what was trained ends in the state of the first best validation score.

    Args:
        optimiser: of the weights.
        state: all tensors to restore, weights and buffers.
        epoch: gives the loss of one batch after the other, each with the weights as they then are.
        score: the validation score of the current state; the higher, the better.
        max_epochs: epochs, at most.
        patience: training stops after so many validations without a better score.
        check_every: epochs from one validation to the next; the last epoch is always validated.
        ties_are_better: a validation score as good as the best one is better, so that the last best state is kept.

    Returns:
        The best validation score.
    """
    best_score, best, num_worse = float("-inf"), _copy(state), 0
    with following_load() as threads:
        for number in range(1, max_epochs + 1):
            with threads.step():
                _train_epoch(optimiser, epoch())
            if number % check_every and number < max_epochs:
                continue
            with torch.no_grad():
                reached = score()
            if reached > best_score or (ties_are_better and reached == best_score):
                best_score, best, num_worse = reached, _copy(state), 0
            else:
                num_worse += 1
                if num_worse == patience:
                    break
    with torch.no_grad():
        for tensor, kept in zip(state, best, strict=True):
            tensor.copy_(kept)
    return best_score


def _train_epoch(optimiser: Optimizer, losses: Iterable[Tensor]) -> None:
    for loss in losses:
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def _copy(state: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in state]
