"""All probes: they predict what features tell, use nothing of the test, and note what a score hides."""

import warnings
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from labelled import clusters, same, several_labels, task_of
from melmask.evaluation.run import run_probe
from melmask.probes import PROBES
from melmask.probes.ridge import RidgeProbe

# Small forms of what would take long; the names are as tables show them.
SMALL = {
    "mlp": "mlp:learning_rates=(0.01, 0.003),hidden_dim=16,batch_size=64,max_epochs=20,check_every=1,patience=5",
    "fewshot": "fewshot:num_per_class=20,num_draws=2",
}
NAMES = [SMALL.get(name, name) for name in PROBES]


@pytest.mark.parametrize("name", NAMES)
def test_separable_classes_are_predicted(name: str) -> None:
    result = run_probe(name, *clusters(spread=0.3), num_seeds=2)
    assert result.score.value > 0.97
    assert result.score.num_clips == 240
    assert result.score.num_seeds == (1 if name in ("logistic", "ridge", "knn") else 2)
    assert (result.probe, result.task, result.metric) == (name, "toy", "accuracy")
    assert list(result.per_fold) == ["0", "1", "2"]
    assert np.mean(list(result.per_fold.values())) == pytest.approx(result.score.value)
    assert result.predictions.sum(axis=1) == pytest.approx(np.ones(240), abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_several_labels_are_predicted(name: str) -> None:
    features, task = several_labels()
    result = run_probe(name, features, task, num_seeds=1)
    assert result.metric == "mAP"
    assert result.score.value > 0.95
    shuffled = np.random.default_rng(0).permutation(features)
    assert run_probe(name, shuffled, task, num_seeds=1).score.value < 0.6


@pytest.mark.parametrize("name", NAMES)
def test_features_without_information_score_as_random_ones(name: str) -> None:
    features = np.random.default_rng(1).standard_normal((240, 8))
    score = run_probe(name, features, clusters(0.3)[1], num_seeds=1).score
    assert score.low < 1 / 3 < score.high


@pytest.mark.numerical
@pytest.mark.parametrize("name", NAMES)
def test_a_test_clip_changes_no_other_prediction(name: str) -> None:
    """Fails if the scaler, or anything else, is fitted on more than the training clips."""
    features, task = clusters(spread=2)
    changed = int(np.flatnonzero(task.folds == "1")[0])
    loud = features.copy()
    loud[changed] = features[changed] * 1e6 + 1e9
    before = run_probe(name, features, task, test_folds=["1"], num_seeds=1).predictions
    after = run_probe(name, loud, task, test_folds=["1"], num_seeds=1).predictions
    others = np.arange(240) != changed
    assert not same(before, after)
    assert same(before[others], after[others])


@pytest.mark.parametrize("name", NAMES)
def test_test_labels_change_no_prediction(name: str) -> None:
    """Epochs and strengths are chosen on validation clips; the score alone sees the labels of the test."""
    features, task = clusters(spread=3)
    test = np.flatnonzero(task.folds == "1")
    targets = task.targets.copy()
    targets[test] = np.random.default_rng(0).permutation(targets[test])
    before = run_probe(name, features, task, test_folds=["1"], num_seeds=1)
    after = run_probe(name, features, replace(task, targets=targets), test_folds=["1"], num_seeds=1)
    assert same(before.predictions, after.predictions)
    assert before.score.value != after.score.value


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_digits(name: str) -> None:
    features, task = clusters(spread=2)
    first, second = (run_probe(name, features, task, num_seeds=2) for _ in range(2))
    assert same(first.predictions, second.predictions)
    assert (first.score, first.per_fold, first.notes) == (second.score, second.per_fold, second.notes)


@pytest.mark.parametrize("name", NAMES)
def test_classes_without_training_clips_are_never_predicted_and_noted(name: str) -> None:
    features, task = clusters(spread=0.3)
    is_rare = (task.folds == "1") & (np.arange(240) % 6 == 1)
    labels = np.where(is_rare, "rare", np.array(task.classes)[task.targets]).tolist()
    task = task_of(labels, task.folds.tolist(), task.groups.tolist())
    result = run_probe(name, features, task, test_folds=["1"], num_seeds=1)
    tested = task.folds == "1"
    assert result.notes[0] == f"fold 1: no training clips of rare; never predicted, in {is_rare.sum()} test clips"
    assert (result.predictions[tested, task.classes.index("rare")] == 0).all()
    assert result.score.value <= 1 - is_rare.sum() / tested.sum()
    assert result.score.value > 0.95 - is_rare.sum() / tested.sum()
    assert np.isnan(result.predictions[~tested]).all()


@pytest.mark.parametrize("name", NAMES)
def test_labels_without_training_clips_among_several(name: str) -> None:
    features, task = several_labels()
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
        assert run_probe(name, features, task_of(labels, folds), num_seeds=1).score.value == 1
    unknown = [label if fold != "val" else "c" for label, fold in zip(labels, folds, strict=True)]
    with pytest.raises(ValueError, match="no validation clip"):
        run_probe("knn", features, task_of(unknown, folds))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0.0, 0.1, -1e6])
def test_features_that_are_constant_in_training_change_nothing(name: str, value: float) -> None:
    features, task = clusters(spread=2)
    constant = np.full((240, 1), value, np.float32)
    if value:  # what is constant but for rounding counts as constant
        constant[::2] = np.nextafter(constant[::2], np.float32(0))
    constant[task.folds == "1"] += 5
    plain = run_probe(name, np.pad(features, ((0, 0), (0, 1))), task, test_folds=["1"], num_seeds=1)
    padded = run_probe(name, np.hstack([features, constant]), task, test_folds=["1"], num_seeds=1)
    assert same(plain.predictions, padded.predictions)


@pytest.mark.parametrize("name", NAMES)
def test_features_that_are_all_zero_give_finite_predictions(name: str) -> None:
    silent = run_probe(name, np.zeros((240, 4), np.float32), clusters(spread=2)[1], num_seeds=1)
    assert np.isfinite(silent.predictions).all()


@pytest.mark.parametrize("name", NAMES)
def test_no_warning_and_no_output_escapes(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Also where L-BFGS stops short of the optimum, features are read-only and a class has one clip."""
    rng = np.random.default_rng(0)
    features = (rng.standard_normal((120, 200)) * 10.0 ** rng.uniform(-3, 3, 200)).astype(np.float32)
    features.flags.writeable = False
    task = task_of(["single"] + ["a", "b", "c", "d"] * 29 + ["a"] * 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_probe(name, features, task, num_seeds=1)
    assert capfd.readouterr() == ("", "")


class Chooser(RidgeProbe):
    """A ridge probe that counts the clips of the divisions by which it chooses."""

    seen: ClassVar[list[tuple[int, int]]] = []

    def choose(self, divisions, *, num_classes, score):
        self.seen.extend((len(train_x), len(held_x)) for train_x, _, held_x, _ in divisions)
        return self


def test_all_clips_that_are_not_tested_choose_settings_unless_the_task_has_a_validation_split() -> None:
    features, task = clusters(spread=0.3)
    run_probe(Chooser(), features, task, test_folds=["1"], num_seeds=1)
    assert len(Chooser.seen) == 5 and {sum(sizes) for sizes in Chooser.seen} == {160}
    assert sum(held for _, held in Chooser.seen) == 160
    Chooser.seen.clear()
    names = np.array(["train", "val", "test"])[task.folds.astype(int)]
    run_probe(Chooser(), features, replace(task, folds=names), num_seeds=1)
    assert Chooser.seen == []
