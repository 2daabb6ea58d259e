"""Details of a score equal scikit-learn's, class by class and bin by bin."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
)

from melmask.data.manifest import Clip
from melmask.evaluation import per_class
from melmask.evaluation.metrics import Score, d_prime
from melmask.evaluation.per_class import details_of
from melmask.evaluation.run import ProbeResult, run_probe
from melmask.evaluation.task import make_task

NOTHING = Score(0.5, 0.4, 0.6, 1, 1)


def _result(num_clips: int = 240, num_seeds: int = 1, num_folds: int = 1, several: bool = False, seed: int = 0):
    """A task of four classes, and probabilities that depend on the labels."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((num_clips, 4))
    flags = rng.random((num_clips, 4)) < 1 / (1 + np.exp(-logits))
    labels = [";".join(c for c, flag in zip("abcd", row, strict=True) if flag) for row in flags]
    if not several:
        labels = [
            "abcd"[i] for i in (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
        ]  # softmax(logits) is right
    clips = [Clip(Path(f"/{i}.wav"), label, str(i % max(num_folds, 2)), None, "toy") for i, label in enumerate(labels)]
    task = make_task("toy", clips)
    share = 1 / (1 + np.exp(-logits)) if several else np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    noise = rng.uniform(0, 0.1, (num_seeds - 1, num_clips, 4))
    scores = np.concatenate([share[None], np.abs(share - noise)]).astype(np.float32)
    fold_of = np.arange(num_clips) % num_folds
    return ProbeResult("knn", "toy", task.metric, NOTHING, {}, scores, fold_of, ("a note",)), task


def test_single_labels_equal_sklearn() -> None:
    result, task = _result()
    details = details_of(result, task)
    y, scores = task.targets, result.per_training[0].astype(float)
    taken = scores.argmax(axis=1)
    assert np.array_equal(details.confusion, confusion_matrix(y, taken))
    precision, recall, f1, support = precision_recall_fscore_support(y, taken)
    for label, one in enumerate(details.classes):
        assert (one.name, one.num_clips) == ("abcd"[label], support[label])
        found = (one.precision, one.recall.value, one.f1)
        assert found == pytest.approx((precision[label], recall[label], f1[label]))
        flags = y == label
        assert one.average_precision.value == pytest.approx(average_precision_score(flags, scores[:, label]), abs=1e-6)
        assert one.roc_auc.value == pytest.approx(roc_auc_score(flags, scores[:, label]), abs=1e-6)
    figures = details.figures
    assert list(figures) == ["accuracy", "macro accuracy", "mAP", "ROC AUC", "d'"]
    assert figures["accuracy"] is result.score
    assert figures["macro accuracy"].value == pytest.approx(balanced_accuracy_score(y, taken))
    area = roc_auc_score(np.eye(4)[y], scores)
    assert figures["ROC AUC"].value == pytest.approx(area, abs=1e-6)
    assert figures["d'"].value == pytest.approx(d_prime(area), abs=1e-5)
    for score in [*list(figures.values())[1:], *(one.recall for one in details.classes)]:
        assert score.low < score.value < score.high
    assert (details.probe, details.task, details.notes) == ("knn", "toy", ("a note",))


def test_several_labels_equal_sklearn() -> None:
    result, task = _result(several=True)
    details = details_of(result, task)
    scores = result.per_training[0].astype(float)
    precision, recall, f1, _ = precision_recall_fscore_support(task.targets, scores >= 0.5)
    for label, one in enumerate(details.classes):
        found = (one.precision, one.recall.value, one.f1)
        assert found == pytest.approx((precision[label], recall[label], f1[label]))
    assert details.confusion is None
    assert list(details.figures) == ["mAP", "ROC AUC", "d'"]
    assert details.figures["ROC AUC"].value == pytest.approx(roc_auc_score(task.targets, scores), abs=1e-6)


def test_folds_are_scored_apart_and_seeds_averaged() -> None:
    result, task = _result(num_seeds=3, num_folds=4)
    details = details_of(result, task)
    y, flags = task.targets, task.flags
    folds = [result.fold_of == fold for fold in range(4)]
    areas = [roc_auc_score(flags[fold], scores[fold]) for scores in result.per_training for fold in folds]
    assert details.figures["ROC AUC"].value == pytest.approx(np.mean(areas), abs=1e-6)
    matrices = [confusion_matrix(y, scores.argmax(axis=1)) for scores in result.per_training]
    assert details.confusion == pytest.approx(np.mean(matrices, axis=0))
    assert details.confusion.sum() == pytest.approx(240)
    recalls = [matrix[2, 2] / matrix[2].sum() for matrix in matrices]
    assert details.classes[2].recall.value == pytest.approx(np.mean(recalls))


@pytest.mark.parametrize("several", [False, True])
def test_calibration_equals_the_definition_written_out(several: bool) -> None:
    result, task = _result(num_seeds=2, several=several)
    found = details_of(result, task).calibration
    pairs = []
    for scores in result.per_training.astype(float):
        for row, flags in zip(scores, task.flags, strict=True):
            pairs += list(zip(row, flags, strict=True)) if several else [(row.max(), flags[row.argmax()])]
    confidence, right = np.array(pairs).T
    error, total = 0.0, 0
    for i, (low, high) in enumerate(zip(found.edges[:-1], found.edges[1:], strict=True)):
        inside = (confidence > low) & (confidence <= high)
        assert found.num_predictions[i] == inside.sum()
        total += inside.sum()
        if inside.any():
            error += inside.sum() / len(pairs) * abs(right[inside].mean() - confidence[inside].mean())
            assert found.low[i] - 1e-9 <= found.right[i] <= found.high[i] + 1e-9
        else:
            assert np.isnan([found.right[i], found.low[i], found.high[i]]).all()
    assert found.error.value == pytest.approx(error, abs=1e-6)
    assert 0 <= found.error.low < error < found.error.high and found.error.num_seeds == 2
    assert total == len(pairs)


def test_calibrated_probabilities_show_the_sampling_error_and_others_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(per_class, "NUM_RESAMPLES", 10)
    errors, sampling_errors = [], []
    for seed in range(20):
        found = details_of(*_result(num_clips=400, seed=seed)).calibration
        errors.append(found.error.value)
        sampling_errors.append(found.sampling_error)
    assert np.mean(errors) == pytest.approx(np.mean(sampling_errors), rel=0.15)
    result, task = _result(num_clips=400)
    certain = replace(result, per_training=np.eye(4, dtype=np.float32)[result.per_training.argmax(axis=2)])
    found = details_of(certain, task).calibration
    wrong = (certain.per_training[0].argmax(axis=1) != task.targets).mean()
    assert (found.error.value, found.sampling_error) == pytest.approx((wrong, 0.0))


@pytest.mark.parametrize("promised", [1.0, 2.0], ids=["true", "overconfident"])
def test_the_interval_of_the_calibration_error_covers_its_mean(promised: float, monkeypatch) -> None:
    monkeypatch.setattr(per_class, "NUM_RESAMPLES", 200)
    found = []
    for seed in range(100):
        result, task = _result(num_clips=200, seed=seed)
        details = result.per_training**promised
        sharp = replace(result, per_training=details / details.sum(axis=2, keepdims=True))
        found.append(details_of(sharp, task).calibration.error)
    mean = np.mean([error.value for error in found])
    covered = np.mean([error.low <= mean <= error.high for error in found])
    assert 0.89 <= covered <= 1  # 0.95 within three deviations of 100 draws
    assert np.mean([error.high - error.low for error in found]) < 6 * np.std([error.value for error in found])


def test_clips_that_were_not_tested_do_not_count() -> None:
    result, task = _result(num_folds=2)
    fold_of = np.where(result.fold_of == 1, -1, 0)
    scores = np.where((fold_of == 0)[:, None], result.per_training, np.nan)
    details = details_of(replace(result, fold_of=fold_of, per_training=scores), task)
    assert details.confusion.sum() == 120
    assert details.figures["mAP"].num_clips == 120


def test_a_class_without_test_clips_has_no_row() -> None:
    features = np.array([[0.0], [1.0], [2.0]] * 20, np.float32)
    labels = ["a", "b", "rare"] * 20
    folds = ["test" if label != "rare" and i % 2 else "train" for i, label in enumerate(labels)]
    task = make_task("toy", [Clip(Path(f"/{i}"), labels[i], folds[i], None, "toy") for i in range(60)])
    details = details_of(run_probe("logistic", features, task), task)
    assert [one.name for one in details.classes] == ["a", "b"]
    assert details.confusion.shape == (3, 3)
    assert details.figures["accuracy"].value == 1


def test_another_task_is_refused() -> None:
    result, task = _result()
    with pytest.raises(ValueError, match="a result on toy has no details on other"):
        details_of(result, replace(task, name="other"))


def test_same_result_same_digits() -> None:
    result, task = _result(num_seeds=2, num_folds=2)
    first, second = (details_of(result, task) for _ in range(2))
    assert first.figures == second.figures
    assert np.array_equal(first.calibration.high, second.calibration.high, equal_nan=True)
