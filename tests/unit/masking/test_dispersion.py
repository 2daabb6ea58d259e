"""Dispersion weights: their values, their invariances, and what happens where there is nothing to weigh."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from melmask.masking import draw, make_strategy
from melmask.masking.dispersion import dispersion
from melmask.types import PatchGrid

GRID = PatchGrid(5, 13)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(guide: torch.Tensor, mask_ratio: float = 0.7, **options: object) -> torch.Tensor:
    strategy = make_strategy("dwm", options)
    return draw(
        strategy, grid=GRID, batch_size=len(guide), mask_ratio=mask_ratio, rng=seeded(1), guide=guide
    ).masked  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.float32, (2, 3, 7), elements=st.floats(-50, 50, width=32)))
def test_weights_are_the_textbook_statistics(values):
    patches, exact = torch.from_numpy(values), values.astype(np.float64)
    deviation = exact - exact.mean(axis=2, keepdims=True)
    np.testing.assert_allclose(dispersion(patches, "mad"), np.abs(deviation).mean(axis=2), rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(dispersion(patches, "variance"), exact.var(axis=2), rtol=1e-5, atol=2e-3)


@pytest.mark.parametrize("statistic", ["mad", "variance"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_weighed_in_float32(statistic, dtype):
    patches = (300 * torch.randn(4, 65, 16, generator=seeded(1))).to(dtype)  # squares overflow in float16
    weight = dispersion(patches, statistic)
    assert weight.dtype == torch.float32
    assert torch.equal(weight, dispersion(patches.float(), statistic))


@pytest.mark.parametrize("statistic", ["mad", "variance"])
@pytest.mark.parametrize("num_values", [256, 64, 37])
def test_constant_patches_weigh_exactly_nothing(statistic, num_values):
    # Around its mean rounded in float32 a constant like 0.1 deviates by 1e-8, and silence would be drawn.
    level = torch.randn(4, 65, 1, generator=seeded(2)) * 4
    assert (dispersion(level.expand(-1, -1, num_values).contiguous(), statistic) == 0).all()


@pytest.mark.parametrize("options", [{}, {"statistic": "variance"}, {"deterministic": True}])
def test_silent_patches_are_masked_only_after_all_others(options):
    guide = torch.randn(200, 65, 256, generator=seeded(3)) * 1e-3
    guide[:, ::2] = torch.randn(200, 33, 1, generator=seeded(4))  # 33 of 65 are silent, each at its own level
    silent = torch.arange(65) % 2 == 0
    assert not silent[drawn(guide, 0.4, **options)].any()
    masked = drawn(guide, 0.7, **options)
    assert ((~silent[masked]).sum(dim=1) == 32).all()
    # Which 14 of the silent ones is chance: all 33 are met in both roles; misses have a chance below 1e-20.
    met = torch.zeros(200, 65).scatter_(1, masked, 1.0)[:, silent].sum(dim=0)
    assert (met > 0).all() and (met < 200).all()


@pytest.mark.parametrize("options", [{}, {"statistic": "variance"}, {"deterministic": True}])
@pytest.mark.parametrize(("scale", "shift"), [(3.7, -2.0), (-0.2, 5.0), (1e-4, 0.0)])
def test_masks_ignore_the_inputs_level_and_unit(options, scale, shift):
    guide = torch.randn(50, 65, 64, generator=seeded(5)) * torch.rand(50, 65, 1, generator=seeded(6))
    assert torch.equal(drawn(guide, **options), drawn(scale * guide + shift, **options))


def test_deterministic_masks_the_largest_weights():
    guide = torch.randn(20, 65, 64, generator=seeded(7)) * torch.rand(20, 65, 1, generator=seeded(8))
    masked = drawn(guide, deterministic=True)
    largest = dispersion(guide, "mad").topk(46, dim=1).indices.sort(dim=1).values
    assert torch.equal(masked, largest)


def test_a_larger_weight_is_masked_more_often():
    guide = torch.randn(1, 65, 64, generator=seeded(9)).expand(2000, -1, -1).clone()
    guide *= torch.linspace(0.1, 3, 65)[:, None]
    often = torch.zeros(2000, 65).scatter_(1, drawn(guide), 1.0).mean(dim=0)
    assert often[:20].mean() < 0.5 < 0.9 < often[-20:].mean()


def test_values_too_large_to_square_are_refused_by_the_samples_number():
    guide = torch.zeros(3, 65, 4)
    guide[1, 5, 0] = 1e30
    with pytest.raises(ValueError, match="sample 1 of the guide holds NaN, infinite or overflowing values"):
        dispersion(guide, "variance")
    assert dispersion(guide, "mad").isfinite().all()
