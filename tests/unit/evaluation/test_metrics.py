"""Scores equal scikit-learn's, and intervals hold what they promise."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from melmask.evaluation import bootstrap, metrics
from melmask.evaluation.metrics import (
    accuracy,
    d_prime,
    macro_accuracy,
    mean_average_precision,
    mean_roc_auc,
    score_of,
    score_with_interval,
    statistic_of,
)


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


def test_macro_accuracy_equals_sklearn() -> None:
    rng = np.random.default_rng(0)
    targets, scores = rng.choice([0, 1, 1, 1, 2], size=90), rng.random((90, 3))
    expected = balanced_accuracy_score(targets, scores.argmax(axis=1))
    assert macro_accuracy(targets, scores) == pytest.approx(expected)
    assert macro_accuracy(targets, scores) != pytest.approx(accuracy(targets, scores), abs=1e-3)


@pytest.mark.parametrize("num_levels", [3, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_roc_auc_equals_sklearn(seed: int, num_levels: int) -> None:
    flags, scores = _labelled(np.random.default_rng(seed), 60, 5, num_levels)
    assert mean_roc_auc(flags, scores) == pytest.approx(roc_auc_score(flags, scores), abs=1e-6)
    always = np.hstack([flags, np.ones((60, 1), bool), np.zeros((60, 1), bool)])
    assert mean_roc_auc(always, np.hstack([scores, scores[:, :2]])) == mean_roc_auc(flags, scores)
    assert np.isnan(mean_roc_auc(np.ones((4, 1), bool), np.zeros((4, 1))))


@pytest.mark.parametrize("name", ["accuracy", "macro_accuracy", "mean_average_precision", "mean_roc_auc"])
def test_a_weight_counts_a_clip_as_often(name: str) -> None:
    rng = np.random.default_rng(0)
    flags, scores = _labelled(rng, 40, 4, 6)
    targets = rng.integers(4, size=40) if "accuracy" in name else flags
    weight = rng.integers(3, size=(40, 20)).astype(np.float32)
    count = getattr(metrics, f"weighted_{name}")
    counted = count(targets, np.stack([scores, scores[::-1]]), weight)
    for resample in range(20):
        clips = np.repeat(np.arange(40), weight[:, resample].astype(int))
        for row, one in enumerate((scores, scores[::-1])):
            again = count(targets[clips], one[None, clips], np.ones((len(clips), 1), np.float32))
            assert counted[row, resample] == pytest.approx(again[0, 0], abs=1e-6)


def test_d_prime_is_the_distance_of_two_normal_distributions() -> None:
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((40_000, 1)) + 1.5 * (np.arange(40_000) % 2)[:, None]
    assert d_prime(mean_roc_auc((np.arange(40_000) % 2 == 1)[:, None], scores)) == pytest.approx(1.5, abs=0.03)
    assert (d_prime(0.5), d_prime(1.0)) == (0, np.inf)


def test_value_is_the_mean_over_folds_and_seeds() -> None:
    is_correct = np.array([[1, 1, 1, 0, 0], [1, 1, 0, 0, 1]])
    folds = np.array([0, 0, 0, 1, 1])
    score = score_with_interval(*_correct(is_correct), folds=folds)
    assert score.value == pytest.approx((1 + 2 / 3 + 0 + 1 / 2) / 4)
    assert (score.num_seeds, score.num_clips) == (2, 5)
    assert score.low <= score.value <= score.high


def test_as_many_right_clips_are_the_same_score_in_whatever_folds() -> None:
    folds = np.repeat([0, 1, 2], 7)
    values = set()
    for first in range(8):
        for second in range(8 - first):
            right = np.concatenate([np.arange(7) < count for count in (first, second, 7 - first - second)])
            scores = np.stack([right, ~right], axis=1)[None].astype(np.float32)
            values.add(score_with_interval(np.zeros(21, int), scores, folds=folds, num_resamples=20).value)
    assert values == {0.333333333}


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


def test_interval_covers_the_truth_when_trainings_differ() -> None:
    """Three trainings of different luck: an interval over speakers alone is too narrow, one over both is not."""
    rng, num_trials, covered, covered_by_clips = np.random.default_rng(0), 200, 0, 0
    groups = np.repeat(np.arange(50), 8)
    for _ in range(num_trials):
        chance = 0.6 + 0.08 * rng.standard_normal((3, 1)) + 0.1 * rng.standard_normal(50)[groups]
        is_correct = rng.random((3, 400)) < chance
        score = score_with_interval(*_correct(is_correct), groups=groups, num_resamples=200)
        covered += score.low <= 0.6 <= score.high
        for_sure = np.sort(rng.choice(is_correct.mean(axis=0).reshape(50, 8).mean(axis=1), (200, 50)).mean(axis=1))
        covered_by_clips += for_sure[4] <= 0.6 <= for_sure[195]
    assert 0.85 <= covered / num_trials <= 0.99
    assert covered_by_clips / num_trials < 0.75


def test_all_right_is_no_certainty() -> None:
    """40 of 40 clips: Wilson's interval, of groups where clips come in groups; scipy has the same."""
    from scipy.stats import binomtest

    for value, groups, num_trials in ((1, None, 40), (0, None, 40), (1, np.repeat(np.arange(8), 5), 8)):
        score = score_with_interval(*_correct(np.full((1, 40), value)), groups=groups, num_resamples=100)
        expected = binomtest(value * num_trials, num_trials).proportion_ci(method="wilson")
        assert (score.low, score.high) == pytest.approx(tuple(expected))
    flags = np.eye(2, dtype=bool)[np.arange(40) % 2]
    perfect = score_with_interval(flags, flags[None].astype(float), num_resamples=100)
    assert (perfect.value, perfect.high) == (1, 1) and 0.9 < perfect.low < 0.95
    assert bootstrap.interval_of_difference(np.zeros(9), 0.0, 40) == pytest.approx((-0.0876, 0.0876), abs=1e-4)
    assert bootstrap.interval_of_difference(np.ones(9), 1.0, 40) == pytest.approx((1 - 0.0876, 1), abs=1e-4)


@pytest.mark.parametrize("chance", [0.01, 0.03, 0.97, 0.99])
@pytest.mark.parametrize("size", [1, 5])
def test_interval_covers_the_truth_at_the_edge(chance: float, size: int) -> None:
    """Near 0 and 1, with clips alone and in groups of five that are right or wrong together."""
    rng, num_trials, covered, covered_by_resamples = np.random.default_rng(0), 150, 0, 0
    groups = np.repeat(np.arange(40), size)
    for _ in range(num_trials):
        task = _correct((rng.random(40) < chance)[groups][None])
        score = score_with_interval(*task, groups=groups, num_resamples=100)
        _, resampled = bootstrap.bootstrap(statistic_of(*task), len(groups), 1, groups=groups, num_resamples=100)
        low, high = bootstrap.interval(resampled)
        covered += score.low <= chance <= score.high
        covered_by_resamples += low <= chance <= high
    assert covered / num_trials >= 0.92 and covered_by_resamples / num_trials < 0.75


def test_one_training_adds_no_width() -> None:
    is_correct = np.arange(100)[None] % 3 > 0
    alone, thrice = (score_with_interval(*_correct(np.repeat(is_correct, n, axis=0))) for n in (1, 3))
    assert (alone.low, alone.high) == (thrice.low, thrice.high)


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
    drawn_seeds = np.random.default_rng([3, 1]).integers(2, size=(40, 1))  # one of two: one fewer than there are
    values = []
    for resample, (drawn_seed,) in zip(drawn, drawn_seeds, strict=True):
        clips = np.concatenate([np.flatnonzero(groups == group) for group in resample])
        total, shares = 0.0, 0.0
        for fold in (0, 1):
            inside = clips[folds[clips] == fold]
            occurs = flags[inside].any(axis=0)
            share = len(inside) / 25
            shares += share
            args = flags[inside][:, occurs], scores[drawn_seed][inside][:, occurs]
            total += share * average_precision_score(*args, average="macro")
        values.append(total / shares)
    assert (score.low, score.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=1e-6)


def test_interval_does_not_depend_on_how_resamples_are_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    flags, scores = _labelled(rng, 50, 3, 8)
    whole = score_with_interval(flags, scores[None], num_resamples=50)
    monkeypatch.setattr(bootstrap, "MAX_WEIGHTS", 350)
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
