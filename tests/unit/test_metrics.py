"""Scores equal scikit-learn's, and intervals hold what they promise."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from melmask.evaluate import metrics
from melmask.evaluate.metrics import accuracy, mean_average_precision, score_of, score_with_interval


def _labelled(rng: np.random.Generator, num_clips: int, num_classes: int, num_levels: int):
    """Random flags and scores with many ties; every class occurs."""
    flags = rng.random((num_clips, num_classes)) < 0.2
    flags[:num_classes] |= np.eye(num_classes, dtype=bool)
    return flags, (rng.integers(num_levels, size=flags.shape) + flags * (num_levels // 3)) / num_levels


def _correct(is_correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Targets and scores [seed clip class] of two classes with the given correctness [seed clip]."""
    return np.zeros(is_correct.shape[1], int), np.stack([is_correct, 1 - is_correct], axis=2).astype(np.float32)


def test_accuracy() -> None:
    scores = np.array([[0.1, 0.9], [0.6, 0.4], [0.2, 0.8]])
    assert accuracy(np.array([1, 0, 0]), scores) == pytest.approx(2 / 3)
    assert score_of(np.array([1, 0, 0]), scores) == accuracy(np.array([1, 0, 0]), scores)


@pytest.mark.parametrize("num_levels", [3, 1000])
@pytest.mark.parametrize("seed", range(5))
def test_mean_average_precision_equals_sklearn(seed: int, num_levels: int) -> None:
    flags, scores = _labelled(np.random.default_rng(seed), 60, 5, num_levels)
    expected = average_precision_score(flags, scores, average="macro")
    assert mean_average_precision(flags, scores) == pytest.approx(expected, abs=1e-6)


def test_classes_that_do_not_occur_are_left_out_of_the_mean() -> None:
    flags, scores = _labelled(np.random.default_rng(0), 60, 3, 10)
    padded = np.pad(flags, ((0, 0), (0, 2))), np.pad(scores, ((0, 0), (0, 2)), constant_values=0.5)
    assert mean_average_precision(*padded) == mean_average_precision(flags, scores)
    with pytest.raises(ValueError, match="labelled clip"):
        mean_average_precision(np.zeros((4, 2), bool), np.zeros((4, 2)))


def test_value_is_the_mean_over_folds_and_seeds() -> None:
    is_correct = np.array([[1, 1, 1, 0, 0], [1, 1, 0, 0, 1]])
    folds = np.array([0, 0, 0, 1, 1])
    score = score_with_interval(*_correct(is_correct), folds=folds)
    assert score.value == pytest.approx((1 + 2 / 3 + 0 + 1 / 2) / 4)
    assert (score.num_seeds, score.num_clips) == (2, 5)
    assert score.low <= score.value <= score.high


def test_interval_of_a_proportion() -> None:
    """For single clips and one fold the bootstrap is the binomial law."""
    is_correct = np.arange(400)[None] % 4 > 0
    score = score_with_interval(*_correct(is_correct))
    half = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert (score.low, score.high) == pytest.approx((0.75 - half, 0.75 + half), abs=0.006)


def test_interval_covers_the_truth_when_clips_come_in_groups() -> None:
    """Speakers differ: an interval over groups covers their mean, and one over clips is far too narrow."""
    rng, num_trials, covered, covered_by_clips = np.random.default_rng(0), 150, 0, 0
    for _ in range(num_trials):
        groups = np.repeat(np.arange(40), 15)
        is_correct = rng.random((1, 600)) < rng.beta(3, 2, size=40)[groups]
        task = _correct(is_correct)
        score = score_with_interval(*task, groups=groups, folds=groups % 5, num_resamples=200)
        covered += score.low <= 0.6 <= score.high
        score = score_with_interval(*task, folds=groups % 5, num_resamples=200)
        covered_by_clips += score.low <= 0.6 <= score.high
    assert 0.88 <= covered / num_trials <= 0.99
    assert covered_by_clips / num_trials < 0.75


def test_interval_has_width_where_every_fold_is_one_group() -> None:
    is_correct = np.repeat([0.0, 1.0, 1.0, 1.0], 50)[None]
    groups = np.repeat(np.arange(4), 50)
    score = score_with_interval(*_correct(is_correct), groups=groups, folds=groups)
    assert (score.value, score.low, score.high) == (0.75, 0.25, 1.0)


def test_one_group_falls_back_to_clips() -> None:
    is_correct = np.arange(100)[None] % 2
    alone = score_with_interval(*_correct(is_correct), groups=np.zeros(100, int))
    assert alone == score_with_interval(*_correct(is_correct))
    assert alone.high - alone.low > 0.1


def test_interval_of_map_equals_scoring_clips_drawn_twice_twice() -> None:
    rng = np.random.default_rng(0)
    flags, scores = _labelled(rng, 50, 3, 8)
    scores = np.stack([scores, rng.permuted(scores, axis=1)])
    folds, groups = np.arange(50) % 2, np.arange(50) // 5 * 2 + np.arange(50) % 2
    score = score_with_interval(flags, scores, folds=folds, groups=groups, num_resamples=40, seed=3)

    drawn = np.random.default_rng(3).integers(20, size=(40, 20))
    values = []
    for resample in drawn:
        clips = np.concatenate([np.flatnonzero(groups == group) for group in resample])
        total, shares = 0.0, 0.0
        for fold in (0, 1):
            inside = clips[folds[clips] == fold]
            occurs = flags[inside].any(axis=0)
            share = len(inside) / 25
            shares += share
            for seed_scores in scores:
                args = flags[inside][:, occurs], seed_scores[inside][:, occurs]
                total += share / 2 * average_precision_score(*args, average="macro")
        values.append(total / shares)
    assert (score.low, score.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=1e-6)


def test_interval_does_not_depend_on_how_resamples_are_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    flags, scores = _labelled(rng, 50, 3, 8)
    whole = score_with_interval(flags, scores[None], num_resamples=50)
    monkeypatch.setattr(metrics, "MAX_WEIGHTS", 350)
    assert score_with_interval(flags, scores[None], num_resamples=50) == whole
    assert score_with_interval(flags, scores[None], num_resamples=50, seed=1) != whole


def test_interval_copes_with_resamples_that_miss_a_class() -> None:
    flags = np.zeros((30, 2), bool)
    flags[0, 0] = flags[1:, 1] = True  # in a third of all resamples the first class does not occur
    score = score_with_interval(flags, np.random.default_rng(0).random((2, 30, 2)))
    assert 0 <= score.low <= score.value <= score.high <= 1


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(ValueError, match="no test clips"):
        score_with_interval(np.zeros(0, int), np.zeros((1, 0, 2)))
