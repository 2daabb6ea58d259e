"""Maps by the installed umap-learn."""

import numpy as np
import pytest

from melmask.viz.layout import in_two_dimensions

pytestmark = [pytest.mark.adapters, pytest.mark.filterwarnings("default")]  # what others warn of is not ours to mend


def test_a_map_is_by_umap_keeps_groups_apart_and_is_the_same_again():
    rng = np.random.default_rng(0)
    group = np.arange(40) % 2
    features = (rng.standard_normal((40, 8)) + 8 * group[:, None]).astype(np.float32)
    places, how = in_two_dimensions(features)
    assert how == "UMAP of the first 8 principal components"
    assert places.shape == (40, 2) and places.min() >= 0 and places.max() <= 1
    distance = np.linalg.norm(places[:, None] - places[None], axis=2) + 9 * np.eye(40)
    assert (group[distance.argmin(axis=1)] == group).all()
    assert np.array_equal(in_two_dimensions(features)[0], places)
