"""The few-shot probe: which clips are drawn, that all encoders get the same ones, and its notes."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from melmask.data.manifest import Clip
from melmask.evaluation.bootstrap import bootstrap, interval
from melmask.evaluation.metrics import accuracy
from melmask.evaluation.run import run_probe
from melmask.evaluation.splits import splits_of
from melmask.evaluation.task import Task, group_numbers, make_task
from melmask.probes import make_probe
from melmask.probes.fewshot import FewShotProbe


def _task(num_clips: int = 300) -> tuple[np.ndarray, Task]:
    """Three classes, three folds, thirty speakers that never stand in two folds."""
    rng = np.random.default_rng(0)
    y, group = rng.integers(3, size=num_clips), np.arange(num_clips) % 30
    features = (2 * np.eye(3, 20)[y] + rng.standard_normal((num_clips, 20))).astype(np.float32)
    rows = zip(y, group, strict=True)
    clips = [Clip(Path(f"/{i}.wav"), "abc"[label], str(g % 3), str(g), "toy") for i, (label, g) in enumerate(rows)]
    return features, make_task("toy", clips)


def test_a_draw_has_k_clips_of_every_class_each_once() -> None:
    targets = np.random.default_rng(0).integers(4, size=200)
    drawn = FewShotProbe(num_per_class=5).draw(targets, 4, seed=3)
    assert np.array_equal(np.bincount(targets[drawn]), [5] * 4)
    assert np.array_equal(drawn, np.unique(drawn))
    other = FewShotProbe(num_per_class=5).draw(targets, 4, seed=4)
    assert not np.array_equal(drawn, other)
    assert set(drawn) < set(FewShotProbe(num_per_class=10).draw(targets, 4, seed=3))


def test_every_clip_is_drawn_as_often() -> None:
    targets = np.repeat([0, 1], [20, 40])
    count = np.zeros(60)
    for seed in range(2000):
        count[FewShotProbe(num_per_class=5).draw(targets, 2, seed)] += 1
    expected = np.repeat([2000 * 5 / 20, 2000 * 5 / 40], [20, 40])
    chi_square = ((count - expected) ** 2 / expected).sum()
    assert chi_square < 100  # 58 on average, 100 once in two thousand


def test_a_class_of_few_clips_gives_all_it_has_and_labels_may_be_several() -> None:
    targets = np.repeat([0, 1], [3, 50])
    assert np.array_equal(np.bincount(targets[FewShotProbe(num_per_class=5).draw(targets, 2, 0)]), [3, 5])
    flags = np.random.default_rng(0).random((100, 4)) < [0.5, 0.3, 0.1, 0.05]
    drawn = FewShotProbe(num_per_class=5).draw(flags, 4, 0)
    assert (flags[drawn].sum(axis=0) >= np.minimum(5, flags.sum(axis=0))).all()
    assert len(drawn) <= 20


def test_a_draw_is_fitted_as_sklearn_fits_it() -> None:
    features, task = _task()
    x, y, test_x = features[:200], task.targets[:200], features[200:]
    probe = FewShotProbe(num_per_class=10, strength=0.3)
    nothing = np.zeros((0, 20), np.float32), np.zeros(0, int)
    found = probe.fit_predict(x, y, *nothing, test_x, num_classes=3, multilabel=False, seed=1, score=accuracy)
    drawn = probe.draw(y, 3, seed=1)
    expected = LogisticRegression(C=0.3, tol=1e-8, max_iter=2000).fit(x[drawn], y[drawn]).predict_proba(test_x)
    # L-BFGS stops where no partial derivative is above 1e-5, all 63 of them 8e-5 long. The curvature is at least
    # 1 / (0.3 * 30), so the weights are within 7e-4 of the optimum, and a probability within half the length of
    # features and bias, about 4.6, times that.
    assert found == pytest.approx(expected, abs=2e-3)


def test_a_draw_of_nearly_collinear_features_is_fitted_to_the_optimum() -> None:
    """With more features than clips, too, where the weights are found in the span of the clips."""
    rng, y = np.random.default_rng(0), np.arange(300) % 20
    for num_features in (60, 200):
        x = rng.normal(size=(300, num_features)) + 0.3 * rng.normal(size=(20, num_features))[y]
        x = x / np.arange(1, num_features + 1) ** 1.5 @ rng.normal(size=(num_features, num_features))
        x = (x / x.std(axis=0)).astype(np.float32)
        nothing = np.zeros((0, num_features), np.float32), np.zeros(0, int)
        keywords = {"num_classes": 20, "multilabel": False, "seed": 1, "score": accuracy}
        probe, early = (
            FewShotProbe(num_per_class=10, strength=10.0, **given) for given in ({}, {"max_iterations": 100})
        )
        drawn = probe.draw(y, 20, seed=1)
        optimum = LogisticRegression(C=10.0, tol=1e-8, max_iter=20_000).fit(x[drawn].astype(float), y[drawn])
        expected = optimum.predict_proba(x.astype(float))
        own, before = (one.fit_predict(x, y, *nothing, x, **keywords) for one in (probe, early))
        assert np.abs(before - expected).max() > 0.02
        assert np.abs(own - expected).max() < 0.01


def test_encoders_are_trained_on_the_same_clips_and_never_on_a_group_of_the_test() -> None:
    features, task = _task()
    split = splits_of(task, test_folds=["1"])[0]
    drawn = {seed: split.train[FewShotProbe().draw(task.targets[split.train], 3, seed)] for seed in range(10)}
    for rows in drawn.values():
        assert not np.intersect1d(task.groups[rows], task.groups[split.test]).size
    probe = FewShotProbe(strength=1e-3)
    whole = run_probe(probe, features, task, test_folds=["1"])
    others = np.setdiff1d(split.train, np.concatenate(list(drawn.values())))
    changed = features.copy()
    changed[others] = changed[np.roll(others, 1)]  # clips that no draw takes change places: the scaler does not see it
    again = run_probe(probe, changed, task, test_folds=["1"])
    assert whole.per_training[:, split.test] == pytest.approx(again.per_training[:, split.test], abs=1e-5)


def test_the_score_is_the_mean_over_draws_and_more_labels_help() -> None:
    features, task = _task()
    result = run_probe("fewshot", features, task, test_folds=["1"])
    tested = task.folds == "1"
    each = [accuracy(task.targets[tested], scores[tested]) for scores in result.per_training]
    assert len(each) == result.score.num_seeds == 10
    assert result.score.value == pytest.approx(np.mean(each))
    assert len(set(each)) > 3
    more = run_probe("fewshot:num_per_class=20", features, task, test_folds=["1"])
    assert more.score.value > result.score.value
    assert more.probe == "fewshot:num_per_class=20"


def test_the_interval_covers_draws_as_well_as_clips() -> None:
    """The same correctness with the draws averaged away gives a narrower one."""
    features, task = _task()
    result = run_probe("fewshot:num_per_class=1", features, task, test_folds=["1"])
    tested = np.flatnonzero(result.fold_of == 0)
    correct = (result.per_training[:, tested].argmax(axis=2) == task.targets[tested]).mean(axis=0, keepdims=True)
    groups = group_numbers(task)[tested]
    value, resampled = bootstrap(
        lambda clips, weight: correct[:, clips] @ weight / weight.sum(axis=0), len(tested), 1, groups=groups
    )
    low, high = interval(resampled)
    assert value == pytest.approx(result.score.value)
    assert result.score.high - result.score.low > 1.2 * (high - low)


def test_too_few_clips_are_noted() -> None:
    features, task = _task()
    notes = run_probe("fewshot:num_per_class=1000,num_draws=1", features, task, test_folds=["1"]).notes
    assert notes == ("fold 1: fewer than 1000 training clips of a, b, c: all are taken",)


def test_probes_are_made_from_names() -> None:
    assert make_probe("fewshot:num_per_class=10, num_draws=3") == FewShotProbe(10, 3)
    assert make_probe("fewshot", {"num_per_class": 1}) == FewShotProbe(1)
    assert make_probe("mlp:learning_rates=1e-3").learning_rates == (1e-3,)
    assert make_probe("linear:learning_rate=3e-5").learning_rate == 3e-5  # EVAR's for M2D
    for words, message in {
        "svm": "no probe 'svm'",
        "knn:5": "write knn:NAME=NUMBER",
        "knn:k=5": r"knn has no setting 'k': choose from \['num_neighbours', 'temperature'\]",
        "knn:num_neighbours=0": "num_neighbours=0 is out of range: give 1 or more",
        "knn:num_neighbours=1.5": "give a whole number",
        "knn:temperature=0": "give a positive number",
        "linear:learning_rate=nan": "write linear:NAME=NUMBER",
        "linear:learning_rate='a'": "give a number",
        "logistic:strengths=()": "is empty",
        "linear:max_epochs=__import__('os')": "write linear:NAME=NUMBER",
    }.items():
        with pytest.raises(ValueError, match=message):
            make_probe(words)
