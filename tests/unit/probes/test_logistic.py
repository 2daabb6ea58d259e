"""The logistic probe: each fit equals scikit-learn's, and validation clips choose the strength."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from labelled import arrays, several_labels
from melmask.evaluation.metrics import accuracy
from melmask.probes.base import as_tensor, with_one
from melmask.probes.logistic import LogisticProbe
from melmask.probes.run import LabelledFeatures, predict_split

pytestmark = pytest.mark.numerical


@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_logistic_fit_equals_sklearn(strength: float) -> None:
    (x, y, _, _, test_x), _ = arrays(spread=2)
    expected = LogisticRegression(C=strength, tol=1e-8, max_iter=2000).fit(x, y).predict_proba(test_x)
    # In float64, so that L-BFGS takes the same steps everywhere, and stops at the same distance from the optimum.
    with_one = [torch.from_numpy(np.pad(part, ((0, 0), (0, 1)), constant_values=1)).double() for part in (x, test_x)]
    weight = LogisticProbe().fit(with_one[0], torch.from_numpy(y), strength, torch.zeros(9, 3).double())
    assert (with_one[1] @ weight).softmax(dim=1).numpy() == pytest.approx(expected, abs=1e-3)


def test_logistic_fit_of_several_labels_is_one_regression_for_each() -> None:
    features, task = several_labels()
    with_one = torch.from_numpy(np.pad(features, ((0, 0), (0, 1)), constant_values=1)).double()
    weight = LogisticProbe().fit(with_one, torch.from_numpy(task.targets).double(), 0.1, torch.zeros(9, 3).double())
    for label in range(3):
        single = LogisticRegression(C=0.1, tol=1e-8, max_iter=2000).fit(features, task.targets[:, label])
        expected = single.predict_proba(features)[:, 1]
        assert (with_one @ weight[:, label]).sigmoid().numpy() == pytest.approx(expected, abs=1e-3)


def test_logistic_probe_chooses_its_strength_on_validation_clips() -> None:
    """Of a strong and a weak regularisation it predicts like the one that validates better, fitted to both parts."""
    (train_x, train_y, valid_x, valid_y, test_x), keywords = arrays(spread=0.5)
    rng = np.random.default_rng(0)
    noisy_y = np.where(rng.random(len(train_y)) < 0.5, rng.integers(3, size=len(train_y)), train_y)
    wide = [np.hstack([x, rng.standard_normal((len(x), 100))]).astype(np.float32) for x in (train_x, valid_x, test_x)]
    for expected, labels in ((1e-3, noisy_y), (100.0, np.roll(train_y, 1))):
        # Labels of the second case are to be memorised: the validation clips are the training clips.
        valid = (wide[1], valid_y) if expected == 1e-3 else (wide[0], labels)
        args = (wide[0], labels, *valid, wide[2])
        chosen = LogisticProbe(strengths=(1e-3, 100.0)).fit_predict(*args, **keywords)
        alone = [LogisticProbe(strengths=(s,)).fit_predict(*args, **keywords) for s in (1e-3, 100.0)]
        distance = [np.abs(chosen - other).max() for other in alone]
        assert (1e-3, 100.0)[int(np.argmin(distance))] == expected
        assert min(distance) < 0.1 * max(distance)


def test_logistic_weights_of_the_training_clips_alone() -> None:
    """Where the validation clips are to stay unseen, they only choose the strength."""
    (train_x, train_y, valid_x, valid_y, _), _ = arrays(spread=2)
    probe = LogisticProbe(strengths=(0.1,))
    start = torch.zeros(train_x.shape[1] + 1, 3)
    alone = probe.fit(with_one(train_x), as_tensor(train_y), 0.1, start)
    assert torch.equal(probe.solve(train_x, train_y, valid_x, valid_y, 3, score=accuracy, on_both=False), alone)
    assert not torch.allclose(probe.solve(train_x, train_y, valid_x, valid_y, 3, score=accuracy), alone, rtol=1e-3)


def test_more_features_than_clips_cost_no_more_than_as_many_and_give_the_same_weights(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 400)).astype(np.float32), rng.integers(3, size=60)
    x[:, :3] += np.eye(3, dtype=np.float32)[y]
    probe, solved, fit = LogisticProbe(strengths=(1.0,)), [], LogisticProbe.fit
    monkeypatch.setattr(LogisticProbe, "fit", lambda self, x, *args: solved.append(x.shape[1]) or fit(self, x, *args))
    weight = probe.solve(x[:40], y[:40], x[40:], y[40:], 3, score=accuracy)
    expected = LogisticRegression(C=1.0, tol=1e-8, max_iter=2000).fit(x, y)
    assert weight.shape == (401, 3) and set(solved) == {61}
    assert (with_one(x) @ weight).softmax(dim=1).numpy() == pytest.approx(expected.predict_proba(x), abs=3e-3)


def test_all_parts_choose_the_strength_together() -> None:
    """A part that asks for a weak regularisation, by itself, is outvoted by the others."""
    rng = np.random.default_rng(0)
    flag = rng.integers(2, size=400)
    x = rng.standard_normal((400, 300)).astype(np.float32)
    x[:, 0] += 3 * flag
    noisy = np.where(rng.random(400) < 0.4, 1 - flag, flag)
    parts = np.split(np.arange(400), 4)
    rest = [np.setdiff1d(np.arange(400), part) for part in parts]
    honest = [(x[train], noisy[train], x[part], flag[part]) for train, part in zip(rest, parts, strict=True)]
    memorised = (x[rest[0]], noisy[rest[0]], x[rest[0][:100]], noisy[rest[0][:100]])  # held out, and trained on
    probe, settings = LogisticProbe(strengths=(1e-3, 100.0)), {"num_classes": 2, "score": accuracy}
    assert probe.choose([memorised], **settings).strengths == (100.0,)
    assert probe.choose([memorised, *honest], **settings).strengths == (1e-3,)
    data = LabelledFeatures(x, noisy[:, None] == np.arange(2), ("no", "yes"), False)
    args = (data, rest[0], parts[0], parts[0])
    found = predict_split(probe, *args, parts=parts, seeds=[0], score=accuracy)[0]
    expected = predict_split(LogisticProbe(strengths=(1e-3,)), *args, seeds=[0], score=accuracy)[0]
    assert np.array_equal(found, expected)


def test_what_chooses_is_fitted_as_if_all_features_were_kept() -> None:
    """Of fewer clips than features, those held out are predicted alike in the span of all clips, in every division."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 400)).astype(np.float32), rng.integers(3, size=60)
    x[:, :3] += 2 * np.eye(3, dtype=np.float32)[y]
    seen: list[np.ndarray] = []

    def score(targets: np.ndarray, logits: np.ndarray) -> float:
        seen.append(logits)
        return accuracy(targets, logits)

    divisions = [(x[:40], y[:40], x[40:], y[40:]), (x[20:], y[20:], x[:20], y[:20])]
    LogisticProbe(strengths=(0.01, 1.0)).choose(divisions, num_classes=3, score=score)
    for strength, logits in zip((0.01, 1.0), seen, strict=True):
        exact = LogisticRegression(C=strength, tol=1e-8, max_iter=2000)
        expected = [exact.fit(train_x, train_y).predict_proba(held) for train_x, train_y, held, _ in divisions]
        assert torch.from_numpy(logits).softmax(dim=1).numpy() == pytest.approx(np.concatenate(expected), abs=3e-3)


def test_a_single_strength_is_chosen_without_a_fit(monkeypatch) -> None:
    monkeypatch.setattr(LogisticProbe, "fit", None)
    x, y = np.zeros((4, 2), np.float32), np.arange(4) % 2
    probe = LogisticProbe(strengths=(0.1,))
    assert probe.choose([(x, y, x, y)], num_classes=2, score=accuracy) is probe


def test_what_predicts_is_at_the_optimum_of_nearly_collinear_features_too() -> None:
    """Those of baselines are: the fits that choose end before it, where rounding decides about clips."""
    rng, y = np.random.default_rng(0), np.arange(600) % 20
    x = rng.normal(size=(600, 100)) + 0.3 * rng.normal(size=(20, 100))[y]
    x = x / np.arange(1, 101) ** 1.5 @ rng.normal(size=(100, 100))  # most of it along a few directions
    x = ((x - x.mean(axis=0)) / x.std(axis=0)).astype(np.float32)
    given = (x[:300], y[:300], x[300:450], y[300:450], x[450:])
    keywords = {"num_classes": 20, "multilabel": False, "seed": 0, "score": accuracy}
    optimum = LogisticRegression(C=10.0, tol=1e-8, max_iter=20_000).fit(x[:450].astype(float), y[:450])
    expected = optimum.predict_proba(x[450:].astype(float))
    own = LogisticProbe(strengths=(10.0,)).fit_predict(*given, **keywords)
    early = LogisticProbe(strengths=(10.0,), final_iterations=100).fit_predict(*given, **keywords)
    assert np.abs(early - expected).max() > 0.1
    assert np.abs(own - expected).max() < 0.01
