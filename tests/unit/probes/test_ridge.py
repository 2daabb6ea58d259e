"""The ridge probe: it equals scikit-learn's, and validation clips choose the strength."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from melmask.evaluation.metrics import accuracy
from melmask.probes.ridge import RidgeProbe

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
