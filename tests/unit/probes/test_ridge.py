"""The ridge probe: it equals scikit-learn's, and clips that are held out choose the strength."""

from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from melmask.evaluation.metrics import accuracy, score_of
from melmask.probes.ridge import RidgeProbe
from melmask.probes.run import LabelledFeatures, fit_for_use, predict_split

pytestmark = pytest.mark.numerical


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


def speakers() -> tuple[LabelledFeatures, dict[str, np.ndarray]]:
    """Four speakers to train on and one to test, of whom "d" is unlike the others; and the rows of each.

    Two features are nearly equal. Their difference says the class, which a weak penalty alone reads; that of "d" says
    nothing, but in the sum, which says a little of the others' class, it has more of it.
    """
    rng = np.random.default_rng(0)
    speaker, y = np.repeat(["a", "b", "c", "d", "test"], 80), rng.integers(2, size=400)
    is_d = speaker == "d"
    total = rng.standard_normal(400) + np.where(is_d, 2.0, 0.3) * y
    difference = 0.02 * (np.where(is_d, 0.5, y) + 0.1 * rng.standard_normal(400))
    features = np.stack([total + difference, total - difference], axis=1).astype(np.float32)
    data = LabelledFeatures(features, y[:, None] == np.arange(2), ("no", "yes"), False)
    return data, {name: np.flatnonzero(speaker == name) for name in np.unique(speaker).tolist()}


def test_one_odd_speaker_does_not_choose_the_strength_alone() -> None:
    data, rows = speakers()
    known, odd, test = np.concatenate([rows[name] for name in "abc"]), rows["d"], rows["test"]

    def score(parts: Sequence[np.ndarray]) -> float:
        probe = RidgeProbe((1e2, 1e-6))
        [predicted], _ = predict_split(probe, data, known, odd, test, parts=parts, seeds=[0], score=score_of)
        return accuracy(data.flags[test].argmax(axis=1), predicted)

    assert score([]) < 0.8, "validated on the odd speaker alone, the strong penalty is the better one"
    assert score([rows[name] for name in "abcd"]) > 0.95


def test_a_probe_that_is_used_chooses_likewise() -> None:
    data, rows = speakers()
    known, odd = np.concatenate([rows[name] for name in "abc"]), rows["d"]
    parts = [rows[name] for name in "abcd"]
    fitted = fit_for_use(RidgeProbe((1e2, 1e-6)), data, known, odd, parts=parts, score=score_of)
    predicted = fitted.predict(RidgeProbe(), data.features[rows["test"]], False)
    assert accuracy(data.flags[rows["test"]].argmax(axis=1), predicted) > 0.95
