"""The classifiers that read a task's classes from frozen features: linear, logistic, ridge and nearest neighbours.

Each only fits and predicts; `melmask.evaluate.probe` owns what must not differ between them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor
from torch.nn import functional as F

from melmask.evaluate.metrics import score_of

Features = Float32[np.ndarray, "_ dim"]
Targets = Int[np.ndarray, " _"] | Bool[np.ndarray, "_ num_classes"]


@runtime_checkable
class Probe(Protocol):
    """A classifier; it may look at ``valid`` to choose settings or epochs, and never sees test labels."""

    is_seeded: ClassVar[bool]  # whether a second seed could give another result

    def fit_predict(
        self, train_x: Features, train_y: Targets, valid_x: Features, valid_y: Targets, test_x: Features,
        *, num_classes: int, multilabel: bool, seed: int,
    ) -> Float32[np.ndarray, "test num_classes"]:  # fmt: skip
        """Probabilities of the classes for each test clip.

        Args:
            train_x, valid_x, test_x: features, already standardised on the training clips.
            train_y, valid_y: a class per clip, or class flags if multilabel.
            num_classes: all of them occur in train_y.
            multilabel: whether a clip may have any number of classes.
            seed: of everything drawn.
        """
        ...


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
        train, valid, test = (_with_one(x) for x in (train_x, valid_x, test_x))
        y = _targets(train_y)
        weight = torch.zeros(train.shape[1], num_classes, requires_grad=True)
        learning_rate = self.learning_rate or 1 / train_x.shape[1]
        adam = torch.optim.Adam([weight], learning_rate, weight_decay=self.weight_decay, fused=True)
        best_score, best_epoch, best_weight = -1.0, 0, weight.detach()
        for epoch in range(self.max_epochs):
            for batch in torch.randperm(len(train), generator=rng).split(self.batch_size):
                adam.zero_grad()
                _loss(train[batch] @ weight, y[batch]).backward()
                adam.step()
            score = score_of(valid_y, (valid @ weight.detach()).numpy())
            if score > best_score:
                best_score, best_epoch, best_weight = score, epoch, weight.detach().clone()
            elif epoch - best_epoch >= self.patience:
                break
        return _probabilities(test @ best_weight, multilabel)


@dataclass(frozen=True)
class LogisticProbe:
    """Logistic regression by L-BFGS: the fast probe without chance.

    The strength is the one with the best validation score (of equals, the most regularised), found along the grid from
    strong to weak regularisation, each fit starting at the last one's weights; the chosen one is then fitted on to
    training and validation clips together.

    Args:
        strengths: weights C of the summed loss against half the squared weights, as in scikit-learn; ascending.
        max_iterations: of L-BFGS, for each fit; weakly regularised fits of many classes end here, near the optimum.
    """

    strengths: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
    max_iterations: int = 100
    is_seeded: ClassVar[bool] = False

    def fit_predict(
        self, train_x: Features, train_y: Targets, valid_x: Features, valid_y: Targets, test_x: Features,
        *, num_classes: int, multilabel: bool, seed: int,
    ) -> Float32[np.ndarray, "test num_classes"]:  # fmt: skip
        """See `Probe`."""
        train, valid, test = (_with_one(x) for x in (train_x, valid_x, test_x))
        y, valid_targets = _targets(train_y), _targets(valid_y)
        weight = torch.zeros(train.shape[1], num_classes)
        best_score, best_strength, best_weight = -1.0, self.strengths[0], weight
        for strength in self.strengths:
            weight = self.fit(train, y, strength, weight)
            score = score_of(valid_y, (valid @ weight).numpy())
            if score > best_score:
                best_score, best_strength, best_weight = score, strength, weight
        weight = self.fit(torch.cat([train, valid]), torch.cat([y, valid_targets]), best_strength, best_weight)
        return _probabilities(test @ weight, multilabel)

    def fit(
        self, x: Float[Tensor, "clip dim1"], y: Tensor, strength: float, start: Float[Tensor, "dim1 num_classes"]
    ) -> Float[Tensor, "dim1 num_classes"]:
        """The weights that minimise mean loss + |weights|^2 / (2 C clips); the last row is the bias, which is free."""
        weight = start.clone().requires_grad_()
        decay = 1 / (2 * strength * len(x))
        solver = torch.optim.LBFGS(
            [weight], max_iter=self.max_iterations, tolerance_grad=1e-5, history_size=10, line_search_fn="strong_wolfe"
        )

        def objective() -> Tensor:
            solver.zero_grad()
            loss = _loss(x @ weight, y) + decay * weight[:-1].square().sum()
            loss.backward()
            return loss

        solver.step(objective)
        return weight.detach()


@dataclass(frozen=True)
class RidgeProbe:
    """Least squares on class flags with a penalty on the weights, in closed form: the fastest probe, without chance.

    The strength is the one with the best validation score (of equals, the most regularised); the fit is then made anew
    on training and validation clips together. All strengths share one eigendecomposition, of the features' or the
    clips' Gram matrix, whichever is smaller. Where features have a few strong directions and carry the classes in many
    weak ones, as those of masked autoencoders do, squared error finds them and logistic regression does not.

    Args:
        strengths: penalties on the squared weights, as multiples of the mean squared norm of a clip; descending.

    Source: Hoerl and Kennard (1970), as a classifier. Deviates: not at all.
    """

    strengths: tuple[float, ...] = (1e2, 1e1, 1e0, 1e-1, 1e-2, 1e-3, 1e-4)
    is_seeded: ClassVar[bool] = False

    def fit_predict(
        self, train_x: Features, train_y: Targets, valid_x: Features, valid_y: Targets, test_x: Features,
        *, num_classes: int, multilabel: bool, seed: int,
    ) -> Float32[np.ndarray, "test num_classes"]:  # fmt: skip
        """See `Probe`; the probabilities are least-squares estimates, which may leave 0..1 a little."""
        train_flags, valid_flags = _flags(train_y, num_classes), _flags(valid_y, num_classes)
        scores = [score_of(valid_y, p) for p in self._predict(train_x, train_flags, valid_x, self.strengths)]
        best = self.strengths[int(np.argmax(scores))]
        both_x, both_flags = np.concatenate([train_x, valid_x]), np.concatenate([train_flags, valid_flags])
        return next(self._predict(both_x, both_flags, test_x, (best,)))

    def _predict(
        self, x: Features, flags: Float[np.ndarray, "clip num_classes"], test_x: Features, strengths: Sequence[float]
    ) -> Iterator[Float32[np.ndarray, "test num_classes"]]:
        """Estimates for test clips, for each strength; the bias is free, as everything is centred on ``x``."""
        centre, share = x.mean(axis=0, dtype=np.float64), flags.mean(axis=0)
        centred, test = x - centre, test_x - centre
        few_clips = len(x) < x.shape[1]
        gram = centred @ centred.T if few_clips else centred.T @ centred
        values, vectors = np.linalg.eigh(gram)
        if few_clips:
            outer, inner = test @ (centred.T @ vectors), vectors.T @ (flags - share)
        else:
            outer, inner = test @ vectors, vectors.T @ (centred.T @ (flags - share))
        unit = max(np.trace(gram) / len(x), np.finfo(np.float64).tiny)
        for strength in strengths:
            yield (outer / (values.clip(min=0) + strength * unit) @ inner + share).astype(np.float32)


@dataclass(frozen=True)
class KnnProbe:
    """A vote of the nearest training and validation clips by cosine; nothing is trained, and nothing chosen.

    Args:
        num_neighbours: k, or all clips if there are fewer.
        temperature: a neighbour's vote weighs exp(cosine / temperature).

    Source: Wu et al. (2018), arXiv 1805.01978. Deviates: k is 10, and features are standardised.
    """

    num_neighbours: int = 10
    temperature: float = 0.07
    is_seeded: ClassVar[bool] = False

    def fit_predict(
        self, train_x: Features, train_y: Targets, valid_x: Features, valid_y: Targets, test_x: Features,
        *, num_classes: int, multilabel: bool, seed: int,
    ) -> Float32[np.ndarray, "test num_classes"]:  # fmt: skip
        """See `Probe`; the probabilities are shares of the votes."""
        bank = F.normalize(torch.tensor(np.concatenate([train_x, valid_x])))
        targets = torch.cat([_targets(train_y), _targets(valid_y)])
        flags = targets if multilabel else F.one_hot(targets, num_classes).float()
        votes = []
        for queries in F.normalize(torch.tensor(test_x)).split(1024):
            cosine, neighbour = (queries @ bank.T).topk(min(self.num_neighbours, len(bank)))
            share = (cosine / self.temperature).softmax(dim=1)
            votes.append(torch.einsum("qk,qkc->qc", share, flags[neighbour]))
        return torch.cat(votes).numpy()


PROBES: dict[str, Probe] = {
    "linear": LinearProbe(),
    "logistic": LogisticProbe(),
    "ridge": RidgeProbe(),
    "knn": KnnProbe(),
}


def _with_one(x: Features) -> Float32[Tensor, "_ dim1"]:
    """Features and a 1, whose weight is the bias."""
    return F.pad(torch.tensor(x), (0, 1), value=1.0)


def _targets(targets: Targets) -> Tensor:
    return torch.tensor(targets, dtype=torch.float32 if targets.ndim == 2 else torch.int64)


def _flags(targets: Targets, num_classes: int) -> Float[np.ndarray, "_ num_classes"]:
    return targets.astype(np.float64) if targets.ndim == 2 else np.eye(num_classes)[targets]


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy; for several labels a clip its sum over classes, each fitted on its own."""
    if targets.ndim == 1:
        return F.cross_entropy(logits, targets)
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(targets)


def _probabilities(logits: Tensor, multilabel: bool) -> Float32[np.ndarray, "_ num_classes"]:
    return (logits.sigmoid() if multilabel else logits.softmax(dim=1)).numpy()
