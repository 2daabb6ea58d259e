"""Probes: how well simple classifiers read a task's classes from frozen features.

`run_probe` owns what must not differ between probes: which clips train, validate and test, the scaler, classes that the
training clips lack, seeds and the score. A `Probe` only fits and predicts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor
from torch.nn import functional as F

from melmask.evaluate.metrics import Metric, Score, score_of, score_with_interval
from melmask.evaluate.tasks import Split, Task, group_numbers, splits_of

Features = Float32[np.ndarray, "_ dim"]
Targets = Int[np.ndarray, " _"] | Bool[np.ndarray, "_ num_classes"]
FEW_GROUPS = 10


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


PROBES: dict[str, Probe] = {"linear": LinearProbe(), "logistic": LogisticProbe(), "knn": KnnProbe()}


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """What a probe found on a task.

    Args:
        probe: its name.
        task: its name.
        metric: what the scores are.
        score: over all test clips.
        per_fold: the mean over seeds, by test fold.
        predictions: probabilities, averaged over seeds; NaN for clips that no fold asked for tested.
        notes: what a reader of the score has to know, for people.
    """

    probe: str
    task: str
    metric: Metric
    score: Score
    per_fold: dict[str, float]
    predictions: Float32[np.ndarray, "clip num_classes"]
    notes: tuple[str, ...]


def run_probe(
    name: str | Probe,
    features: Float[np.ndarray, "clip dim"],
    task: Task,
    *,
    test_folds: Sequence[str] | None = None,
    num_seeds: int = 3,
    seed: int = 0,
) -> ProbeResult:
    """Train and test a probe on each of the task's splits.

    Args:
        name: a key of `PROBES`, or a probe with settings of its own.
        features: row i is clip i of the task.
        task: labels, folds and groups.
        test_folds: only these as test; None for all.
        num_seeds: trainings per split, with the seeds seed, seed + 1, ...; a probe without chance is trained once.
        seed: also of drawn folds, drawn validation splits and the interval.

    Raises:
        ValueError: an unknown probe, no seeds, features that do not fit the task or are not finite, or the task cannot
            be split.
    """
    if isinstance(name, str) and name not in PROBES:
        raise ValueError(f"no probe {name!r}: choose from {sorted(PROBES)}")
    if num_seeds < 1:
        raise ValueError(f"{num_seeds} seeds: at least one training is needed")
    _check_features(features, task)
    probe = PROBES[name] if isinstance(name, str) else name
    trainings = range(seed, seed + (num_seeds if probe.is_seeded else 1))
    scores = np.full((len(trainings), *task.flags.shape), np.nan, np.float32)
    fold_of, per_fold, notes = np.full(len(features), -1), {}, []
    for number, split in enumerate(splits_of(task, test_folds=test_folds, seed=seed)):
        scores[:, split.test], split_notes = _predict(probe, features, task, split, trainings)
        fold_of[split.test] = number
        per_fold[split.name] = float(np.mean([score_of(task.targets[split.test], s[split.test]) for s in scores]))
        notes += [*split.notes, *split_notes]

    tested = np.flatnonzero(fold_of >= 0)
    groups = group_numbers(task)[tested]
    num_groups = len(np.unique(groups))
    if num_groups == 1:
        notes.append("all test clips are of one group: the interval is over clips, and says nothing of other groups")
    elif num_groups < FEW_GROUPS:
        notes.append(f"the interval rests on {num_groups} groups only")
    score = score_with_interval(
        task.targets[tested], scores[:, tested], folds=fold_of[tested], groups=groups, seed=seed
    )
    label = name if isinstance(name, str) else type(probe).__name__
    unique_notes = tuple(dict.fromkeys(notes))
    return ProbeResult(label, task.name, task.metric, score, per_fold, scores.mean(axis=0), unique_notes)


def _predict(
    probe: Probe, features: Float[np.ndarray, "clip dim"], task: Task, split: Split, seeds: Sequence[int]
) -> tuple[Float32[np.ndarray, "seed test num_classes"], list[str]]:
    """Probabilities of the split's test clips; 0 for classes that its training clips lack."""
    notes = []
    trained = np.flatnonzero(task.flags[split.train].any(axis=0))
    lacks = np.setdiff1d(np.flatnonzero(task.flags.any(axis=0)), trained)
    valid = split.valid
    if len(lacks):
        names = ", ".join(task.classes[label] for label in lacks[:5]) + (", ..." if len(lacks) > 5 else "")
        num_test = int(task.flags[split.test][:, lacks].any(axis=1).sum())
        notes.append(f"fold {split.name}: no training clips of {names}; never predicted, in {num_test} test clips")
        valid = valid[task.flags[valid][:, trained].any(axis=1)]
    if not len(valid):
        raise ValueError(f"fold {split.name}: no validation clip has a class of the training clips: check the splits")

    def targets(clips: Int[np.ndarray, " _"]) -> np.ndarray:
        flags = task.flags[clips][:, trained]
        return flags if task.is_multilabel else flags.argmax(axis=1)

    train_x, valid_x, test_x = _standardise(features[split.train], features[valid], features[split.test])
    scores = np.zeros((len(seeds), len(split.test), len(task.classes)), np.float32)
    for row, seed in enumerate(seeds):
        scores[row][:, trained] = probe.fit_predict(
            train_x, targets(split.train), valid_x, targets(valid), test_x,
            num_classes=len(trained), multilabel=task.is_multilabel, seed=seed,
        )  # fmt: skip
    return scores, notes


def _standardise(train: np.ndarray, *others: np.ndarray) -> list[Features]:
    """Zero mean and unit deviation on the training clips; features that are constant there become 0 everywhere."""
    mean, deviation = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64)
    varies = deviation > np.finfo(np.float32).eps * np.abs(mean)  # below this, float32 features vary by rounding only
    scale = np.where(varies, 1 / np.where(varies, deviation, 1), 0)
    return [((x - mean) * scale).astype(np.float32) for x in (train, *others)]


def _check_features(features: Float[np.ndarray, "clip dim"], task: Task) -> None:
    if len(features) != len(task.paths):
        raise ValueError(f"{len(features)} rows of features, {len(task.paths)} clips in {task.name}: embed it again")
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise ValueError(
            f"features of clip {bad[0]} ({task.paths[bad[0]]}) are not finite, and of {len(bad) - 1} more: check the "
            "recording and the encoder's weights, or leave the clip out of the table"
        )


def _with_one(x: Features) -> Float32[Tensor, "_ dim1"]:
    """Features and a 1, whose weight is the bias."""
    return F.pad(torch.tensor(x), (0, 1), value=1.0)


def _targets(targets: Targets) -> Tensor:
    return torch.tensor(targets, dtype=torch.float32 if targets.ndim == 2 else torch.int64)


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy; for several labels a clip its sum over classes, each fitted on its own."""
    if targets.ndim == 1:
        return F.cross_entropy(logits, targets)
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(targets)


def _probabilities(logits: Tensor, multilabel: bool) -> Float32[np.ndarray, "_ num_classes"]:
    return (logits.sigmoid() if multilabel else logits.softmax(dim=1)).numpy()
