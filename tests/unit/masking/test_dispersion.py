"""Masks by weight: their invariances, their limits, and what happens where there is nothing to weigh."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from melmask.masking import draw, make_strategy
from melmask.masking.base import split
from melmask.masking.dispersion import successive_order
from melmask.masking.statistics import STATISTICS, dispersion
from melmask.types import PatchGrid

GRID = PatchGrid(5, 13, (8, 8))
WEIGHED = ("dwm", "dwm_inverse", "dwm_ibm", "dwm_band")
by_statistic = pytest.mark.parametrize("statistic", STATISTICS)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(guide: torch.Tensor, mask_ratio: float = 0.7, name: str = "dwm", seed: int = 1, **options: object):
    strategy = make_strategy(name, options)
    return draw(
        strategy, grid=GRID, batch_size=len(guide), mask_ratio=mask_ratio, rng=seeded(seed), guide=guide
    ).masked  # fmt: skip


@by_statistic
@pytest.mark.parametrize("deterministic", [False, True])
def test_silent_patches_are_masked_only_after_all_others(statistic, deterministic):
    guide = torch.randn(200, 65, 64, generator=seeded(3)) * 1e-3
    guide[:, ::2] = torch.randn(200, 33, 1, generator=seeded(4))  # 33 of 65 are silent, each at its own level
    silent = torch.arange(65) % 2 == 0
    options = {"statistic": statistic, "deterministic": deterministic}
    assert not silent[drawn(guide, 0.4, **options)].any()
    masked = drawn(guide, 0.7, **options)
    assert ((~silent[masked]).sum(dim=1) == 32).all()
    # Which 14 of the silent ones is chance: all 33 are met in both roles; misses have a chance below 1e-20.
    met = torch.zeros(200, 65).scatter_(1, masked, 1.0)[:, silent].sum(dim=0)
    assert (met > 0).all() and (met < 200).all()


@pytest.mark.parametrize("exponent", [0.01, 0.5, 100.0, math.inf])
def test_silence_comes_last_or_first_at_any_exponent(exponent):
    guide = torch.randn(100, 65, 16, generator=seeded(3)) * 10 ** torch.linspace(-12, 6, 65)[:, None]
    guide[:, 40:] = 1.0
    assert (drawn(guide, 0.6, exponent=exponent) < 40).all()
    assert ((drawn(guide, 0.6, name="dwm_inverse", exponent=exponent) >= 40).sum(dim=1) == 25).all()


@by_statistic
@pytest.mark.parametrize("name", WEIGHED)
@pytest.mark.parametrize(("scale", "shift"), [(3.7, -2.0), (-0.2, 5.0), (1e-3, 0.0)])
def test_masks_ignore_the_inputs_level_and_unit(statistic, name, scale, shift):
    guide = torch.randn(50, 65, 64, generator=seeded(5)) * torch.rand(50, 65, 1, generator=seeded(6))
    options = {"name": name, "statistic": statistic, "floor": 0.1}
    assert torch.equal(drawn(guide, **options), drawn(scale * guide + shift, **options))


@by_statistic
def test_deterministic_masks_the_largest_weights(statistic):
    guide = torch.randn(20, 65, 64, generator=seeded(7)) * torch.rand(20, 65, 1, generator=seeded(8))
    weight = dispersion(guide, statistic)
    for options in ({"deterministic": True}, {"exponent": math.inf}):
        masked = drawn(guide, statistic=statistic, **options)
        assert torch.equal(masked, weight.topk(46, dim=1).indices.sort(dim=1).values)
        calm = drawn(guide, name="dwm_inverse", statistic=statistic, **options)
        assert torch.equal(calm, weight.topk(46, dim=1, largest=False).indices.sort(dim=1).values)


def test_a_larger_weight_is_masked_more_often_and_by_the_inverse_less():
    guide = torch.randn(1, 65, 64, generator=seeded(9)).expand(2000, -1, -1).clone()
    guide *= torch.linspace(0.1, 3, 65)[:, None]
    often, seldom = (
        torch.zeros(2000, 65).scatter_(1, drawn(guide, name=n), 1.0).mean(0) for n in ("dwm", "dwm_inverse")
    )
    assert often[:20].mean() < 0.5 < 0.9 < often[-20:].mean()
    assert seldom[:20].mean() > 0.8 > 0.65 > seldom[-20:].mean()


def test_the_exponent_moves_dwm_from_chance_to_certainty():
    guide = torch.randn(500, 65, 64, generator=seeded(10)) * torch.rand(500, 65, 1, generator=seeded(11))
    weight = dispersion(guide, "mad")
    heavy = [
        float(weight.gather(1, drawn(guide, exponent=exponent)).mean())
        for exponent in (0.0, 0.5, 1.0, 2.0, 8.0, math.inf)
    ]
    assert heavy == sorted(heavy)
    assert heavy[0] == pytest.approx(float(weight.mean()), rel=0.02)


def test_a_floor_lets_silence_be_masked():
    guide = torch.randn(100, 65, 16, generator=seeded(12))
    guide[:, 40:] = 0.0
    num_silent = [float((drawn(guide, 0.6, floor=floor) >= 40).float().mean()) for floor in (0.0, 0.1, 1.0, 100.0)]
    assert num_silent == sorted(num_silent) and num_silent[0] == 0.0
    assert num_silent[-1] == pytest.approx(25 / 65, abs=0.05)


def test_a_floor_does_not_hear_padding():
    strategy, guide = make_strategy("dwm", {"floor": 0.5}), torch.randn(20, 65, 16, generator=seeded(13))
    valid = (torch.arange(13) < 9).expand(20, -1).repeat(1, 5)
    weight = dispersion(torch.where(valid[:, :, None], guide, -1.0), "mad")
    short = weight[:, (torch.arange(65) % 13) < 9]
    padded = strategy.raised(weight)[:, (torch.arange(65) % 13) < 9]
    assert torch.allclose(padded, strategy.raised(short), rtol=1e-5)


def test_blocks_mask_busy_patches_more_and_stay_whole():
    guide = 0.1 * torch.randn(400, 65, 16, generator=seeded(14))
    guide.view(400, 5, 13, 16)[:, :, 7:] *= 10.0  # the later half is busy
    masked = torch.zeros(400, 65).scatter_(1, drawn(guide, name="dwm_ibm", side=3), 1.0)
    calm, busy = masked.view(400, 5, 13).split([7, 6], dim=2)
    assert busy.mean() > calm.mean() + 0.2
    alike = torch.zeros(400, 65).scatter_(1, drawn(guide, name="dwm_ibm", side=3, exponent=0.0), 1.0)
    beside = [float((m.view(400, 5, 13).diff(dim=2) == 0).float().mean()) for m in (masked, alike)]
    assert min(beside) > 0.68  # by chance 0.58 of neighbours share their role


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(
        st.lists(st.sampled_from([0.0, 1e-38, 1e-9, 0.5, 1.0, 1.0, 3e38]), min_size=9, max_size=9),
        min_size=1,
        max_size=4,
    ),
    exponent=st.sampled_from([-math.inf, -100.0, -1.0, -0.01, 0.0, 0.01, 1.0, 2.0, 100.0, math.inf]),
    num_masked=st.integers(1, 8),
    seed=st.integers(0, 999),
)
def test_any_finite_weights_make_an_order(rows, exponent, num_masked, seed):
    weight = torch.tensor(rows)
    order = successive_order(weight, exponent, seeded(seed))
    assert order.isfinite().all()
    mask = split(order, num_masked)
    assert mask.masked.shape == (len(rows), num_masked)
    silent, last = weight == 0, order.masked_fill(weight > 0, -torch.inf).amax(dim=1)
    if exponent > 0:
        assert (order.masked_fill(silent, torch.inf).amin(dim=1) > last).all()
    if exponent < 0:
        first = order.masked_fill(weight > 0, torch.inf).amin(dim=1)
        assert (order.masked_fill(silent, -torch.inf).amax(dim=1) < first).all()


@pytest.mark.parametrize("exponent", [-math.inf, -1.0, 0.0, 1.0, math.inf])
def test_equal_weights_are_ordered_by_chance(exponent):
    for weight in (0.0, 2.0):
        order = successive_order(torch.full((6000, 4), weight), exponent, seeded(15))
        first = order.argmax(dim=1).bincount(minlength=4)
        # 1500 each, give or take 34; five times that has odds below 1e-5 in all.
        assert ((first - 1500).abs() < 170).all()


@pytest.mark.parametrize("exponent", [-math.inf, -1.0, 1.0, math.inf])
def test_a_weight_that_is_no_number_is_never_ranked_in_silence(exponent):
    with pytest.raises(ValueError, match="priority is NaN"):
        split(successive_order(torch.tensor([[1.0, math.nan, 0.0]]), exponent, seeded(17)), 1)


@pytest.mark.parametrize("name", [*WEIGHED, "freq_profile"])
@pytest.mark.parametrize("exponent", [-1.0, 101.0, math.nan, -math.inf])
def test_exponents_out_of_range_are_refused(name, exponent):
    with pytest.raises(ValueError, match=f"takes an exponent from 0 to 100, or inf .*, got {exponent}"):
        make_strategy(name, {"exponent": exponent})


@pytest.mark.parametrize("name", WEIGHED)
def test_other_options_out_of_range_are_refused(name):
    for floor in (-0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"floor of weights must be at least 0 and finite, got {floor}"):
            make_strategy(name, {"floor": floor})


def test_flux_reads_the_shape_of_a_patch_from_the_grid():
    guide, masks = torch.randn(4, 65, 160, generator=seeded(16)), []
    with pytest.raises(ValueError, match="patches of 160 values are not 8 x 8"):
        drawn(guide, statistic="flux")
    for patch in ((10, 16), (16, 10)):
        grid = dataclasses.replace(GRID, patch=patch)
        strategy = make_strategy("dwm", {"statistic": "flux", "exponent": math.inf})
        masks.append(draw(strategy, grid=grid, batch_size=4, mask_ratio=0.7, rng=seeded(1), guide=guide).masked)
    assert masks[0].shape == (4, 46) and not torch.equal(*masks)
