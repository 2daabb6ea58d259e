"""Scores of classifiers, with their 95 % intervals.

The functions named ``weighted_...`` count a score under many weightings of the clips at once, one column for each
resample of a bootstrap. A weight says how often a clip was drawn; a column of ones gives the plain score. Where nothing
was drawn that can be scored, the result is NaN.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from melmask.evaluation.bootstrap import NUM_RESAMPLES, Statistic, bootstrap, interval, num_drawn

Metric = Literal["accuracy", "mAP"]
Targets = Int[np.ndarray, " clip"] | Bool[np.ndarray, "clip class"]
Flags = Bool[np.ndarray, "clip num_classes"]
Scores = Float[np.ndarray, "seed clip num_classes"]
Weight = Float[np.ndarray, "clip resample"]
Resampled = Float[np.ndarray, "seed resample"]
ByClass = Float[np.ndarray, "seed num_classes resample"]
DECIMALS = 9  # of scores: the same number of right clips, summed in another order, is the same score


@dataclass(frozen=True)
class Score:
    """A score with its interval.

    Args:
        value: the mean over seeds and folds; most scores are 0..1.
        low, high: its 95 % interval over test clips and trainings.
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

    def __post_init__(self) -> None:
        round_fields(self, "value", "low", "high")

    @property
    def includes_zero(self) -> bool:
        """Whether its interval does: of a difference, that the two cannot be told apart.

        >>> Score(0.02, -0.01, 0.05, 1, 96).includes_zero, Score(0.02, 0.01, 0.05, 1, 96).includes_zero
        (True, False)
        """
        return self.low <= 0 <= self.high

    def __str__(self) -> str:
        seeds = "1 seed" if self.num_seeds == 1 else f"{self.num_seeds} seeds"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] ({seeds}, {self.num_clips} clips)"


def round_fields(scored: object, *names: str) -> None:
    """Round fields of a frozen dataclass to `DECIMALS`, so that equal scores are equal numbers."""
    for name in names:
        object.__setattr__(scored, name, round(getattr(scored, name), DECIMALS))


def accuracy(targets: Int[np.ndarray, " clip"], scores: Float[np.ndarray, "clip class"]) -> float:
    """The share of clips whose highest score is the target's; every clip counts the same (micro).

    >>> accuracy(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]))
    0.5
    """
    return _plain(weighted_accuracy, targets, scores)


def macro_accuracy(targets: Int[np.ndarray, " clip"], scores: Float[np.ndarray, "clip class"]) -> float:
    """The same share within each class that occurs, averaged over classes; every class counts the same.

    Source: scikit-learn's `balanced_accuracy_score`, to which it is equal.

    >>> macro_accuracy(np.array([0, 0, 0, 1]), np.array([[0.9, 0.1]] * 4))
    0.5
    """
    return _plain(weighted_macro_accuracy, targets, scores)


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
    return _plain(weighted_mean_average_precision, targets, scores)


def mean_roc_auc(targets: Bool[np.ndarray, "clip class"], scores: Float[np.ndarray, "clip class"]) -> float:
    """Area under the ROC curve of each class against the rest, averaged over classes that some clips have and some not.

    Returns:
        0..1, 0.5 for random scores; NaN if there is no such class.

    Source: scikit-learn's `roc_auc_score` (macro, one against the rest), to which it is equal, ties included.
    Deviates: classes that all clips or none have are left out, where scikit-learn gives no result.

    >>> mean_roc_auc(np.array([[True], [False], [True]]), np.array([[0.2], [0.2], [0.7]]))
    0.75
    """
    return _plain(weighted_mean_roc_auc, targets, scores)


def d_prime(roc_auc: float) -> float:
    """The distance, in standard deviations, of two normal distributions whose ROC curve has this area.

    Args:
        roc_auc: 0..1; of several classes their mean, as in papers on AudioSet.

    Returns:
        0 for random scores, infinite for an area of 1.

    Source: Gemmeke et al. (2017), "Audio Set". Deviates: not at all.

    >>> round(d_prime(0.968), 2)
    2.62
    """
    from scipy.special import ndtri  # here, as it takes a quarter of a second to import

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
        scores: of every seed's training; only their order within a clip (accuracy) or a class (mAP) matters.
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
    ends = interval(resampled, float(value), num_clips, num_drawn(groups), is_share=targets.ndim == 1)
    return Score(float(value), *ends, num_seeds, num_clips)


def statistic_of(targets: Targets, scores: Float[np.ndarray, "seed clip class"]) -> Statistic:
    """`score_of` as a statistic for `bootstrap`."""
    count = weighted_accuracy if targets.ndim == 1 else weighted_mean_average_precision
    return lambda clips, weight: count(targets[clips], scores[:, clips], weight)


def _plain(count: Callable[..., np.ndarray], targets: Targets, scores: Float[np.ndarray, "clip class"]) -> float:
    return float(count(targets, scores[None], np.ones((len(targets), 1), np.float32))[0, 0])


def weighted_accuracy(targets: Int[np.ndarray, " clip"], scores: Scores, weight: Weight) -> Resampled:
    """The share of clips whose highest score is the target's, for every seed."""
    correct = (scores.argmax(axis=2) == targets).astype(np.float32)
    with np.errstate(invalid="ignore"):
        return (correct @ weight).astype(np.float64) / weight.sum(axis=0, dtype=np.float64)


def weighted_macro_accuracy(targets: Int[np.ndarray, " clip"], scores: Scores, weight: Weight) -> Resampled:
    """The share within each class, averaged over the classes that were drawn, for every seed."""
    classes = [targets == label for label in np.unique(targets)]
    return mean_over_classes(
        np.stack([weighted_accuracy(targets[own], scores[:, own], weight[own]) for own in classes], axis=1)
    )


def weighted_mean_average_precision(flags: Flags, scores: Scores, weight: Weight) -> Resampled:
    """Average precision, averaged over the classes that were drawn, for every seed."""
    return mean_over_classes(weighted_by_class(weighted_average_precision, flags, scores, weight))


def weighted_mean_roc_auc(flags: Flags, scores: Scores, weight: Weight) -> Resampled:
    """Area under the ROC curve of each class against the rest, averaged over the classes drawn, for every seed."""
    return mean_over_classes(weighted_by_class(weighted_roc_auc, flags, scores, weight))


def weighted_by_class(
    of_class: Callable[..., Float[np.ndarray, " resample"]], flags: Flags, scores: Scores, weight: Weight
) -> ByClass:
    """A score of one class, for every seed and class; NaN for classes that no clip has."""
    result = np.full((len(scores), flags.shape[1], weight.shape[1]), np.nan)
    for label in np.flatnonzero(flags.any(axis=0)):
        for seed, of_seed in enumerate(scores):
            result[seed, label] = of_class(flags[:, label], of_seed[:, label], weight)
    return result


def mean_over_classes(values: ByClass) -> Resampled:
    """The mean over classes, of those that are not NaN."""
    drawn = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(drawn, values, 0).sum(axis=1) / drawn.sum(axis=1)


def weighted_average_precision(
    positive: Bool[np.ndarray, " clip"], score: Float[np.ndarray, " clip"], weight: Weight
) -> Float[np.ndarray, " resample"]:
    """Average precision of one class, by the step-wise definition; clips of equal score have one rank.

    Recall rises only at runs of equal scores that hold a positive clip, so precision is computed at their ends.
    """
    order, _, ends = _ranked(positive, score)
    num_hits = _hits(positive, score, weight)
    num_seen = np.add.reduceat(weight[order[: ends[-1]]], np.concatenate([[0], ends[:-1]]), axis=0).cumsum(axis=0)
    num_found = num_hits.cumsum(axis=0)
    precision = num_found / np.maximum(num_seen, 1)
    with np.errstate(invalid="ignore"):
        return (num_hits * precision).sum(axis=0) / num_found[-1]


def weighted_roc_auc(
    positive: Bool[np.ndarray, " clip"], score: Float[np.ndarray, " clip"], weight: Weight
) -> Float[np.ndarray, " resample"]:
    """The probability that a clip of the class scores above one that is not; equal scores count half."""
    order, starts, ends = _ranked(positive, score)
    num_hits = _hits(positive, score, weight)
    num_seen = np.concatenate([np.zeros_like(weight[:1]), weight[order].cumsum(axis=0)])
    num_found = num_hits.cumsum(axis=0)
    num_above = num_seen[starts] - (num_found - num_hits)  # clips of other classes that rank above those of each run
    num_not_below = num_seen[ends] - num_found
    lost = (num_hits * (num_above + num_not_below)).sum(axis=0) / 2
    with np.errstate(invalid="ignore"):
        return 1 - lost / (num_found[-1] * (num_seen[-1] - num_found[-1]))


def _ranked(
    positive: Bool[np.ndarray, " clip"], score: Float[np.ndarray, " clip"]
) -> tuple[Int[np.ndarray, " clip"], Int[np.ndarray, " run"], Int[np.ndarray, " run"]]:
    """Clips from the highest score down, and where in that order each run of equal scores with a positive lies."""
    order = np.argsort(-score, kind="stable")
    ranked, hit = score[order], positive[order]
    run = np.concatenate([[0], np.cumsum(ranked[1:] != ranked[:-1])])
    hit_runs = np.unique(run[hit])
    return order, np.searchsorted(run, hit_runs), np.searchsorted(run, hit_runs, side="right")


def _hits(
    positive: Bool[np.ndarray, " clip"], score: Float[np.ndarray, " clip"], weight: Weight
) -> Float[np.ndarray, "run resample"]:
    """The weight of positives in each run of equal scores that holds one, from the highest score down."""
    hits = np.flatnonzero(positive)
    hits = hits[np.argsort(-score[hits], kind="stable")]
    firsts = np.unique(-score[hits], return_index=True)[1]
    return np.add.reduceat(weight[hits], firsts, axis=0)
