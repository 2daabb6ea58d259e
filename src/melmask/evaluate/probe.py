"""Probes: how well simple classifiers read a task's classes from frozen features.

`run_probe` owns what must not differ between probes: which clips train, validate and test, the scaler, classes that the
training clips lack, seeds and the score. A `Probe` only fits and predicts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax
from torch import Tensor
from torch.nn import functional as F

from melmask.evaluate.metrics import Metric, Score, score_of, score_with_interval
from melmask.evaluate.tasks import Split, Task, group_numbers, splits_of

Targets = Int[np.ndarray, " clip"] | Bool[np.ndarray, "clip class"]
Features = Float32[np.ndarray, "clip dim"]
FEW_GROUPS = 10


class Probe(Protocol):
    """A classifier on features that come standardised; it may look at ``valid`` to choose, and never sees test labels."""

    is_seeded: ClassVar[bool]  # whether a second seed could give another result

    def fit_predict(
        self,
        train_x: Float32[np.ndarray, "train dim"],
        train_y: Int[np.ndarray, " train"] | Bool[np.ndarray, "train class"],
        valid_x: Float32[np.ndarray, "valid dim"],
        valid_y: Int[np.ndarray, " valid"] | Bool[np.ndarray, "valid class"],
        test_x: Float32[np.ndarray, "test dim"],
        *,
        num_classes: int,
        multilabel: bool,
        seed: int,
    ) -> Float32[np.ndarray, "test class"]:
        """Probabilities of the classes for each test clip."""
        ...


@dataclass(frozen=True)
class LinearProbe:
    """One linear layer, trained with Adam; the epoch with the best validation score counts.

    Args:
        learning_rate: M2D's runs on features of base size (3840 values a clip) use 3e-5. The logits of a step grow with
            the number of features, and at 3e-5 features of a tiny encoder or a few hundred clips are far from fitted
            after 200 epochs; 1e-3 reaches the best validation epoch within the patience on those, and on large ones too.
        weight_decay: of Adam, added to the gradient.
        batch_size: at most; fewer clips are one batch.
        max_epochs: an epoch is one pass over the training clips.
        patience: epochs without a better validation score after which training stops.

    Source: EVAR, the evaluation package of BYOL-A and M2D (arXiv 2404.06095). Deviates: the default learning rate.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 1e-8
    batch_size: int = 200
    max_epochs: int = 200
    patience: int = 20
    is_seeded: ClassVar[bool] = True

    def fit_predict(
        self,
        train_x: Float32[np.ndarray, "train dim"],
        train_y: Int[np.ndarray, " train"] | Bool[np.ndarray, "train class"],
        valid_x: Float32[np.ndarray, "valid dim"],
        valid_y: Int[np.ndarray, " valid"] | Bool[np.ndarray, "valid class"],
        test_x: Float32[np.ndarray, "test dim"],
        *,
        num_classes: int,
        multilabel: bool,
        seed: int,
    ) -> Float32[np.ndarray, "test class"]:
        """Probabilities of the classes for each test clip."""
        rng = torch.Generator().manual_seed(seed)
        x, valid = torch.from_numpy(train_x), torch.from_numpy(valid_x)
        y = torch.from_numpy(train_y).to(x.dtype if multilabel else torch.int64)
        loss_of = F.binary_cross_entropy_with_logits if multilabel else F.cross_entropy
        bound = x.shape[1] ** -0.5
        weight = torch.empty(x.shape[1], num_classes).uniform_(-bound, bound, generator=rng).requires_grad_()
        bias = torch.zeros(num_classes, requires_grad=True)
        adam = torch.optim.Adam([weight, bias], self.learning_rate, weight_decay=self.weight_decay, fused=True)
        best_score, best_epoch, best = -1.0, -1, (weight, bias)
        for epoch in range(self.max_epochs):
            for batch in torch.randperm(len(x), generator=rng).split(self.batch_size):
                adam.zero_grad()
                loss_of(torch.addmm(bias, x[batch], weight), y[batch]).backward()
                adam.step()
            with torch.no_grad():
                score = score_of(valid_y, torch.addmm(bias, valid, weight).numpy())
            if score > best_score:
                best_score, best_epoch, best = score, epoch, (weight.detach().clone(), bias.detach().clone())
            elif epoch - best_epoch >= self.patience:
                break
        logits: Tensor = torch.addmm(best[1], torch.from_numpy(test_x), best[0])
        return (logits.sigmoid() if multilabel else logits.softmax(dim=1)).detach().numpy()


@dataclass(frozen=True)
class LogisticProbe:
    """Logistic regression to its optimum by L-BFGS: the fast probe without chance.

    The strength is the one with the best validation score (of equals, the most regularised), found along the grid from
    strong to weak, each start being the last optimum; it is then fitted again to training and validation clips together.

    Args:
        strengths: the weight C of the summed loss against half the squared weights, as in scikit-learn; ascending.
        max_iterations: of L-BFGS, for each strength.
    """

    strengths: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    max_iterations: int = 200
    is_seeded: ClassVar[bool] = False

    def fit_predict(
        self,
        train_x: Float32[np.ndarray, "train dim"],
        train_y: Int[np.ndarray, " train"] | Bool[np.ndarray, "train class"],
        valid_x: Float32[np.ndarray, "valid dim"],
        valid_y: Int[np.ndarray, " valid"] | Bool[np.ndarray, "valid class"],
        test_x: Float32[np.ndarray, "test dim"],
        *,
        num_classes: int,
        multilabel: bool,
        seed: int,
    ) -> Float32[np.ndarray, "test class"]:
        """Probabilities of the classes for each test clip."""
        y, more_y = _flags(train_y, num_classes), _flags(valid_y, num_classes)
        weight = np.zeros((train_x.shape[1] + 1, num_classes))
        best_score, best_strength, best_weight = -1.0, 0.0, weight
        for strength in self.strengths:
            weight = self.fit(train_x, y, strength, start=weight, multilabel=multilabel)
            score = score_of(valid_y, _logits(valid_x, weight))
            if score > best_score:
                best_score, best_strength, best_weight = score, strength, weight
        both_x, both_y = np.concatenate([train_x, valid_x]), np.concatenate([y, more_y])
        weight = self.fit(both_x, both_y, best_strength, start=best_weight, multilabel=multilabel)
        logits = _logits(test_x, weight)
        return (expit(logits) if multilabel else softmax(logits, axis=1)).astype(np.float32)

    def fit(
        self,
        x: Float32[np.ndarray, "clip dim"],
        y: Float32[np.ndarray, "clip class"],
        strength: float,
        *,
        start: Float[np.ndarray, "dim1 class"],
        multilabel: bool,
    ) -> Float[np.ndarray, "dim1 class"]:
        """The weights that minimise mean loss + |weights|^2 / (2 C clips); the last row is the bias, which is free."""
        decay = 1 / (strength * len(x))

        def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
            weight = flat.reshape(start.shape)
            logits = _logits(x, weight)
            if multilabel:
                loss, probability = np.logaddexp(0, logits) - y * logits, expit(logits)
            else:
                log_probability = log_softmax(logits, axis=1)
                loss, probability = -y * log_probability, np.exp(log_probability)
            error = (probability - y) / len(x)
            gradient = np.concatenate([x.T @ error, error.sum(axis=0)[None]]) .astype(np.float64)
            gradient[:-1] += decay * weight[:-1]
            return float(loss.sum(dtype=np.float64)) / len(x) + decay / 2 * float((weight[:-1] ** 2).sum()), gradient.ravel()

        options = {"maxiter": self.max_iterations, "gtol": 1e-5, "ftol": 1e-9}
        return minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options=options).x.reshape(start.shape)


@dataclass(frozen=True)
class KnnProbe:
    """A vote of the nearest training and validation clips by cosine; nothing is trained and nothing chosen.

    Args:
        num_neighbours: k, or all clips if there are fewer.
        temperature: a neighbour's vote weighs exp(cosine / temperature).

    Source: Wu et al. (2018), arXiv 1805.01978, with the k of EVAR-like evaluations. Deviates: features are standardised.
    """

    num_neighbours: int = 10
    temperature: float = 0.07
    is_seeded: ClassVar[bool] = False

    def fit_predict(
        self,
        train_x: Float32[np.ndarray, "train dim"],
        train_y: Int[np.ndarray, " train"] | Bool[np.ndarray, "train class"],
        valid_x: Float32[np.ndarray, "valid dim"],
        valid_y: Int[np.ndarray, " valid"] | Bool[np.ndarray, "valid class"],
        test_x: Float32[np.ndarray, "test dim"],
        *,
        num_classes: int,
        multilabel: bool,
        seed: int,
    ) -> Float32[np.ndarray, "test class"]:
        """Share of the votes of each class for each test clip."""
        bank = F.normalize(torch.from_numpy(np.concatenate([train_x, valid_x])))
        flags = torch.from_numpy(np.concatenate([_flags(train_y, num_classes), _flags(valid_y, num_classes)]))
        k = min(self.num_neighbours, len(bank))
        votes = []
        for queries in F.normalize(torch.from_numpy(test_x)).split(1024):
            cosine, neighbour = (queries @ bank.T).topk(k)
            share = (cosine / self.temperature).softmax(dim=1)
            votes.append((share[:, :, None] * flags[neighbour]).sum(dim=1))
        return torch.cat(votes).numpy()


PROBES: dict[str, Probe] = {"linear": LinearProbe(), "logistic": LogisticProbe(), "knn": KnnProbe()}


def _flags(targets: Targets, num_classes: int) -> Float32[np.ndarray, "clip class"]:
    flags = targets if targets.ndim == 2 else targets[:, None] == np.arange(num_classes)
    return flags.astype(np.float32)


def _logits(x: Features, weight: Float[np.ndarray, "dim1 class"]) -> Float32[np.ndarray, "clip class"]:
    return x @ weight[:-1].astype(np.float32) + weight[-1].astype(np.float32)
