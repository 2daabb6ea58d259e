"""Accuracy and mean average precision, with the interval that the test clips allow."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

Metric = Literal["accuracy", "mAP"]
NUM_RESAMPLES = 2000
MAX_WEIGHTS = 8_000_000  # values of one chunk of resamples: 32 MB


@dataclass(frozen=True)
class Score:
    """A figure as it is to be reported.

    Args:
        value: accuracy or mean average precision, 0..1: the mean over seeds and folds.
        low, high: its 95 % interval over the choice of test clips.
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
    """The share of clips whose highest score is the target's.

    >>> accuracy(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]))
    0.5
    """
    return float((scores.argmax(axis=1) == targets).mean())


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
    return float(_weighted_map(targets, scores, np.ones((len(targets), 1), np.float32))[0])


def score_of(
    targets: Int[np.ndarray, " clip"] | Bool[np.ndarray, "clip class"], scores: Float[np.ndarray, "clip class"]
) -> float:
    """Accuracy for one label a clip, mean average precision for any number of labels a clip."""
    return accuracy(targets, scores) if targets.ndim == 1 else mean_average_precision(targets, scores)


def score_with_interval(
    targets: Int[np.ndarray, " clip"] | Bool[np.ndarray, "clip class"],
    scores: Float[np.ndarray, "seed clip class"],
    *,
    folds: Int[np.ndarray, " clip"] | None = None,
    groups: Int[np.ndarray, " clip"] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Score:
    """The mean over folds and seeds, with a 95 % interval by a bootstrap over groups of test clips.

    Each fold is scored on its own, since scores of different trainings do not compare, and the value is the mean over
    folds. For the interval whole groups are drawn with replacement, from all folds together; in a resample a fold
    counts by how much of it was drawn. (Drawing within folds would give no width at all where a fold is one speaker.)
    Seeds see the same resamples: what is averaged over them is each clip's correctness, or the average precision.

    Args:
        targets: a class per clip, or class flags for several labels a clip.
        scores: of every seed's training; only their order within a clip (accuracy) or a class (mAP) counts.
        folds: the test fold of each clip, 0..k-1; None is one fold.
        groups: numbers 0.. of what is drawn as a whole, such as speakers; None, or one group only, draws single clips.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: no clips, or a fold of several labels a clip in which no clip has any.

    Source: Efron & Tibshirani (1993), percentile bootstrap; Field & Welsh (2007) on clusters.
    """
    num_seeds, num_clips = scores.shape[:2]
    if not num_clips:
        raise ValueError("no test clips to score: check the folds asked for")
    folds = np.zeros(num_clips, np.int64) if folds is None else folds
    if groups is None or groups.min() == groups.max():
        groups = np.arange(num_clips)
    members = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    value = np.mean([[score_of(targets[clips], seed_scores[clips]) for clips in members] for seed_scores in scores])

    num_groups = int(groups.max()) + 1
    rng = np.random.default_rng(seed)
    chunk = max(1, MAX_WEIGHTS // max(num_clips, num_groups))
    resampled: list[np.ndarray] = []
    for start in range(0, num_resamples, chunk):
        weight = _draw(groups, num_groups, min(chunk, num_resamples - start), rng)
        share = np.stack([weight[clips].mean(axis=0) for clips in members])
        with np.errstate(invalid="ignore"):  # 0 / 0 of a fold of which nothing was drawn: it has no share either
            per_fold = np.stack([_weighted(targets[clips], scores[:, clips], weight[clips]) for clips in members])
        share[np.isnan(per_fold)] = 0
        resampled.append((share * np.nan_to_num(per_fold)).sum(axis=0) / share.sum(axis=0))
    low, high = np.quantile(np.concatenate(resampled), [0.025, 0.975])
    return Score(float(value), float(low), float(high), num_seeds, num_clips)


def _draw(
    groups: Int[np.ndarray, " clip"], num_groups: int, num_resamples: int, rng: np.random.Generator
) -> Float[np.ndarray, "clip resample"]:
    """How often each clip is drawn when as many groups as there are get drawn with replacement."""
    present = np.unique(groups)
    drawn = present[rng.integers(len(present), size=(num_resamples, len(present)))]
    flat = drawn + num_groups * np.arange(num_resamples)[:, None]
    counts = np.bincount(flat.ravel(), minlength=num_resamples * num_groups).reshape(num_resamples, num_groups)
    return np.ascontiguousarray(counts.T.astype(np.float32)[groups])


def _weighted(
    targets: np.ndarray, scores: Float[np.ndarray, "seed clip class"], weight: Float[np.ndarray, "clip resample"]
) -> Float[np.ndarray, " resample"]:
    """The score of each resample, averaged over seeds; NaN where nothing was drawn that could be scored."""
    if targets.ndim == 1:
        correct = (scores.argmax(axis=2) == targets).mean(axis=0)
        return correct.astype(np.float32) @ weight / weight.sum(axis=0)
    return np.mean([_weighted_map(targets, seed_scores, weight) for seed_scores in scores], axis=0)


def _weighted_map(
    targets: Bool[np.ndarray, "clip class"],
    scores: Float[np.ndarray, "clip class"],
    weight: Float[np.ndarray, "clip resample"],
) -> Float[np.ndarray, " resample"]:
    """The mean of average precision over the classes that were drawn; NaN where none was."""
    total, num_drawn = np.zeros(weight.shape[1]), np.zeros(weight.shape[1])
    for label in np.flatnonzero(targets.any(axis=0)):
        precision, drawn = _average_precision(targets[:, label], scores[:, label], weight)
        total += precision
        num_drawn += drawn
    with np.errstate(invalid="ignore"):
        return total / num_drawn


def _average_precision(
    positive: Bool[np.ndarray, " clip"], score: Float[np.ndarray, " clip"], weight: Float[np.ndarray, "clip resample"]
) -> tuple[Float[np.ndarray, " resample"], Bool[np.ndarray, " resample"]]:
    """Average precision of one class under many weightings of the clips, and which of them hold a positive clip.

    Precision changes where recall rises, so the ranking is cut behind each run of equal scores that holds a positive.
    """
    order = np.argsort(-score, kind="stable")
    ranked, hit = score[order], positive[order]
    run = np.concatenate([[0], np.cumsum(ranked[1:] != ranked[:-1])])  # clips of equal score share a run
    hit_runs, first_hit = np.unique(run[hit], return_index=True)
    ends = np.searchsorted(run, hit_runs, side="right")
    starts = np.concatenate([[0], ends[:-1]])
    num_seen = np.add.reduceat(weight[order[: ends[-1]]], starts, axis=0).cumsum(axis=0)
    num_hits = np.add.reduceat(weight[order[hit]], first_hit, axis=0)
    num_found = num_hits.cumsum(axis=0)
    precision = num_found / np.maximum(num_seen, 1)
    num_positive = num_found[-1]
    return (num_hits * precision).sum(axis=0) / np.maximum(num_positive, 1), num_positive > 0
