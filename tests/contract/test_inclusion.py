"""Inclusion probabilities and guidance against enumeration: what the reports say a mask does is what it does."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from melmask.masking.bands import WHITE_NOISE
from melmask.masking.laws import approximate_inclusion, guidance, inclusion_probabilities, with_hints_probabilities

pytestmark = pytest.mark.numerical

UNEVEN = (1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0)


def inclusion_of(law: dict[frozenset[int], float], num_patches: int) -> np.ndarray:
    """P(i masked) of a law."""
    return np.array([sum(p for masked, p in law.items() if i in masked) for i in range(num_patches)])


@settings(max_examples=25, deadline=None)
@given(exponents=st.lists(st.floats(-3.0, 3.0) | st.just(-math.inf), min_size=1, max_size=8), share=st.floats(0.0, 1.0))
def test_inclusion_probabilities_are_the_enumerated_ones(exponents, share, successive_sampling_law):
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


@pytest.mark.parametrize("inclusion", [inclusion_probabilities, approximate_inclusion])
def test_inclusion_probabilities_refuse_impossible_input(inclusion):
    for weight in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="finite and not negative"):
            inclusion(torch.tensor([1.0, weight]), 1)
    for num_masked in (-1, 3):
        with pytest.raises(ValueError, match=r"in \[0, 2\]"):
            inclusion(torch.ones(2), num_masked)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


WEIGHTS = {
    "white noise": torch.tensor(WHITE_NOISE).repeat_interleave(38),
    "as real dispersions": (0.5 * torch.randn(190, generator=seeded(1))).exp(),
    "wider": torch.randn(190, generator=seeded(2)).exp(),
    "half silent": torch.cat([torch.rand(95, generator=seeded(3)) + 0.2, torch.zeros(95)]),
}


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
def test_the_cheap_approximation_is_good_to_three_digits_on_a_full_grid(weights):
    exact, cheap = inclusion_probabilities(weights, 133), approximate_inclusion(weights, 133)
    assert float((exact - cheap).abs().max()) < 1e-3
    assert float(cheap.double().sum()) == pytest.approx(133, rel=1e-6)


@pytest.mark.parametrize("num_masked", [0, 1, 57, 133, 180, 189, 190])
def test_the_cheap_approximation_stays_near_where_weights_span_20_orders_of_magnitude(num_masked):
    weights = 10.0 ** torch.linspace(-17, 3, 190)
    exact, cheap = inclusion_probabilities(weights, num_masked), approximate_inclusion(weights, num_masked)
    assert float((exact - cheap).abs().max()) < 0.02
    assert float(cheap.double().sum()) == pytest.approx(num_masked, rel=1e-6)


def test_the_cheap_approximation_takes_a_batch_with_zeros():
    weights = torch.tensor([[1.0, 2.0, 0.0, 4.0], [0.0, 0.0, 0.0, 3.0], [0.0, 0.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0]])
    cheap = approximate_inclusion(weights, 3)
    assert torch.equal(cheap[0], torch.tensor([1.0, 1.0, 0.0, 1.0]))
    assert torch.allclose(cheap[1], torch.tensor([2 / 3, 2 / 3, 2 / 3, 1.0]))
    assert torch.allclose(cheap[2:], torch.tensor(0.75))
    for row, sample in zip(weights, cheap, strict=True):
        assert torch.equal(approximate_inclusion(row, 3), sample)


@pytest.mark.parametrize("hint_ratio", [0.0, 0.25, 0.4, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("num_masked", [2, 4, 6])
def test_guidance_is_exact_in_the_enumerated_law(num_masked, hint_ratio, successive_sampling_law, hints_law):
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
