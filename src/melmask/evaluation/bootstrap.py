"""The bootstrap: confidence intervals over groups of test clips and over trainings."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

NUM_RESAMPLES = 2000
NUM_RARE = 5  # clips that are right, or wrong: with fewer the resamples alone are too narrow
Z_95 = 1.959963984540054
MAX_WEIGHTS = 8_000_000  # values of one chunk of resamples: 32 MB

# (clips, their weights [clip resample]) -> scores of every seed [seed *more resample], NaN where there is none
Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]


def bootstrap(
    statistic: Statistic,
    num_clips: int,
    num_seeds: int,
    *,
    folds: Int[np.ndarray, " clip"] | None = None,
    groups: Int[np.ndarray, " clip"] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> tuple[Float[np.ndarray, "*more"], Float[np.ndarray, "*more resample"]]:
    """Compute one or several scores, and resample them over test clips and trainings.

    Each fold is scored on its own, as probabilities of different trainings cannot be compared, and the value is the
    mean over folds. Whole groups are drawn with replacement, from all folds together; in a resample a fold is weighted
    by the number of its clips that are drawn. (Drawing within folds would give an interval without width where a fold
    is one speaker.) Trainings are drawn independently of the clips, the same ones in every fold; one fewer than there
    are, as otherwise the variance of three trainings would be a third too small. The draws depend on groups, folds and
    seed alone: two encoders on the same clips get the same ones, so that their difference is paired.

    Args:
        statistic: scores clips under many weightings at once, as the ``weighted_...`` functions of
            `melmask.evaluation.metrics` do; where it is NaN depends on labels alone, so it is NaN for all seeds.
        num_clips: test clips; folds and groups have as many rows.
        num_seeds: trainings, one row of the statistic each.
        folds: the test fold of each clip; None is one fold.
        groups: numbers 0.. of what is drawn as a whole, such as speakers; None, or one group only, draws single clips.
        num_resamples: number of resamples.
        seed: of the draws.

    Returns:
        The values, and those of each resample; NaN where nothing can be scored.

    Raises:
        ValueError: no clips.

    Source: Owen (2007), "The pigeonhole bootstrap", on drawing two factors independently; Field & Welsh (2007) on
    clusters; Rao & Wu (1988) on drawing one fewer.
    """
    if not num_clips:
        raise ValueError("no test clips to score: check the folds asked for")
    folds = np.zeros(num_clips, np.int64) if folds is None else folds
    if groups is None or groups.min() == groups.max():
        groups = np.arange(num_clips)
    members = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    plain = np.stack([statistic(clips, np.ones((len(clips), 1), np.float32)).mean(axis=(0, -1)) for clips in members])
    value = _weighted_mean(plain, np.ones_like(plain))

    num_groups = int(groups.max()) + 1
    rng = np.random.default_rng(seed)
    seed_share = _draw_seeds(num_seeds, num_resamples, np.random.default_rng([seed, 1]))
    chunk = max(1, MAX_WEIGHTS // max(num_clips, num_groups))
    resampled = []
    for start in range(0, num_resamples, chunk):
        drawn_seeds = seed_share[:, start : start + chunk]
        weight = _draw(groups, num_groups, drawn_seeds.shape[1], rng)
        share = np.stack([weight[clips].mean(axis=0) for clips in members])
        per_fold = np.stack(
            [np.einsum("s...r,sr->...r", statistic(clips, weight[clips]), drawn_seeds) for clips in members]
        )
        share = share.reshape(len(members), *[1] * (per_fold.ndim - 2), -1)
        resampled.append(_weighted_mean(per_fold, np.broadcast_to(share, per_fold.shape)))
    return value, np.concatenate(resampled, axis=-1)


def interval(
    resampled: Float[np.ndarray, " resample"],
    value: float = float("nan"),
    num_clips: int = 0,
    num_groups: int | None = None,
    *,
    is_share: bool = False,
) -> tuple[float, float]:
    """The central 95 % of the resamples that could be scored; at the edge joined with Wilson's interval.

    Where all clips are right, every resample is, and the resamples have no width: 40 of 40 right would be 100 to 100.
    Resamples of few wrong (or few right) clips are nearly as blind. So where they have no width, and for shares of
    clips of which fewer than `NUM_RARE` are right or wrong, the interval reaches at least as far as Wilson's does for
    as many trials as groups were drawn: clips of one group count as one, the cautious choice.

    Args:
        resampled: the score of every resample.
        value: the score itself.
        num_clips: behind it; 0 for a number that is no score within 0..1, which has the resamples alone.
        num_groups: of these clips; None where each is drawn singly.
        is_share: whether it is a share of the clips, such as accuracy and recall, and not mAP.

    Source: Efron & Tibshirani (1993), percentile bootstrap; Wilson (1927) at the edge.

    >>> low, high = interval(np.ones(2000), 1.0, 40)
    >>> round(low, 3), high
    (0.912, 1.0)
    """
    if np.isnan(resampled).all():
        return float("nan"), float("nan")
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    num_rare = min(value, 1 - value) * num_clips if is_share else float("inf")
    if num_clips and 0 <= value <= 1 and (low == high or num_rare < NUM_RARE):
        least, most = wilson(value, num_clips if num_groups is None else num_groups)
        low, high = min(low, least), max(high, most)
    return float(low), float(high)


def interval_of_difference(
    resampled: Float[np.ndarray, " resample"], value: float, num_groups: int
) -> tuple[float, float]:
    """Likewise of the difference of two scores on the same clips.

    Where no clip sets the two apart in another way than all do, the resamples have no width. What share of other clips
    might is at most the upper end of Wilson's interval for none of as many trials as groups: as far it reaches.
    """
    low, high = interval(resampled)
    if low == high and num_groups:
        reach = wilson(0.0, num_groups)[1]
        low, high = max(-1.0, value - reach), min(1.0, value + reach)
    return low, high


def wilson(share: float, num_trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, as of scipy's ``binomtest(...).proportion_ci(method="wilson")``.

    Args:
        share: of trials that succeeded; of means over trainings no whole number of trials.
        num_trials: at least 1.

    Source: Wilson (1927), without a correction for continuity.
    """
    square = Z_95**2 / num_trials
    centre = (share + square / 2) / (1 + square)
    half = Z_95 / (1 + square) * np.sqrt(share * (1 - share) / num_trials + square / (4 * num_trials))
    return float(min(share, max(0.0, centre - half))), float(max(share, min(1.0, centre + half)))


def num_drawn(groups: Int[np.ndarray, " clip"] | None) -> int | None:
    """How many groups `bootstrap` draws from; None where it draws single clips."""
    num_groups = 0 if groups is None else len(np.unique(groups))
    return num_groups if num_groups > 1 else None


def _draw(
    groups: Int[np.ndarray, " clip"], num_groups: int, num_resamples: int, rng: np.random.Generator
) -> Float[np.ndarray, "clip resample"]:
    """How often each clip is drawn if as many groups as there are are drawn with replacement."""
    present = np.unique(groups)
    drawn = present[rng.integers(len(present), size=(num_resamples, len(present)))]
    flat = drawn + num_groups * np.arange(num_resamples)[:, None]
    counts = np.bincount(flat.ravel(), minlength=num_resamples * num_groups).reshape(num_resamples, num_groups)
    return np.ascontiguousarray(counts.T.astype(np.float32)[groups])


def _draw_seeds(num_seeds: int, num_resamples: int, rng: np.random.Generator) -> Float[np.ndarray, "seed resample"]:
    """The share of each training in every resample."""
    num_drawn = max(1, num_seeds - 1)
    drawn = rng.integers(num_seeds, size=(num_resamples, num_drawn))
    return (drawn[:, :, None] == np.arange(num_seeds)).mean(axis=1).T


def _weighted_mean(
    per_fold: Float[np.ndarray, "fold *more"], share: Float[np.ndarray, "fold *more"]
) -> Float[np.ndarray, "*more"]:
    """The mean over the folds in which anything could be scored."""
    share = np.where(np.isnan(per_fold), 0, share)
    with np.errstate(invalid="ignore"):
        return np.asarray((share * np.nan_to_num(per_fold)).sum(axis=0) / share.sum(axis=0))
