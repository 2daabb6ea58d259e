"""Self-guided masks: the principal axis is the right one, and what is unlike both clusters goes first."""

import pytest
import torch
from torch.nn.functional import normalize

from melmask.masking import draw, make_strategy
from melmask.masking.selfguided import fiedler_scores, principal_axis_scores
from melmask.types import PatchGrid

pytestmark = pytest.mark.numerical

GRID = PatchGrid(5, 10)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clusters_and_outliers(batch_size: int, num_outliers: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features around two directions and some in directions of their own; and where the outliers stand [b, o]."""
    features = torch.zeros(batch_size, GRID.num_patches, 16)
    features[:, :24, 0] = 1.0
    features[:, 24:, 1] = 1.0
    for i in range(num_outliers):
        features[:, i] = 0.0
        features[:, i, 2 + i] = 1.0
    features += 0.02 * torch.randn(features.shape, generator=seeded(1))
    features *= 1 + torch.rand(*features.shape[:2], 1, generator=seeded(2))  # lengths must not matter
    shuffle = torch.rand(batch_size, GRID.num_patches, generator=seeded(3)).argsort(dim=1)
    features = features.gather(1, shuffle[:, :, None].expand(-1, -1, 16))
    return features, (shuffle < num_outliers).nonzero()[:, 1].view(batch_size, num_outliers)


def drawn(guide: torch.Tensor, mask_ratio: float, seed: int = 5, form: str = "pca") -> torch.Tensor:
    strategy, rng = make_strategy("sgim", {"form": form}), seeded(seed)
    return draw(
        strategy, grid=GRID, batch_size=len(guide), mask_ratio=mask_ratio, rng=rng, guide=guide
    ).masked  # fmt: skip


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize(("num_patches", "dim"), [(50, 8), (13, 32)])
def test_scores_are_the_first_left_singular_vector(num_patches, dim, scale):
    # The second axis is 0.97 as long as the first, as in features of an untrained encoder: a few steps of power
    # iteration would mix the two.
    left, _, right = torch.linalg.svd(torch.randn(6, num_patches, dim, generator=seeded(4)), full_matrices=False)
    left = torch.linalg.qr(left - left.mean(dim=1, keepdim=True)).Q
    lengths = 0.97 ** torch.arange(left.shape[2])
    features = scale * ((left * lengths) @ right + 0.5)
    cosine = (normalize(principal_axis_scores(features), dim=1) * left[:, :, 0]).sum(dim=1)
    assert torch.allclose(cosine.abs(), torch.ones(6), atol=1e-4)


@pytest.mark.parametrize("form", ["pca", "spectral"])
def test_outliers_are_masked_first(form):
    features, outliers = clusters_and_outliers(batch_size=40, num_outliers=10)
    assert torch.equal(drawn(features, 0.2, form=form), outliers)
    masked = drawn(features, 0.5, form=form)
    assert all(set(outliers[i].tolist()) <= set(masked[i].tolist()) for i in range(40))


def test_without_ties_the_choice_is_the_features_alone():
    features, _ = clusters_and_outliers(batch_size=8, num_outliers=6)
    assert torch.equal(drawn(features, 0.7, seed=1), drawn(features, 0.7, seed=2))


def test_the_order_of_the_batch_does_not_matter():
    features, _ = clusters_and_outliers(batch_size=8, num_outliers=6)
    order = torch.tensor([3, 0, 7, 1, 2, 6, 5, 4])
    assert torch.equal(drawn(features, 0.7)[order], drawn(features[order], 0.7))


def test_scores_match_a_plain_loop():
    features = torch.randn(5, GRID.num_patches, 16, generator=seeded(6)) + 0.5
    masked = drawn(features, 0.7)
    for sample in range(5):
        unit = normalize(features[sample].double(), dim=1)
        centred = unit - unit.mean(dim=0)
        axis = torch.linalg.svd(centred, full_matrices=False).Vh[0]
        first = centred @ axis > 0
        centroids = [normalize(unit[side].mean(dim=0), dim=0) for side in (first, ~first)]
        likeness = torch.stack([unit @ centroid for centroid in centroids]).amax(dim=0)
        assert set(masked[sample].tolist()) == set(likeness.argsort()[:35].tolist())


def laplacian(features: torch.Tensor) -> torch.Tensor:
    """I - D^-1/2 W D^-1/2 of one sample, in float64, from its definition."""
    unit = normalize(features.double(), dim=1)
    weights = (unit @ unit.T).clamp(min=0)
    root = weights.sum(dim=1).sqrt()
    return torch.eye(len(unit), dtype=torch.float64) - weights / root[:, None] / root


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_spectral_scores_are_the_fiedler_vector(shift):
    features = torch.randn(8, GRID.num_patches, 16, generator=seeded(6)) + shift
    scores = fiedler_scores(normalize(features, dim=2)).double()
    for sample in range(8):
        values, vectors = torch.linalg.eigh(laplacian(features[sample]))
        assert abs(float(values[0])) < 1e-6 < float(values[1])
        cosine = float(normalize(scores[sample], dim=0) @ vectors[:, 1])
        assert abs(cosine) > 0.999


def test_the_spectral_form_matches_a_plain_loop():
    features = torch.randn(5, GRID.num_patches, 16, generator=seeded(7)) + 0.5
    masked = drawn(features, 0.7, form="spectral")
    for sample in range(5):
        unit = normalize(features[sample].double(), dim=1)
        first = torch.linalg.eigh(laplacian(features[sample])).eigenvectors[:, 1] > 0
        centroids = [normalize(unit[side].mean(dim=0), dim=0) for side in (first, ~first)]
        likeness = torch.stack([unit @ centroid for centroid in centroids]).amax(dim=0)
        assert set(masked[sample].tolist()) == set(likeness.argsort()[:35].tolist())


def test_a_graph_in_two_parts_is_cut_between_them():
    features = torch.zeros(1, GRID.num_patches, 4)
    features[:, ::3, 0] = 1.0
    features[:, 1::3, 1] = features[:, 2::3, 1] = 1.0
    first = fiedler_scores(features)[0] > 0
    assert len(first[::3].unique()) == 1 and len(first[1::3].unique()) == 1 and first[0] != first[1] == first[2]


@pytest.mark.parametrize("form", ["pca", "spectral"])
def test_features_that_are_all_zero_are_masked_by_chance(form):
    masked = drawn(torch.zeros(30, GRID.num_patches, 16), 0.7, form=form)
    assert len(masked.unique(dim=0)) == 30
