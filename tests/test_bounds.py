"""The bounds hold for the worst order of terms, and not for a mistake."""

import copy

import numpy as np
import pytest
import torch

from bounds import assert_chain_close, assert_sums_close, encoder_terms, gamma, log_mel_with_bound
from melmask.logmel import LogMel, LogMelSpec
from melmask.nn.vit import Encoder, Size
from melmask.types import PatchGrid

pytestmark = pytest.mark.numerical

NUM_TERMS = 1040


@pytest.fixture
def terms() -> tuple[torch.Tensor, torch.Tensor]:
    """Two vectors whose products all but cancel."""
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, NUM_TERMS, generator=rng)
    y[-1] = -float(x[:-1].double() @ y[:-1].double()) / x[-1]
    return x, y


def one_by_one(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Their product, added in order in float32."""
    total = torch.zeros(())
    for product in x * y:
        total = total + product
    return total


def check(found: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> None:
    x, y = x.double(), y.double()
    assert_sums_close(found, x @ y, x.abs() @ y.abs(), NUM_TERMS)


def test_a_sum_in_any_order_is_within_the_bound_though_it_cancels(terms):
    x, y = terms
    exact = float(x.double() @ y.double())
    for order in (torch.arange(NUM_TERMS), (x * y).argsort(), (x * y).abs().argsort(descending=True)):
        found = one_by_one(x[order], y[order])
        check(found, x, y)
        assert abs(float(found) - exact) > 1e-3 * abs(exact)  # so no bound relative to the sum would have held


def test_a_dropped_term_or_a_wrong_weight_is_not(terms):
    x, y = terms
    with pytest.raises(AssertionError):
        check(one_by_one(x[1:], y[1:]), x, y)
    # Of few terms, even one weight that is off by a thousandth.
    x, y = x[:8], y[:8]
    wrong = y.clone()
    wrong[3] *= 1.001
    exact = (x.double() @ y.double(), x.double().abs() @ y.double().abs(), 8)
    assert_sums_close(one_by_one(x, y), *exact)
    with pytest.raises(AssertionError):
        assert_sums_close(one_by_one(x, wrong), *exact)


@pytest.mark.parametrize("depth", [2, 3])
def test_an_encoder_is_within_its_bound_and_one_with_a_matrix_a_thousandth_off_is_not(depth):
    torch.manual_seed(0)
    encoder, grid, patches = Encoder(Size(32, depth, 2), (16, 16)), PatchGrid(5, 6), torch.randn(2, 30, 256)
    exact = copy.deepcopy(encoder).double()(patches.double(), grid)
    num_terms = encoder_terms(encoder.size, 256, 31)
    assert_chain_close(encoder(patches, grid), exact, num_terms)
    with torch.no_grad():
        encoder.blocks[0].mlp.fc1.weight.mul_(1.001)
    with pytest.raises(AssertionError):
        assert_chain_close(encoder(patches, grid), exact, num_terms)


def test_log_mel_values_are_within_their_bound_and_those_of_a_wrong_window_or_filter_are_not():
    front_end, waves = LogMel(LogMelSpec()), torch.randn(2, 8000, generator=torch.Generator().manual_seed(0))
    expected, bound = log_mel_with_bound(waves.numpy(), front_end.spec)

    def is_within() -> bool:
        return bool((np.abs(front_end(waves).numpy() - expected) < bound).all())

    assert is_within()
    front_end.window = torch.hann_window(400, periodic=False)
    assert not is_within()
    front_end = LogMel(LogMelSpec())
    assert is_within()
    front_end.filterbank[:, 40] *= 1.001
    assert not is_within()


@pytest.mark.parametrize("wrong", [torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("inf")])])
def test_what_is_not_finite_is_not_close(wrong):
    exact = torch.ones(2, dtype=torch.float64)
    assert_chain_close(torch.ones(2), exact, 100)
    with pytest.raises(AssertionError):
        assert_sums_close(wrong, exact, exact, 100)
    with pytest.raises(AssertionError):
        assert_chain_close(wrong, exact, 100)


def test_gamma_grows_with_the_terms():
    assert gamma(1) == pytest.approx(2**-24) and gamma(1040) == pytest.approx(6.2e-5, rel=0.01)
