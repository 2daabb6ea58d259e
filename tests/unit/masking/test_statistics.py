"""Statistics of patches: their values, their invariances, and what they do with values that are no numbers."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import entropy

from melmask.masking import statistics
from melmask.masking.statistics import STATISTICS, dispersion

pytestmark = pytest.mark.numerical

by_statistic = pytest.mark.parametrize("statistic", STATISTICS)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def textbook(patch: np.ndarray, statistic: str) -> float:
    """The statistic of one patch of 3 x 3 in float64, each written as its definition reads."""
    deviation = np.abs(patch - patch.mean())
    ascending = np.sort(patch)
    return {
        "mad": lambda: deviation.mean(),
        "variance": lambda: patch.var(),
        "iqr": lambda: np.subtract(*np.percentile(patch, [75, 25])),
        "range": lambda: np.ptp(patch),
        "entropy": lambda: entropy(deviation) if deviation.any() else 0.0,
        "flux": lambda: np.abs(np.diff(patch.reshape(3, 3), axis=1)).mean(),
        "contrast": lambda: ascending[-1] - ascending[0],  # a fifth of nine values is one
    }[statistic]()


@by_statistic
@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.float32, (2, 3, 9), elements=st.integers(-400, 400).map(lambda i: i / 8)))
def test_weights_are_the_textbook_statistics(statistic, values):
    weight = dispersion(torch.from_numpy(values), statistic)
    expected = [[textbook(patch, statistic) for patch in sample] for sample in values.astype(np.float64)]
    # Shares of deviations that cancel to nothing in float64 and not in float32 change an entropy a little.
    np.testing.assert_allclose(weight, expected, rtol=1e-5, atol=1e-4)


def test_contrast_is_between_fifths_and_flux_along_time():
    patch = torch.tensor([9.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 7.0, 0.0])[None, None]
    assert float(dispersion(patch, "contrast")) == pytest.approx((9 + 7) / 2 - (0 + 1) / 2)
    rising = torch.tensor([[0.0, 1.0, 2.0], [5.0, 6.0, 7.0]]).reshape(1, 1, 6)
    assert float(dispersion(rising, "flux", (2, 3))) == pytest.approx(1.0)  # the step of 5 between rows is none in time
    assert float(dispersion(rising, "flux", (3, 2))) == pytest.approx((1 + 3 + 1) / 3)


@by_statistic
@settings(max_examples=15, deadline=None)
@given(
    batch_size=st.integers(0, 5), num_patches=st.integers(1, 7), side=st.integers(2, 5), seed=st.integers(0, 99),
    silent=st.floats(0, 1), ties=st.booleans(), dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
)  # fmt: skip
def test_weights_of_any_shape_are_finite_and_not_negative(
    statistic, batch_size, num_patches, side, seed, silent, ties, dtype
):
    rng = seeded(seed)
    patches = 5 * torch.randn(batch_size, num_patches, side**2, generator=rng)
    if ties:
        patches = patches.round()
    is_silent = torch.rand(batch_size, num_patches, generator=rng) < silent
    patches = torch.where(is_silent[:, :, None], patches[:, :, :1], patches).to(dtype)
    weight = dispersion(patches, statistic)
    assert weight.shape == (batch_size, num_patches) and weight.dtype == torch.float32
    assert weight.isfinite().all() and (weight >= 0).all()
    assert (weight[is_silent] == 0).all()
    assert torch.equal(weight, dispersion(patches.float(), statistic))


@by_statistic
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_weighed_in_float32(statistic, dtype):
    patches = (300 * torch.randn(4, 65, 16, generator=seeded(1))).to(dtype)  # squares overflow in float16
    weight = dispersion(patches, statistic)
    assert weight.dtype == torch.float32
    assert torch.equal(weight, dispersion(patches.float(), statistic))


@by_statistic
@pytest.mark.parametrize("num_values", [256, 64, 36])
def test_constant_patches_weigh_exactly_nothing(statistic, num_values):
    # Around its mean rounded in float32 a constant like 0.1 deviates by 1e-8, and silence would be drawn.
    level = torch.randn(4, 65, 1, generator=seeded(2)) * 4
    assert (dispersion(level.expand(-1, -1, num_values).contiguous(), statistic) == 0).all()


@by_statistic
@pytest.mark.parametrize(("scale", "shift"), [(3.7, -2.0), (-0.2, 5.0), (1e-3, 0.0)])
def test_weights_ignore_the_level_and_follow_the_unit(statistic, scale, shift):
    patches = torch.randn(20, 65, 64, generator=seeded(5)) * (0.2 + torch.rand(20, 65, 1, generator=seeded(6)))
    ratio = dispersion(scale * patches + shift, statistic) / dispersion(patches, statistic)
    expected = {"variance": scale**2, "entropy": 1.0}.get(statistic, abs(scale))
    assert torch.allclose(ratio, torch.tensor(expected), rtol=1e-4)


@by_statistic
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 7, 15])
def test_what_is_no_number_is_refused_by_the_samples_number_wherever_it_stands(statistic, poison, place):
    patches = torch.randn(5, 13, 16, generator=seeded(7))
    patches[3, 12, place] = poison
    with pytest.raises(ValueError, match="sample 3 of the guide holds NaN, infinite or overflowing values"):
        dispersion(patches, statistic)


def test_values_too_large_to_square_are_refused_by_the_samples_number():
    guide = torch.zeros(3, 65, 4)
    guide[1, 5, 0] = 1e30
    with pytest.raises(ValueError, match="sample 1 of the guide holds NaN, infinite or overflowing values"):
        dispersion(guide, "variance")
    assert dispersion(guide, "mad").isfinite().all()


@by_statistic
def test_chunks_join_to_the_whole(statistic, monkeypatch):
    patches = torch.randn(11, 13, 16, generator=seeded(8))
    whole = dispersion(patches, statistic)
    for samples in (1, 2, 3, 10, 11, 50):
        monkeypatch.setattr(statistics, "CPU_CHUNK", samples * 13 * 16)
        assert torch.equal(dispersion(patches, statistic), whole)
    monkeypatch.setattr(statistics, "CPU_CHUNK", 1)  # less than a sample
    assert torch.equal(dispersion(patches, statistic), whole)


@by_statistic
def test_the_patches_are_left_alone_in_any_layout(statistic):
    patches = torch.randn(13, 16, 6, generator=seeded(9)).permute(2, 0, 1)
    before = patches.clone()
    weight = dispersion(patches.requires_grad_(), statistic)
    assert torch.equal(patches, before) and not weight.requires_grad
    assert torch.equal(weight, dispersion(before.contiguous(), statistic))


@pytest.mark.parametrize(
    ("num_values", "patch", "frames"), [(256, None, 16), (64, (16, 4), 4), (160, (80, 2), 2), (80, (5, 16), 16)]
)
def test_flux_knows_the_frames_of_a_patch(num_values, patch, frames):
    assert statistics.frames_of(num_values, patch) == frames


@pytest.mark.parametrize(
    ("num_values", "patch", "message"),
    [
        (160, None, "160 values are not 12 x 12: name their shape in the PatchGrid"),
        (64, (16, 5), "64 values are not 16 x 5"),
        (80, (80, 1), "at least two frames"),
        (1, None, "at least two frames"),
    ],
)
def test_flux_refuses_patches_of_another_shape_or_a_single_frame(num_values, patch, message):
    with pytest.raises(ValueError, match=message):
        dispersion(torch.zeros(1, 1, num_values), "flux", patch)
    for statistic in set(STATISTICS) - {"flux"}:
        assert dispersion(torch.zeros(1, 1, num_values), statistic, patch).tolist() == [[0.0]]


def test_no_two_statistics_are_the_same_ranking():
    patches = torch.randn(1, 400, 256, generator=seeded(10)) ** 3
    weights = {statistic: dispersion(patches, statistic)[0].argsort() for statistic in STATISTICS}
    for one, other in itertools.combinations(STATISTICS, 2):
        assert not torch.equal(weights[one], weights[other]), (one, other)
