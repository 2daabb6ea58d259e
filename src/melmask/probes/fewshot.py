"""Logistic regression on a few labelled clips of each class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from melmask.probes.base import Features, LinearPrediction, Probe, ScoreFunction, State, Targets, check_ranges
from melmask.probes.logistic import LogisticProbe


@dataclass(frozen=True)
class FewShotProbe(LinearPrediction, Probe):
    """Logistic regression on a few labelled clips of every class, drawn several times; no setting is chosen.

    Only training clips are drawn, so that no group of a test clip is among them. A draw depends on the split and its
    seed, not on the features: all encoders are trained on the same clips. With one seed a draw of more clips contains
    the smaller ones. The score is the mean over draws, and its interval covers draws as well as test clips.

    Args:
        num_per_class: labelled clips of each class, or all of them if there are fewer. Where clips have several labels,
            so many are drawn for each class and keep their other labels, so that frequent classes get more.
        num_draws: trainings on a split, whatever number of seeds is asked for; their seeds are consecutive.
        strength: the weight C of the summed loss against half the squared weights, fixed, as validation clips would be
            more labels.
        max_iterations: of L-BFGS; so many reach the optimum, with nearly collinear features too.

    Source: Tian et al. (2020), arXiv 2003.11539, on logistic regression as a few-shot classifier, with scikit-learn's
    C = 1. Deviates: all classes of the task at once; features are standardised on all training clips, whose labels stay
    unseen, instead of being normalised to length 1.
    """

    num_per_class: int = 5
    num_draws: int = 10
    strength: float = 1.0
    max_iterations: int = 2000

    def __post_init__(self) -> None:
        check_ranges(self)

    def num_trainings(self, num_seeds: int) -> int:
        """See `Probe`."""
        return self.num_draws

    def notes(self, num_per_class: Int[np.ndarray, " num_classes"], names: Sequence[str]) -> list[str]:
        """See `Probe`; names up to five classes that have too few clips."""
        few = [name for name, num in zip(names, num_per_class, strict=True) if num < self.num_per_class]
        return [f"fewer than {self.num_per_class} training clips of {', '.join(few[:5])}: all are taken"] if few else []

    def train(
        self, train_x: Features, train_y: Targets, valid_x: Features, valid_y: Targets,
        *, num_classes: int, multilabel: bool, seed: int, score: ScoreFunction,
    ) -> State:  # fmt: skip
        """See `Probe`; ``seed`` is that of the draw, and validation clips are not used."""
        drawn = self.draw(train_y, num_classes, seed)
        solver = LogisticProbe(max_iterations=self.max_iterations)
        return {"weight": solver.fit_at(self.strength, train_x[drawn], train_y[drawn], num_classes)}

    def draw(self, targets: Targets, num_classes: int, seed: int) -> Int[np.ndarray, " drawn"]:
        """Draw the rows of the clips to train on, in ascending order, each once."""
        order = np.random.default_rng(seed).permutation(len(targets))
        shuffled = targets[order]
        has_label = shuffled if targets.ndim == 2 else shuffled[:, None] == np.arange(num_classes)
        firsts = [order[has_label[:, label]][: self.num_per_class] for label in range(num_classes)]
        return np.unique(np.concatenate(firsts))
