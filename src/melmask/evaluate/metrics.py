"""What a probe is scored by, with the interval that its test clips and trainings allow."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import ndtri

from melmask.evaluate import weighted
from melmask.evaluate.bootstrap import NUM_RESAMPLES, Statistic, bootstrap, interval

Metric = Literal["accuracy", "mAP"]
Targets = Int[np.ndarray, " clip"] | Bool[np.ndarray, "clip class"]


@dataclass(frozen=True)
class Score:
    """A figure as it is to be reported.

    Args:
        value: the mean over seeds and folds; most scores are 0..1.
        low, high: its 95 % interval over the choice of test clips and over the chance of training.
        num_seeds: trainings behind the value.
        num_clips: test clips behind the value.

    >>> print(Score(0.8312, 0.81, 0.852, num_seeds=3, num_clips=2000))
    0.831 [0.810, 0.852] (3 seeds, 2000 clips)
    """

    value: float
    low: float
    high: float
    num_seeds: int
    num_clips: int

    def __str__(self) -> str:
        seeds = "1 seed" if self.num_seeds == 1 else f"{self.num_seeds} seeds"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] ({seeds}, {self.num_clips} clips)"


def accuracy(targets: Int[np.ndarray, " clip"], scores: Float[np.ndarray, "clip class"]) -> float:
    """The share of clips whose highest score is the target's; every clip counts the same (micro).

    >>> accuracy(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]))
    0.5
    """
    return _plain(weighted.accuracy, targets, scores)


def macro_accuracy(targets: Int[np.ndarray, " clip"], scores: Float[np.ndarray, "clip class"]) -> float:
    """The same share within each class that occurs, averaged over classes; every class counts the same.

    Source: scikit-learn's `balanced_accuracy_score`, to which it is equal.

    >>> macro_accuracy(np.array([0, 0, 0, 1]), np.array([[0.9, 0.1]] * 4))
    0.5
    """
    return _plain(weighted.macro_accuracy, targets, scores)


def mean_average_precision(targets: Bool[np.ndarray, "clip class"], scores: Float[np.ndarray, "clip class"]) -> float:
    """Average precision, averaged over the classes that occur in ``targets``.

    Raises:
        ValueError: no clip has a label.

    Source: the step-wise definition of scikit-learn's `average_precision_score`, to which it is equal, ties included.
    Deviates: classes that do not occur are left out, where scikit-learn warns and counts them as 0.

    >>> mean_average_precision(np.array([[True], [False]]), np.array([[0.2], [0.7]]))
    0.5
    """
    if not targets.any():
        raise ValueError("mean average precision needs at least one labelled clip: check the labels of this split")
    return _plain(weighted.mean_average_precision, targets, scores)


def mean_roc_auc(targets: Bool[np.ndarray, "clip class"], scores: Float[np.ndarray, "clip class"]) -> float:
    """Area under the ROC curve of each class against the rest, averaged over classes that some clips have and some not.

    Returns:
        0..1, 0.5 by chance; NaN if there is no such class.

    Source: scikit-learn's `roc_auc_score` (macro, one against the rest), to which it is equal, ties included.
    Deviates: classes that all clips or none have are left out, where scikit-learn gives no result.

    >>> mean_roc_auc(np.array([[True], [False], [True]]), np.array([[0.2], [0.2], [0.7]]))
    0.75
    """
    return _plain(weighted.mean_roc_auc, targets, scores)


def d_prime(roc_auc: float) -> float:
    """How many deviations apart two normal distributions of equal width are whose ROC curve has this area.

    Args:
        roc_auc: 0..1; of several classes their mean, as papers on AudioSet do it.

    Returns:
        0 by chance, infinite for an area of 1.

    Source: Gemmeke et al. (2017), "Audio Set". Deviates: not at all.

    >>> round(d_prime(0.968), 2)
    2.62
    """
    return float(np.sqrt(2) * ndtri(roc_auc))


def score_of(targets: Targets, scores: Float[np.ndarray, "clip class"]) -> float:
    """Accuracy for one label a clip, mean average precision for any number of labels a clip."""
    return accuracy(targets, scores) if targets.ndim == 1 else mean_average_precision(targets, scores)


def score_with_interval(
    targets: Targets,
    scores: Float[np.ndarray, "seed clip class"],
    *,
    folds: Int[np.ndarray, " clip"] | None = None,
    groups: Int[np.ndarray, " clip"] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Score:
    """`score_of`, as the mean over folds and seeds, with its 95 % interval by `bootstrap`.

    Args:
        targets: a class per clip, or class flags for several labels a clip.
        scores: of every seed's training; only their order within a clip (accuracy) or a class (mAP) counts.
        folds, groups, num_resamples, seed: see `bootstrap`.

    Raises:
        ValueError: no clips, or a fold of several labels a clip in which no clip has any.
    """
    for fold in () if folds is None or targets.ndim == 1 else np.unique(folds):
        if not targets[folds == fold].any():
            raise ValueError(f"no clip of test fold number {fold} has a label: check the labels of this fold")
    num_seeds, num_clips = scores.shape[:2]
    statistic = statistic_of(targets, scores)
    value, resampled = bootstrap(
        statistic, num_clips, num_seeds, folds=folds, groups=groups, num_resamples=num_resamples, seed=seed
    )
    return Score(float(value), *interval(resampled), num_seeds, num_clips)


def statistic_of(targets: Targets, scores: Float[np.ndarray, "seed clip class"]) -> Statistic:
    """What `score_of` counts, for `bootstrap`."""
    count = weighted.accuracy if targets.ndim == 1 else weighted.mean_average_precision
    return lambda clips, weight: count(targets[clips], scores[:, clips], weight)


def _plain(count: Callable[..., np.ndarray], targets: Targets, scores: Float[np.ndarray, "clip class"]) -> float:
    return float(count(targets, scores[None], np.ones((len(targets), 1), np.float32))[0, 0])
