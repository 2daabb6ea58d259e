"""Masks against the law they are said to follow: enumerated where that can be done, by exact marginals elsewhere.

Every statistical test would fail by chance for one seed in 10,000 (FALSE_ALARM); the seeds are fixed, so none flickers.
"""

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from melmask.masking import draw, make_strategy
from melmask.masking.laws import guidance, inclusion_probabilities, with_hints_probabilities
from melmask.types import Mask, PatchGrid

FALSE_ALARM = 1e-4
Law = dict[frozenset[int], float]  # the probability of every masked set
UNEVEN = (1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def masked_at(mask: Mask) -> torch.Tensor:
    """True where a patch is masked [b, n]."""
    return torch.zeros(len(mask.masked), mask.num_patches, dtype=torch.bool).scatter_(1, mask.masked, True)


def patches_of_dispersion(weights: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Patches whose mean absolute deviations are the weights, exactly, around means that differ."""
    mean = torch.arange(len(weights)) - 2.0
    return (mean[:, None] + weights[:, None] * torch.tensor([1.0, -1.0])).expand(batch_size, -1, -1)


def successive_sampling_law(weights: list[float], num_masked: int) -> Law:
    """Draw one after the other by weight, without replacement; when only zeros are left, uniformly."""
    law: Law = {frozenset(): 1.0}
    for _ in range(num_masked):
        longer: Law = defaultdict(float)
        for drawn, probability in law.items():
            left = [i for i in range(len(weights)) if i not in drawn]
            total = sum(weights[i] for i in left)
            for i in left:
                longer[drawn | {i}] += probability * (weights[i] / total if total > 0 else 1 / len(left))
        law = dict(longer)
    return law


def hints_law(law: Law, num_patches: int, num_hints: int) -> Law:
    """A uniform subset S of M0 stays; as many as were given back come from everywhere outside S."""
    after: Law = defaultdict(float)
    for chosen, probability in law.items():
        num_stay = len(chosen) - num_hints
        for stays in itertools.combinations(sorted(chosen), num_stay):
            outside = [i for i in range(num_patches) if i not in stays]
            ways = math.comb(len(chosen), num_stay) * math.comb(len(outside), num_hints)
            for back in itertools.combinations(outside, num_hints):
                after[frozenset(stays + back)] += probability / ways
    return dict(after)


def inclusion_of(law: Law, num_patches: int) -> np.ndarray:
    """P(i masked) of a law."""
    return np.array([sum(p for masked, p in law.items() if i in masked) for i in range(num_patches)])


def assert_sets_follow(mask: Mask, law: Law) -> None:
    """Chi-square on the counts of whole masked sets; sets too rare to be tested alone are tested together."""
    assert sum(law.values()) == pytest.approx(1.0, abs=1e-12)
    sets, counts = mask.masked.unique(dim=0, return_counts=True)
    counted = {frozenset(masked): count for masked, count in zip(sets.tolist(), counts.tolist(), strict=True)}
    assert counted.keys() <= {masked for masked, p in law.items() if p > 0}
    expected = np.array([p * len(mask.masked) for p in law.values()])
    observed = np.array([counted.get(masked, 0) for masked in law])
    rare = expected < 5
    if rare.any():
        expected = np.append(expected[~rare], max(expected[rare].sum(), 1e-9))
        observed = np.append(observed[~rare], observed[rare].sum())
    assert stats.chisquare(observed, expected).pvalue > FALSE_ALARM


def assert_marginals_follow(mask: Mask, expected: np.ndarray) -> None:
    """Hotelling's T² on the share of masks that mask each patch but the last, which follows from the others."""
    masked = masked_at(mask).double().numpy()[:, :-1]
    assert masked.sum(axis=1).mean() == pytest.approx(expected[:-1].sum(), abs=0.05)
    num_masks, dim = masked.shape
    apart = masked.mean(axis=0) - expected[:-1]
    t_squared = num_masks * apart @ np.linalg.solve(np.cov(masked.T), apart)
    ratio = t_squared * (num_masks - dim) / (dim * (num_masks - 1))
    assert stats.f.sf(ratio, dim, num_masks - dim) > FALSE_ALARM


@pytest.mark.parametrize(("freq", "time", "mask_ratio"), [(1, 7, 0.5), (2, 4, 0.6), (2, 3, 0.7)])
@pytest.mark.parametrize("options", [{}, {"statistic": "variance"}], ids=["mad", "variance"])
def test_dwm_draws_sets_by_successive_sampling(freq, time, mask_ratio, options):
    grid = PatchGrid(freq, time)
    weights = [1.0, 2.0, 0.5, 5.0, 1.0, 4.0, 1.5, 3.0][: grid.num_patches]
    mask = draw(
        make_strategy("dwm", options), grid=grid, batch_size=60_000, mask_ratio=mask_ratio, rng=seeded(1),
        guide=patches_of_dispersion(torch.tensor(weights), 60_000),
    )  # fmt: skip
    power = 2 if options else 1
    assert_sets_follow(mask, successive_sampling_law([w**power for w in weights], mask.masked.shape[1]))


@pytest.mark.parametrize("mask_ratio", [0.3, 0.6, 0.8])
def test_dwm_draws_silent_patches_last_and_uniformly(mask_ratio):
    weights = [0.0, 2.0, 0.0, 5.0, 1.0, 0.0, 3.0]
    mask = draw(
        "dwm", grid=PatchGrid(1, 7), batch_size=60_000, mask_ratio=mask_ratio, rng=seeded(2),
        guide=patches_of_dispersion(torch.tensor(weights), 60_000),
    )  # fmt: skip
    assert_sets_follow(mask, successive_sampling_law(weights, mask.masked.shape[1]))


@pytest.mark.parametrize("hint_ratio", [0.3, 0.5, 0.8, 1.0])
def test_hints_on_dwm_follow_the_composed_law(hint_ratio):
    mask = draw(
        "dwm", grid=PatchGrid(1, 7), batch_size=60_000, mask_ratio=0.55, rng=seeded(3), hint_ratio=hint_ratio,
        guide=patches_of_dispersion(torch.tensor(UNEVEN), 60_000),
    )  # fmt: skip
    law = hints_law(successive_sampling_law(list(UNEVEN), 4), 7, int(4 * hint_ratio))
    assert_sets_follow(mask, law)
    if hint_ratio == 1.0:
        assert np.allclose(list(law.values()), 1 / math.comb(7, 4))


def test_a_wrong_law_is_noticed():
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


def test_random_makes_every_set_equally_likely():
    mask = draw("random", grid=PatchGrid(1, 8), batch_size=60_000, mask_ratio=0.5, rng=seeded(4))
    assert_sets_follow(mask, {frozenset(s): 1 / math.comb(8, 4) for s in itertools.combinations(range(8), 4)})
    mask = draw("random", grid=PatchGrid(5, 38), batch_size=20_000, mask_ratio=0.7, rng=seeded(5))
    assert_marginals_follow(mask, np.full(190, 133 / 190))


@pytest.mark.parametrize(
    ("name", "options"),
    [("sgim", {}), ("dwm", {}), ("dwm", {"statistic": "variance"}), ("dwm", {"deterministic": True})],
)
def test_featureless_input_is_masked_uniformly(name, options):
    guide = torch.full((4000, 65, 6), -1.7)
    mask = draw(
        make_strategy(name, options), grid=PatchGrid(5, 13), batch_size=4000, mask_ratio=0.7, rng=seeded(6), guide=guide
    )
    assert_marginals_follow(mask, np.full(65, 46 / 65))


def test_ibm_marginals_are_those_of_two_squares_and_a_top_up():
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


def test_ibm_without_a_centre_is_random_masking():
    mask = draw("ibm", grid=PatchGrid(2, 4), batch_size=60_000, mask_ratio=0.5, rng=seeded(8))
    assert_sets_follow(mask, {frozenset(s): 1 / math.comb(8, 4) for s in itertools.combinations(range(8), 4)})


def test_dwm_marginals_are_the_exact_inclusion_probabilities_on_a_full_grid():
    weights = (0.7 * torch.randn(190, generator=seeded(9))).exp()
    mask = draw(
        "dwm", grid=PatchGrid(5, 38), batch_size=20_000, mask_ratio=0.7, rng=seeded(10),
        guide=patches_of_dispersion(weights, 20_000),
    )  # fmt: skip
    assert_marginals_follow(mask, inclusion_probabilities(weights, 133).numpy())


@settings(max_examples=25, deadline=None)
@given(exponents=st.lists(st.floats(-3.0, 3.0) | st.just(-math.inf), min_size=1, max_size=8), share=st.floats(0.0, 1.0))
def test_inclusion_probabilities_are_the_enumerated_ones(exponents, share):
    weights = [10.0**exponent for exponent in exponents]
    num_masked = round(share * len(weights))
    enumerated = inclusion_of(successive_sampling_law(weights, num_masked), len(weights))
    exact = inclusion_probabilities(torch.tensor(weights, dtype=torch.float64), num_masked)
    np.testing.assert_allclose(exact.numpy(), enumerated, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("num_masked", [0, 1, 57, 133, 189, 190])
def test_inclusion_probabilities_add_up_on_a_full_grid(num_masked):
    weights = 10.0 ** torch.linspace(-3, 3, 190)
    inclusion = inclusion_probabilities(weights, num_masked)
    assert float(inclusion.double().sum()) == pytest.approx(num_masked, rel=1e-6)
    assert (inclusion.diff() >= -1e-7).all() and inclusion.min() >= 0 and inclusion.max() <= 1 + 1e-7
    assert torch.allclose(inclusion_probabilities(torch.full((190,), 0.3), num_masked), torch.tensor(num_masked / 190))


def test_inclusion_probabilities_refuse_impossible_input():
    for weight in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="finite and not negative"):
            inclusion_probabilities(torch.tensor([1.0, weight]), 1)
    for num_masked in (-1, 3):
        with pytest.raises(ValueError, match=r"in \[0, 2\]"):
            inclusion_probabilities(torch.ones(2), num_masked)


@pytest.mark.parametrize("hint_ratio", [0.0, 0.25, 0.4, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("num_masked", [2, 4, 6])
def test_guidance_is_exact_in_the_enumerated_law(num_masked, hint_ratio):
    law = successive_sampling_law(list(UNEVEN), num_masked)
    enumerated = inclusion_of(hints_law(law, 7, int(num_masked * hint_ratio + 1e-9)), 7)
    inclusion = inclusion_probabilities(torch.tensor(UNEVEN), num_masked)
    predicted = with_hints_probabilities(inclusion, num_masked, hint_ratio)
    np.testing.assert_allclose(predicted.numpy(), enumerated, atol=1e-6)


@given(hint_ratio=st.floats(0.0, 1.0), mask_ratio=st.floats(0.1, 0.9))
def test_guidance_tends_to_its_continuous_form(hint_ratio, mask_ratio):
    num_patches = 10**7
    continuous = (1 - hint_ratio) * (1 - mask_ratio) / (1 - mask_ratio + hint_ratio * mask_ratio)
    assert guidance(num_patches, round(num_patches * mask_ratio), hint_ratio) == pytest.approx(continuous, abs=1e-5)
