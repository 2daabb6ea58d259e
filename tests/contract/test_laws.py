"""Masks against the law they are said to follow: enumerated where that can be done, by exact marginals elsewhere.

Every statistical test would fail by chance for one seed in 10,000 (conftest.py's FALSE_ALARM); the seeds are fixed, so
none flickers.
"""

import itertools
import math

import numpy as np
import pytest
import torch

from melmask.masking import draw, make_strategy
from melmask.masking.laws import inclusion_probabilities
from melmask.types import PatchGrid

pytestmark = pytest.mark.numerical

UNEVEN = (1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def patches_of_dispersion(weights: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Patches whose mean absolute deviations are the weights, exactly, around means that differ."""
    mean = torch.arange(len(weights)) - 2.0
    return (mean[:, None] + weights[:, None] * torch.tensor([1.0, -1.0])).expand(batch_size, -1, -1)


@pytest.mark.parametrize(("freq", "time", "mask_ratio"), [(1, 7, 0.5), (2, 4, 0.6), (2, 3, 0.7)])
@pytest.mark.parametrize("options", [{}, {"statistic": "variance"}], ids=["mad", "variance"])
def test_dwm_draws_sets_by_successive_sampling(
    freq, time, mask_ratio, options, successive_sampling_law, assert_sets_follow
):
    grid = PatchGrid(freq, time)
    weights = [1.0, 2.0, 0.5, 5.0, 1.0, 4.0, 1.5, 3.0][: grid.num_patches]
    mask = draw(
        make_strategy("dwm", options), grid=grid, batch_size=60_000, mask_ratio=mask_ratio, rng=seeded(1),
        guide=patches_of_dispersion(torch.tensor(weights), 60_000),
    )  # fmt: skip
    power = 2 if options else 1
    assert_sets_follow(mask, successive_sampling_law([w**power for w in weights], mask.masked.shape[1]))


@pytest.mark.parametrize("mask_ratio", [0.3, 0.6, 0.8])
def test_dwm_draws_silent_patches_last_and_uniformly(mask_ratio, successive_sampling_law, assert_sets_follow):
    weights = [0.0, 2.0, 0.0, 5.0, 1.0, 0.0, 3.0]
    mask = draw(
        "dwm", grid=PatchGrid(1, 7), batch_size=60_000, mask_ratio=mask_ratio, rng=seeded(2),
        guide=patches_of_dispersion(torch.tensor(weights), 60_000),
    )  # fmt: skip
    assert_sets_follow(mask, successive_sampling_law(weights, mask.masked.shape[1]))


@pytest.mark.parametrize("hint_ratio", [0.3, 0.5, 0.8, 1.0])
def test_hints_on_dwm_follow_the_composed_law(hint_ratio, successive_sampling_law, hints_law, assert_sets_follow):
    mask = draw(
        "dwm", grid=PatchGrid(1, 7), batch_size=60_000, mask_ratio=0.55, rng=seeded(3), hint_ratio=hint_ratio,
        guide=patches_of_dispersion(torch.tensor(UNEVEN), 60_000),
    )  # fmt: skip
    law = hints_law(successive_sampling_law(list(UNEVEN), 4), 7, int(4 * hint_ratio))
    assert_sets_follow(mask, law)
    if hint_ratio == 1.0:
        assert np.allclose(list(law.values()), 1 / math.comb(7, 4))


def test_a_wrong_law_is_noticed(assert_sets_follow, assert_marginals_follow):
    # The tests above have the power to tell sampling without replacement from its common misreading: weights in
    # proportion to the inclusion probability.
    mask = draw(
        "dwm", grid=PatchGrid(1, 7), batch_size=60_000, mask_ratio=0.55, rng=seeded(3),
        guide=patches_of_dispersion(torch.tensor(UNEVEN), 60_000),
    )  # fmt: skip
    product = {frozenset(s): math.prod(UNEVEN[i] for i in s) for s in itertools.combinations(range(7), 4)}
    with pytest.raises(AssertionError):
        assert_sets_follow(mask, {s: p / sum(product.values()) for s, p in product.items()})
    with pytest.raises(AssertionError):
        assert_marginals_follow(mask, np.full(7, 4 / 7))


def test_random_makes_every_set_equally_likely(assert_sets_follow, assert_marginals_follow):
    mask = draw("random", grid=PatchGrid(1, 8), batch_size=60_000, mask_ratio=0.5, rng=seeded(4))
    assert_sets_follow(mask, {frozenset(s): 1 / math.comb(8, 4) for s in itertools.combinations(range(8), 4)})
    mask = draw("random", grid=PatchGrid(5, 38), batch_size=20_000, mask_ratio=0.7, rng=seeded(5))
    assert_marginals_follow(mask, np.full(190, 133 / 190))


@pytest.mark.parametrize(
    ("name", "options"),
    [("sgim", {}), ("dwm", {}), ("dwm", {"statistic": "variance"}), ("dwm", {"deterministic": True})],
)
def test_featureless_input_is_masked_uniformly(name, options, assert_marginals_follow):
    guide = torch.full((4000, 65, 6), -1.7)
    mask = draw(
        make_strategy(name, options), grid=PatchGrid(5, 13), batch_size=4000, mask_ratio=0.7, rng=seeded(6), guide=guide
    )
    assert_marginals_follow(mask, np.full(65, 46 / 65))


def test_ibm_marginals_are_those_of_two_squares_and_a_top_up(assert_marginals_follow):
    # Two centres fit on 5 x 38 at r = 0.7, so all 190² pairs can be gone through.
    grid, num_visible = PatchGrid(5, 38), 57
    freq, time = np.divmod(np.arange(190), grid.time)
    square = (np.abs(freq[:, None] - freq) <= 2) & (np.abs(time[:, None] - time) <= 2)
    visible = np.zeros(190)
    for first in square:
        union = first | square
        size = union.sum(axis=1, keepdims=True)
        assert (size <= num_visible).all()
        visible += np.where(union, 1.0, (num_visible - size) / (190 - size)).mean(axis=0) / 190
    mask = draw("ibm", grid=grid, batch_size=20_000, mask_ratio=0.7, rng=seeded(7))
    assert_marginals_follow(mask, 1 - visible)


def test_ibm_without_a_centre_is_random_masking(assert_sets_follow):
    mask = draw("ibm", grid=PatchGrid(2, 4), batch_size=60_000, mask_ratio=0.5, rng=seeded(8))
    assert_sets_follow(mask, {frozenset(s): 1 / math.comb(8, 4) for s in itertools.combinations(range(8), 4)})


def test_dwm_marginals_are_the_exact_inclusion_probabilities_on_a_full_grid(assert_marginals_follow):
    weights = (0.7 * torch.randn(190, generator=seeded(9))).exp()
    mask = draw(
        "dwm", grid=PatchGrid(5, 38), batch_size=20_000, mask_ratio=0.7, rng=seeded(10),
        guide=patches_of_dispersion(weights, 20_000),
    )  # fmt: skip
    assert_marginals_follow(mask, inclusion_probabilities(weights, 133).numpy())
