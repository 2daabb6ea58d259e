"""The linear probe: its best epoch is kept, and training stops after its patience."""

import numpy as np
import pytest
import torch

from labelled import arrays, same
from melmask.evaluation.metrics import accuracy
from melmask.probes.linear import LinearProbe

pytestmark = pytest.mark.numerical


def test_global_seed_is_neither_used_nor_touched() -> None:
    parts, keywords = arrays(spread=2)
    torch.manual_seed(1)
    first = LinearProbe().fit_predict(*parts, **keywords)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    assert same(LinearProbe().fit_predict(*parts, **keywords), first)


def test_linear_probe_keeps_its_best_validation_epoch() -> None:
    """With k epochs at most, the weights handed back are the best of the first k: their score never falls with k."""
    (train_x, train_y, valid_x, _, _), keywords = arrays(spread=3)
    valid_y = np.random.default_rng(0).integers(3, size=len(valid_x))  # noise, so that the score goes up and down
    scores = []
    for max_epochs in range(1, 40):
        probe = LinearProbe(learning_rate=0.05, max_epochs=max_epochs, patience=100)
        scores.append(accuracy(valid_y, probe.fit_predict(train_x, train_y, valid_x, valid_y, valid_x, **keywords)))
    assert scores == sorted(scores)
    assert scores[0] < scores[-1]


def test_linear_probe_stops_after_its_patience() -> None:
    calls: list[int] = []
    parts, keywords = arrays(spread=2)
    keywords["score"] = lambda targets, scores: calls.append(1) or 0.5
    LinearProbe().fit_predict(*parts, **keywords)
    assert len(calls) == 1 + 20
    calls.clear()
    LinearProbe(max_epochs=7).fit_predict(*parts, **keywords)
    assert len(calls) == 7


def test_ties_count_as_better_if_asked_for() -> None:
    """Of equal epochs the last is kept, and patience starts anew; by default the first is kept."""
    parts, keywords = arrays(spread=2)
    calls: list[int] = []
    keywords["score"] = lambda targets, scores: calls.append(1) or 0.5
    settings = {"max_epochs": 30, "patience": 5}
    last = LinearProbe(**settings, ties_are_better=True).fit_predict(*parts, **keywords)
    assert len(calls) == 30
    keywords["score"] = lambda targets, scores: float(len(calls))
    calls.clear()
    assert same(last, LinearProbe(max_epochs=30, patience=30, ties_are_better=True).fit_predict(*parts, **keywords))
    keywords["score"] = lambda targets, scores: 0.5
    first = LinearProbe(**settings).fit_predict(*parts, **keywords)
    assert same(first, LinearProbe(max_epochs=1).fit_predict(*parts, **keywords)) and not same(first, last)
