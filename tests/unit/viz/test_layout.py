"""The places of a map: groups lie apart, scales do not count, and few or equal recordings have places too."""

import sys

import numpy as np
import pytest

from melmask.viz.layout import in_two_dimensions


def groups(num_each: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1], num_each)
    features = rng.standard_normal((2 * num_each, 20)) + 6 * group[:, None] * (np.arange(20) < 10)
    return features.astype(np.float32), group


@pytest.mark.parametrize("num_each", [4, 40])
def test_groups_lie_apart_and_places_repeat(num_each: int) -> None:
    features, group = groups(num_each)
    places, how = in_two_dimensions(features)
    assert places.shape == (2 * num_each, 2) and places.min() == 0 and places.max() == 1
    assert ("t-SNE" in how) == (num_each == 40)
    distance = np.linalg.norm(places[:, None] - places, axis=2) + 9 * np.eye(len(places))
    assert (group[distance.argmin(axis=1)] == group).all()
    np.testing.assert_array_equal(in_two_dimensions(features)[0], places)


def test_a_dimension_counts_by_what_it_tells_and_not_by_its_scale() -> None:
    features, _ = groups(5)
    places, _ = in_two_dimensions(features)
    scaled, _ = in_two_dimensions(features * np.logspace(-3, 3, 20, dtype=np.float32) + np.float32(2))
    np.testing.assert_allclose(scaled, places, atol=1e-2)


def test_without_scikit_learn_there_are_principal_components(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    features, _ = groups(40)
    places, how = in_two_dimensions(features)
    assert how.startswith("the first two principal components") and "melmask[sklearn]" in how
    assert abs(np.corrcoef(places.T)[0, 1]) < 1e-6


@pytest.mark.parametrize("num_clips", [1, 2, 15])
def test_equal_recordings_lie_in_the_middle(num_clips: int) -> None:
    places, _ = in_two_dimensions(np.ones((num_clips, 5), np.float32))
    assert (places == 0.5).all()


def test_copies_have_one_place() -> None:
    features, _ = groups(10)
    places, how = in_two_dimensions(np.concatenate([features, features[:5], features[:5]]))
    assert "t-SNE" in how and len(np.unique(places, axis=0)) == 20
    np.testing.assert_array_equal(places[20:25], places[:5])
