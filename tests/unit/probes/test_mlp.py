"""The multilayer perceptron: its grid, how it is chosen, and how many clips it needs."""

import numpy as np
import pytest
import torch

from melmask.evaluation.metrics import accuracy
from melmask.probes import PROBES
from melmask.probes.linear import LinearProbe
from melmask.probes.mlp import MlpProbe

SMALL = MlpProbe(hidden_layers=(1,), learning_rates=(0.01,), hidden_dim=32, max_epochs=100, check_every=2, patience=30)


def _rings(num_clips: int = 300) -> tuple[tuple[np.ndarray, ...], dict]:
    """Two classes, one around the other: no line between them. Arrays of a probe, and the labels of the test."""
    rng = np.random.default_rng(0)
    y = np.arange(num_clips) % 2
    angle = rng.uniform(0, 2 * np.pi, num_clips)
    radius = np.where(y, 2.0, 0.7) + 0.1 * rng.standard_normal(num_clips)
    x = (radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)).astype(np.float32)
    return (x[:200], y[:200], x[200:250], y[200:250], x[250:], y[250:]), {
        "num_classes": 2, "multilabel": False, "seed": 0, "score": accuracy,
    }  # fmt: skip


def test_it_bends_where_a_line_cannot() -> None:
    (*arrays, test_y), keywords = _rings()
    assert (SMALL.fit_predict(*arrays, **keywords).argmax(axis=1) == test_y).mean() > 0.95
    assert (LinearProbe().fit_predict(*arrays, **keywords).argmax(axis=1) == test_y).mean() < 0.75


def test_the_grid_is_that_of_hear() -> None:
    usual = PROBES["mlp"]()
    assert usual == MlpProbe((1, 2), (3.2e-3, 1e-3, 3.2e-4, 1e-4), 1024, 0.1)
    kinds = [type(layer).__name__ for layer in MlpProbe()._network(2, 7, 5)]
    assert kinds == ["Linear", "BatchNorm1d", "Dropout", "ReLU"] * 2 + ["Linear"]
    assert [layer.out_features for layer in MlpProbe()._network(2, 7, 5) if hasattr(layer, "out_features")] == [
        1024, 1024, 5,
    ]  # fmt: skip


def test_of_the_grid_the_pair_that_validates_best_counts() -> None:
    (*arrays, _), keywords = _rings()
    both = MlpProbe((1,), (1e-6, 0.01), hidden_dim=32, max_epochs=30, check_every=1).fit_predict(*arrays, **keywords)
    alone = MlpProbe((1,), (0.01,), hidden_dim=32, max_epochs=30, check_every=1).fit_predict(*arrays, **keywords)
    assert np.array_equal(both, alone)


def test_its_best_epoch_is_kept() -> None:
    """With a validation score that falls after the third validation, the network of the third one predicts."""
    (*arrays, _), keywords = _rings()
    looks: list[int] = []

    def falling(targets: np.ndarray, scores: np.ndarray) -> float:
        looks.append(1)
        return [0.1, 0.2, 0.9, 0.3, 0.4, 0.5][len(looks) - 1]

    keywords["score"] = falling
    form = {"hidden_layers": (1,), "learning_rates": (0.01,), "hidden_dim": 32, "check_every": 2}
    long = MlpProbe(**form, max_epochs=100, patience=3).fit_predict(*arrays, **keywords)
    assert len(looks) == 6  # three better ones, three worse ones
    looks.clear()
    assert np.array_equal(MlpProbe(**form, max_epochs=6).fit_predict(*arrays, **keywords), long)
    assert len(looks) == 3


def test_the_last_epoch_is_validated_too() -> None:
    (*arrays, test_y), keywords = _rings()
    found = MlpProbe((1,), (0.01,), hidden_dim=32, max_epochs=50, check_every=1000).fit_predict(*arrays, **keywords)
    assert (found.argmax(axis=1) == test_y).mean() > 0.9


def test_no_batch_is_of_one_clip() -> None:
    (x, y, *rest, _), keywords = _rings()
    found = MlpProbe((1,), (0.01,), hidden_dim=8, batch_size=20, max_epochs=2).fit_predict(
        x[:41], y[:41], *rest, **keywords
    )
    assert np.isfinite(found).all()
    with pytest.raises(ValueError, match="1 training clips for an mlp"):
        SMALL.fit_predict(x[:1], y[:1], *rest, **keywords)


def test_the_global_seed_is_neither_used_nor_touched() -> None:
    (*arrays, _), keywords = _rings()
    torch.manual_seed(1)
    first = SMALL.fit_predict(*arrays, **keywords)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    assert np.array_equal(SMALL.fit_predict(*arrays, **keywords), first)
    assert not np.array_equal(SMALL.fit_predict(*arrays, **{**keywords, "seed": 1}), first)
