"""The nearest neighbours' vote equals its definition."""

import numpy as np
import pytest

from labelled import arrays
from melmask.probes.knn import KnnProbe

pytestmark = pytest.mark.numerical


@pytest.mark.parametrize("multilabel", [False, True])
def test_knn_equals_the_vote_written_out(multilabel: bool) -> None:
    (train_x, train_y, valid_x, valid_y, test_x), keywords = arrays(spread=2)
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
