"""Scores under many weightings of the clips at once: what a bootstrap counts, one column for each of its resamples.

A weight says how often a clip was drawn. A column of ones gives the plain score. Where nothing was drawn that could be
scored, the result is NaN.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

Flags = Bool[np.ndarray, "clip num_classes"]
Scores = Float[np.ndarray, "seed clip num_classes"]
Weight = Float[np.ndarray, "clip resample"]
Resampled = Float[np.ndarray, "seed resample"]
ByClass = Float[np.ndarray, "seed num_classes resample"]


def accuracy(targets: Int[np.ndarray, " clip"], scores: Scores, weight: Weight) -> Resampled:
    """The share of clips whose highest score is the target's, of every seed."""
    correct = (scores.argmax(axis=2) == targets).astype(np.float32)
    with np.errstate(invalid="ignore"):
        return (correct @ weight).astype(np.float64) / weight.sum(axis=0, dtype=np.float64)


def macro_accuracy(targets: Int[np.ndarray, " clip"], scores: Scores, weight: Weight) -> Resampled:
    """The same share within each class, averaged over the classes that were drawn, of every seed."""
    classes = [targets == label for label in np.unique(targets)]
    return mean_drawn(np.stack([accuracy(targets[own], scores[:, own], weight[own]) for own in classes], axis=1))


def mean_average_precision(flags: Flags, scores: Scores, weight: Weight) -> Resampled:
    """Average precision, averaged over the classes that were drawn, of every seed."""
    return mean_drawn(by_class(average_precision, flags, scores, weight))


def mean_roc_auc(flags: Flags, scores: Scores, weight: Weight) -> Resampled:
    """Area under the ROC curve of each class against the rest, averaged over the classes drawn, of every seed."""
    return mean_drawn(by_class(roc_auc, flags, scores, weight))


def by_class(
    of_class: Callable[..., Float[np.ndarray, " resample"]], flags: Flags, scores: Scores, weight: Weight
) -> ByClass:
    """A score of one class, for every seed and class; NaN for classes that no clip has."""
    result = np.full((len(scores), flags.shape[1], weight.shape[1]), np.nan)
    for label in np.flatnonzero(flags.any(axis=0)):
        for seed, of_seed in enumerate(scores):
            result[seed, label] = of_class(flags[:, label], of_seed[:, label], weight)
    return result


def mean_drawn(values: ByClass) -> Resampled:
    """The mean over classes, of those that are not NaN."""
    drawn = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(drawn, values, 0).sum(axis=1) / drawn.sum(axis=1)


def average_precision(
    positive: Bool[np.ndarray, " clip"], score: Float[np.ndarray, " clip"], weight: Weight
) -> Float[np.ndarray, " resample"]:
    """Average precision of one class, by the step-wise definition; clips of equal score count as found together.

    Precision changes where recall rises, so the ranking is cut behind each run of equal scores that holds a positive.
    """
    order, _, ends = _ranked(positive, score)
    num_hits = _hits(positive, score, weight)
    num_seen = np.add.reduceat(weight[order[: ends[-1]]], np.concatenate([[0], ends[:-1]]), axis=0).cumsum(axis=0)
    num_found = num_hits.cumsum(axis=0)
    precision = num_found / np.maximum(num_seen, 1)
    with np.errstate(invalid="ignore"):
        return (num_hits * precision).sum(axis=0) / num_found[-1]


def roc_auc(
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
