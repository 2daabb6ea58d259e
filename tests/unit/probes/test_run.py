"""Probes read what is there, look at nothing they must not see, and say what a score hides."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from melmask.data.manifest import Clip
from melmask.evaluation.metrics import accuracy, score_of
from melmask.evaluation.run import run_probe
from melmask.evaluation.task import Task, make_task
from melmask.probes import PROBES, LogisticProbe
from melmask.probes.base import as_tensor, with_one
from melmask.probes.knn import KnnProbe
from melmask.probes.linear import LinearProbe
from melmask.probes.ridge import RidgeProbe

pytestmark = pytest.mark.numerical

# Small forms of what would take long; the names are as tables show them.
SMALL = {
    "mlp": "mlp:learning_rates=(0.01, 0.003),hidden_dim=16,batch_size=64,max_epochs=40,check_every=1,patience=5",
    "fewshot": "fewshot:num_per_class=20,num_draws=2",
}
NAMES = [SMALL.get(name, name) for name in PROBES]


def _task(labels, folds=None, groups=None) -> Task:
    folds, groups = folds or [None] * len(labels), groups or [None] * len(labels)
    rows = zip(labels, folds, groups, strict=True)
    return make_task("toy", [Clip(Path(f"/{i}.wav"), *row, source="toy") for i, row in enumerate(rows)])


def _clusters(spread: float, num_clips: int = 240, dim: int = 8, seed: int = 0) -> tuple[np.ndarray, Task]:
    """Three classes around their centres, in three folds and 24 groups."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(3, size=num_clips)
    features = 3 * np.eye(3, dim)[classes] + spread * rng.standard_normal((num_clips, dim))
    groups = np.arange(num_clips) % 24
    task = _task(["abc"[label] for label in classes], [str(g % 3) for g in groups], [str(g) for g in groups])
    return (100 * features + 1000).astype(np.float32), task


def _several_labels(seed: int = 0) -> tuple[np.ndarray, Task]:
    """Each of three labels present or not, each seen in one direction of the features."""
    rng = np.random.default_rng(seed)
    flags = rng.random((240, 3)) < 0.4
    features = flags @ rng.standard_normal((3, 8)) + 0.1 * rng.standard_normal((240, 8))
    labels = [";".join(label for label, flag in zip("abc", row, strict=True) if flag) for row in flags]
    return features.astype(np.float32), _task(labels, [str(i % 3) for i in range(240)])


def _arrays(spread: float, num_train: int = 160, num_valid: int = 40):
    """Standardised arrays for a probe on its own: train x, y, valid x, y, test x and the keywords."""
    features, task = _clusters(spread)
    x = ((features - features.mean(axis=0)) / features.std(axis=0)).astype(np.float32)
    y, valid = task.targets, slice(num_train, num_train + num_valid)
    keywords = {"num_classes": 3, "multilabel": False, "seed": 0, "score": score_of}
    return (x[:num_train], y[:num_train], x[valid], y[valid], x[num_train + num_valid :]), keywords


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=True)


@pytest.mark.parametrize("name", NAMES)
def test_separable_classes_are_read(name: str) -> None:
    result = run_probe(name, *_clusters(spread=0.3), num_seeds=2)
    assert result.score.value > 0.97
    assert result.score.num_clips == 240
    assert result.score.num_seeds == (1 if name in ("logistic", "ridge", "knn") else 2)
    assert (result.probe, result.task, result.metric) == (name, "toy", "accuracy")
    assert list(result.per_fold) == ["0", "1", "2"]
    assert np.mean(list(result.per_fold.values())) == pytest.approx(result.score.value)
    assert result.predictions.sum(axis=1) == pytest.approx(np.ones(240), abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_several_labels_are_read(name: str) -> None:
    features, task = _several_labels()
    result = run_probe(name, features, task, num_seeds=1)
    assert result.metric == "mAP"
    assert result.score.value > 0.95
    shuffled = np.random.default_rng(0).permutation(features)
    assert run_probe(name, shuffled, task, num_seeds=1).score.value < 0.6


@pytest.mark.parametrize("name", NAMES)
def test_features_without_information_score_by_chance(name: str) -> None:
    features = np.random.default_rng(1).standard_normal((240, 8))
    score = run_probe(name, features, _clusters(0.3)[1], num_seeds=1).score
    assert score.low < 1 / 3 < score.high


@pytest.mark.parametrize("name", NAMES)
def test_a_test_clip_changes_no_other_prediction(name: str) -> None:
    """Fails if the scaler, or anything else, is fitted on more than the training clips."""
    features, task = _clusters(spread=2)
    changed = int(np.flatnonzero(task.folds == "1")[0])
    loud = features.copy()
    loud[changed] = features[changed] * 1e6 + 1e9
    before = run_probe(name, features, task, test_folds=["1"], num_seeds=1).predictions
    after = run_probe(name, loud, task, test_folds=["1"], num_seeds=1).predictions
    others = np.arange(240) != changed
    assert not _same(before, after)
    assert _same(before[others], after[others])


@pytest.mark.parametrize("name", NAMES)
def test_test_labels_change_no_prediction(name: str) -> None:
    """Epochs and strengths are chosen on validation clips; the score alone sees the labels of the test."""
    features, task = _clusters(spread=3)
    test = np.flatnonzero(task.folds == "1")
    targets = task.targets.copy()
    targets[test] = np.random.default_rng(0).permutation(targets[test])
    before = run_probe(name, features, task, test_folds=["1"], num_seeds=1)
    after = run_probe(name, features, replace(task, targets=targets), test_folds=["1"], num_seeds=1)
    assert _same(before.predictions, after.predictions)
    assert before.score.value != after.score.value


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_digits(name: str) -> None:
    features, task = _clusters(spread=2)
    first, second = (run_probe(name, features, task, num_seeds=2) for _ in range(2))
    assert _same(first.predictions, second.predictions)
    assert (first.score, first.per_fold, first.notes) == (second.score, second.per_fold, second.notes)


def test_seeds_differ_and_are_averaged() -> None:
    features, task = _clusters(spread=3)
    probe = LinearProbe(batch_size=16)
    both, first, second = (
        run_probe(probe, features, task, test_folds=["1"], num_seeds=num_seeds, seed=seed)
        for num_seeds, seed in ((2, 7), (1, 7), (1, 8))
    )
    assert not _same(first.predictions, second.predictions)
    tested = task.folds == "1"
    assert np.abs(both.predictions - first.predictions)[tested].max() > 1e-4
    assert both.score.num_seeds == 2


def test_global_seed_is_neither_used_nor_touched() -> None:
    arrays, keywords = _arrays(spread=2)
    torch.manual_seed(1)
    first = LinearProbe().fit_predict(*arrays, **keywords)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    assert _same(LinearProbe().fit_predict(*arrays, **keywords), first)


def test_linear_probe_keeps_its_best_validation_epoch() -> None:
    """With k epochs at most, the weights handed back are the best of the first k: their score never falls with k."""
    (train_x, train_y, valid_x, _, _), keywords = _arrays(spread=3)
    valid_y = np.random.default_rng(0).integers(3, size=len(valid_x))  # noise, so that the score goes up and down
    scores = []
    for max_epochs in range(1, 40):
        probe = LinearProbe(learning_rate=0.05, max_epochs=max_epochs, patience=100)
        scores.append(accuracy(valid_y, probe.fit_predict(train_x, train_y, valid_x, valid_y, valid_x, **keywords)))
    assert scores == sorted(scores)
    assert scores[0] < scores[-1]


def test_linear_probe_stops_after_its_patience() -> None:
    calls: list[int] = []
    arrays, keywords = _arrays(spread=2)
    keywords["score"] = lambda targets, scores: calls.append(1) or 0.5
    LinearProbe().fit_predict(*arrays, **keywords)
    assert len(calls) == 1 + 20
    calls.clear()
    LinearProbe(max_epochs=7).fit_predict(*arrays, **keywords)
    assert len(calls) == 7


@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_logistic_fit_equals_sklearn(strength: float) -> None:
    (x, y, _, _, test_x), _ = _arrays(spread=2)
    expected = LogisticRegression(C=strength, tol=1e-8, max_iter=2000).fit(x, y).predict_proba(test_x)
    # In float64, so that L-BFGS takes the same steps everywhere, and stops at the same distance from the optimum.
    with_one = [torch.from_numpy(np.pad(part, ((0, 0), (0, 1)), constant_values=1)).double() for part in (x, test_x)]
    weight = LogisticProbe().fit(with_one[0], torch.from_numpy(y), strength, torch.zeros(9, 3).double())
    assert (with_one[1] @ weight).softmax(dim=1).numpy() == pytest.approx(expected, abs=1e-3)


def test_logistic_fit_of_several_labels_is_one_regression_for_each() -> None:
    features, task = _several_labels()
    with_one = torch.from_numpy(np.pad(features, ((0, 0), (0, 1)), constant_values=1)).double()
    weight = LogisticProbe().fit(with_one, torch.from_numpy(task.targets).double(), 0.1, torch.zeros(9, 3).double())
    for label in range(3):
        single = LogisticRegression(C=0.1, tol=1e-8, max_iter=2000).fit(features, task.targets[:, label])
        expected = single.predict_proba(features)[:, 1]
        assert (with_one @ weight[:, label]).sigmoid().numpy() == pytest.approx(expected, abs=1e-3)


def test_logistic_probe_chooses_its_strength_on_validation_clips() -> None:
    """Of a strong and a weak regularisation it predicts like the one that validates better, fitted to both parts."""
    (train_x, train_y, valid_x, valid_y, test_x), keywords = _arrays(spread=0.5)
    rng = np.random.default_rng(0)
    noisy_y = np.where(rng.random(len(train_y)) < 0.5, rng.integers(3, size=len(train_y)), train_y)
    wide = [np.hstack([x, rng.standard_normal((len(x), 100))]).astype(np.float32) for x in (train_x, valid_x, test_x)]
    for expected, labels in ((1e-3, noisy_y), (100.0, np.roll(train_y, 1))):
        # Labels of the second case are memorised: what was learnt by heart is then asked for.
        valid = (wide[1], valid_y) if expected == 1e-3 else (wide[0], labels)
        args = (wide[0], labels, *valid, wide[2])
        chosen = LogisticProbe(strengths=(1e-3, 100.0)).fit_predict(*args, **keywords)
        alone = [LogisticProbe(strengths=(s,)).fit_predict(*args, **keywords) for s in (1e-3, 100.0)]
        distance = [np.abs(chosen - other).max() for other in alone]
        assert (1e-3, 100.0)[int(np.argmin(distance))] == expected
        assert min(distance) < 0.1 * max(distance)


def test_logistic_weights_of_the_training_clips_alone() -> None:
    """Where the validation clips are to stay unseen, they only choose the strength."""
    (train_x, train_y, valid_x, valid_y, _), _ = _arrays(spread=2)
    probe = LogisticProbe(strengths=(0.1,))
    start = torch.zeros(train_x.shape[1] + 1, 3)
    alone = probe.fit(with_one(train_x), as_tensor(train_y), 0.1, start)
    assert torch.equal(probe.solve(train_x, train_y, valid_x, valid_y, 3, score=accuracy, on_both=False), alone)
    assert not torch.allclose(probe.solve(train_x, train_y, valid_x, valid_y, 3, score=accuracy), alone, rtol=1e-3)


@pytest.mark.parametrize("num_train", [12, 160])
@pytest.mark.parametrize("strength", [1e-3, 1.0])
def test_ridge_equals_sklearn(num_train: int, strength: float) -> None:
    # 12 clips of 40 features go through the clips' Gram matrix, 160 through the features'.
    rng = np.random.default_rng(0)
    x = rng.standard_normal((num_train + 20, 40)).astype(np.float32) + 0.3
    y = rng.integers(3, size=num_train + 20)
    train, valid, test = x[:num_train], x[num_train : num_train + 10], x[num_train + 10 :]
    both, flags = x[: num_train + 10], np.eye(3)[y[: num_train + 10]]
    penalty = strength * (both - both.mean(axis=0)).astype(np.float64).var(axis=0).sum()
    ours = RidgeProbe(strengths=(strength,)).fit_predict(
        train,
        y[:num_train],
        valid,
        y[num_train : num_train + 10],
        test,
        num_classes=3,
        multilabel=False,
        seed=0,
        score=accuracy,
    )
    assert np.allclose(ours, Ridge(alpha=penalty).fit(both, flags).predict(test), atol=1e-4)


def test_ridge_chooses_its_strength_on_validation_clips() -> None:
    # The class stands in a direction that is weak beside another one of noise: only a weak penalty reads it.
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=400)
    x = np.stack([rng.standard_normal(400), 0.01 * (y + 0.1 * rng.standard_normal(400))], axis=1).astype(np.float32)
    parts = (x[:200], y[:200], x[200:300], y[200:300], x[300:])
    scores = [
        accuracy(
            y[300:], RidgeProbe(strengths).fit_predict(*parts, num_classes=2, multilabel=False, seed=0, score=accuracy)
        )
        for strengths in ((1e2,), (1e2, 1e-6), (1e2, 1e-6, 1e-7))
    ]
    assert scores[0] < 0.8 and scores[1] == scores[2] == 1.0


@pytest.mark.parametrize("multilabel", [False, True])
def test_knn_equals_the_vote_written_out(multilabel: bool) -> None:
    (train_x, train_y, valid_x, valid_y, test_x), keywords = _arrays(spread=2)
    if multilabel:
        train_y, valid_y = (np.random.default_rng(0).random((len(y), 3)) < 0.5 for y in (train_y, valid_y))
    keywords["multilabel"] = multilabel
    scores = KnnProbe().fit_predict(train_x, train_y, valid_x, valid_y, test_x, **keywords)
    bank, labels = np.concatenate([train_x, valid_x]).astype(float), np.concatenate([train_y, valid_y])
    for query, result in zip(test_x.astype(float), scores, strict=True):
        cosine = [query @ other / np.linalg.norm(query) / np.linalg.norm(other) for other in bank]
        nearest = sorted(range(len(bank)), key=lambda clip: -cosine[clip])[:10]
        votes = np.zeros(3)
        for clip in nearest:
            votes += np.exp(cosine[clip] / 0.07) * (labels[clip] if multilabel else np.eye(3)[labels[clip]])
        total = sum(np.exp(cosine[clip] / 0.07) for clip in nearest)
        assert result == pytest.approx(votes / total, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_classes_without_training_clips_are_never_predicted_and_said(name: str) -> None:
    features, task = _clusters(spread=0.3)
    is_rare = (task.folds == "1") & (np.arange(240) % 6 == 1)
    labels = np.where(is_rare, "rare", np.array(task.classes)[task.targets]).tolist()
    task = _task(labels, task.folds.tolist(), task.groups.tolist())
    result = run_probe(name, features, task, test_folds=["1"], num_seeds=1)
    tested = task.folds == "1"
    assert result.notes[0] == f"fold 1: no training clips of rare; never predicted, in {is_rare.sum()} test clips"
    assert (result.predictions[tested, task.classes.index("rare")] == 0).all()
    assert result.score.value <= 1 - is_rare.sum() / tested.sum()
    assert result.score.value > 0.95 - is_rare.sum() / tested.sum()
    assert np.isnan(result.predictions[~tested]).all()


@pytest.mark.parametrize("name", NAMES)
def test_labels_without_training_clips_among_several(name: str) -> None:
    features, task = _several_labels()
    targets = np.hstack([task.targets, (np.arange(240) % 6 == 1)[:, None]])  # fold 1 only
    task = replace(task, targets=targets, classes=(*task.classes, "rare"))
    result = run_probe(name, features, task, test_folds=["1"], num_seeds=1)
    assert "rare" in result.notes[0]
    assert (result.predictions[task.folds == "1", 3] == 0).all()


def test_validation_clips_of_unknown_classes_are_left_out() -> None:
    labels = ["a", "b"] * 20 + ["c", "a", "b"] * 4 + ["a", "b"] * 4
    folds = ["train"] * 40 + ["val"] * 12 + ["test"] * 8
    features = np.array([[ord(label)] for label in labels], np.float32)
    for name in NAMES:
        assert run_probe(name, features, _task(labels, folds), num_seeds=1).score.value == 1
    unknown = [label if fold != "val" else "c" for label, fold in zip(labels, folds, strict=True)]
    with pytest.raises(ValueError, match="no validation clip"):
        run_probe("knn", features, _task(unknown, folds))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0.0, 0.1, -1e6])
def test_features_that_are_constant_in_training_say_nothing(name: str, value: float) -> None:
    features, task = _clusters(spread=2)
    constant = np.full((240, 1), value, np.float32)
    if value:  # what is constant but for rounding counts as constant
        constant[::2] = np.nextafter(constant[::2], np.float32(0))
    constant[task.folds == "1"] += 5
    plain = run_probe(name, np.pad(features, ((0, 0), (0, 1))), task, test_folds=["1"], num_seeds=1)
    padded = run_probe(name, np.hstack([features, constant]), task, test_folds=["1"], num_seeds=1)
    assert _same(plain.predictions, padded.predictions)
    silent = run_probe(name, np.zeros((240, 4), np.float32), task, num_seeds=1)
    assert np.isfinite(silent.predictions).all()


def test_features_of_any_float_type_are_read() -> None:
    features, task = _clusters(spread=0.3)
    for dtype in (np.float16, np.float64):
        assert run_probe("logistic", (features / 100).astype(dtype), task).score.value > 0.97


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused_by_clip(bad: float) -> None:
    features, task = _clusters(spread=2)
    features[[17, 30], 3] = bad
    with pytest.raises(ValueError, match=r"clip 17 \(.*17\.wav\).*1 more.*leave the clip out"):
        run_probe("knn", features, task)


def test_arguments_are_checked() -> None:
    features, task = _clusters(spread=2)
    with pytest.raises(ValueError, match="no probe 'svm'; there are: linear, logistic, ridge, knn"):
        run_probe("svm", features, task)
    with pytest.raises(ValueError, match="0 seeds"):
        run_probe("linear", features, task, num_seeds=0)
    with pytest.raises(ValueError, match="239 rows of features, 240 clips"):
        run_probe("linear", features[:-1], task)
    with pytest.raises(ValueError, match="no test fold"):
        run_probe("linear", features, task, test_folds=["9"])


def test_group_on_both_sides_is_refused_by_name() -> None:
    features, task = _clusters(spread=2)
    groups = task.groups.astype(object)
    groups[[0, 1]] = "speaker 7"
    with pytest.raises(ValueError, match="'speaker 7'"):
        run_probe("knn", features, replace(task, groups=groups))


def test_few_groups_and_drawn_folds_are_said() -> None:
    features, task = _clusters(spread=2)
    by_fold = replace(task, groups=task.folds)
    assert "the interval rests on 3 groups only" in run_probe("knn", features, by_fold).notes
    assert "all test clips are of one group" in run_probe("knn", features, by_fold, test_folds=["1"]).notes[-1]
    assert run_probe("knn", features, replace(task, folds=None)).notes == (
        "no folds given: dealt into 5 with seed 0, groups kept whole",
    )


def test_probe_with_settings_of_its_own() -> None:
    result = run_probe(KnnProbe(num_neighbours=1000), *_clusters(spread=0.3))
    assert result.probe == "knn:num_neighbours=1000"
    assert result.score.value > 0.9  # k is cut to the clips there are


@pytest.mark.parametrize("name", NAMES)
def test_no_warning_and_no_output_escapes(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Also where L-BFGS stops short of the optimum, features are read-only and a class has one clip."""
    rng = np.random.default_rng(0)
    features = (rng.standard_normal((120, 200)) * 10.0 ** rng.uniform(-3, 3, 200)).astype(np.float32)
    features.flags.writeable = False
    task = _task(["single"] + ["a", "b", "c", "d"] * 29 + ["a"] * 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_probe(name, features, task, num_seeds=1)
    assert capfd.readouterr() == ("", "")
