"""The laws of masks by weight beyond plain DWM: exponents, floors, inverses, bands and blocks, by enumeration.

Every statistical test would fail by chance for one seed in 10,000 (conftest.py's FALSE_ALARM); the seeds are fixed, so
none flickers.
"""

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
import torch

from melmask.masking import MaskingStrategy, draw, make_strategy
from melmask.masking.bands import BandDispersion, FreqProfile
from melmask.masking.laws import inclusion_probabilities
from melmask.types import Mask, PatchGrid

pytestmark = pytest.mark.numerical

BATCH = 60_000
ROW, SQUARE = PatchGrid(1, 7), PatchGrid(2, 4)
UNEVEN = [1.0, 2.0, 0.5, 5.0, 1.0, 4.0, 1.5]
HALF_SILENT = [0.0, 2.0, 0.0, 5.0, 1.0, 0.0, 3.0]


def patches_of_dispersion(weights: list[float], batch_size: int = BATCH) -> torch.Tensor:
    """Patches whose mean absolute deviations are the weights, exactly, around means that differ."""
    values = torch.tensor(weights)[:, None] * torch.tensor([1.0, -1.0]) + torch.arange(len(weights))[:, None] - 2.0
    return values.expand(batch_size, -1, -1)


def drawn(strategy: MaskingStrategy, weights: list[float], grid: PatchGrid, mask_ratio: float, seed: int) -> Mask:
    guide = None if strategy.needs.guide == "nothing" else patches_of_dispersion(weights)
    rng = torch.Generator().manual_seed(seed)
    return draw(strategy, grid=grid, batch_size=BATCH, mask_ratio=mask_ratio, rng=rng, guide=guide)


@pytest.mark.parametrize("exponent", [0.25, 2.0, 5.0])
@pytest.mark.parametrize("weights", [UNEVEN, HALF_SILENT], ids=["uneven", "half silent"])
@pytest.mark.parametrize("mask_ratio", [0.3, 0.6])
def test_an_exponent_raises_the_weights(exponent, weights, mask_ratio, successive_sampling_law, assert_sets_follow):
    mask = drawn(make_strategy("dwm", {"exponent": exponent}), weights, ROW, mask_ratio, seed=1)
    law = successive_sampling_law([w**exponent for w in weights], mask.masked.shape[1])
    assert_sets_follow(mask, law)


@pytest.mark.parametrize("name", ["dwm", "dwm_inverse", "dwm_band", "freq_profile"])
@pytest.mark.parametrize("weights", [UNEVEN, HALF_SILENT], ids=["uneven", "half silent"])
def test_the_exponent_0_is_random_masking(name, weights, assert_sets_follow):
    mask = drawn(make_strategy(name, {"exponent": 0.0}), weights, ROW, 0.5, seed=2)
    assert_sets_follow(mask, {frozenset(s): 1 / math.comb(7, 4) for s in itertools.combinations(range(7), 4)})


@pytest.mark.parametrize("name", ["dwm", "dwm_inverse", "dwm_band", "dwm_ibm"])
def test_an_infinite_exponent_leaves_nothing_to_chance_but_ties(name, guide_for):
    grid = PatchGrid(5, 13)
    guide = guide_for(make_strategy(name), 50, grid)
    masks = [
        draw(make_strategy(name, options), grid=grid, batch_size=50, mask_ratio=0.7, guide=guide, rng=rng).masked
        for options in ({"exponent": math.inf}, {"deterministic": True})
        for rng in [torch.Generator().manual_seed(3)]
    ]
    assert torch.equal(*masks)
    if name != "dwm_ibm":  # where the last square gives up random cells
        other = draw(
            make_strategy(name, {"exponent": math.inf}), grid=grid, batch_size=50, mask_ratio=0.7, guide=guide,
            rng=torch.Generator().manual_seed(4),
        )  # fmt: skip
        assert torch.equal(masks[0], other.masked)


@pytest.mark.parametrize("floor", [0.2, 3.0])
def test_a_floor_gives_silence_a_share_of_the_mean_weight(floor, successive_sampling_law, assert_sets_follow):
    for weights, mean in ((UNEVEN, sum(UNEVEN) / 7), (HALF_SILENT, sum(HALF_SILENT) / 4)):
        mask = drawn(make_strategy("dwm", {"floor": floor}), weights, ROW, 0.6, seed=5)
        raised = [w + floor * mean for w in weights]
        assert_sets_follow(mask, successive_sampling_law(raised, mask.masked.shape[1]))


@pytest.mark.parametrize("mask_ratio", [0.3, 0.6, 0.8])
def test_inverse_dwm_draws_by_inverse_weights(mask_ratio, successive_sampling_law, assert_sets_follow):
    mask = drawn(make_strategy("dwm_inverse"), UNEVEN, ROW, mask_ratio, seed=6)
    law = successive_sampling_law([1 / w for w in UNEVEN], mask.masked.shape[1])
    assert_sets_follow(mask, law)


@pytest.mark.parametrize("mask_ratio", [0.2, 0.6])
def test_inverse_dwm_masks_silence_first_and_uniformly(mask_ratio, successive_sampling_law, assert_sets_follow):
    mask = drawn(make_strategy("dwm_inverse"), HALF_SILENT, ROW, mask_ratio, seed=7)
    num_masked = mask.masked.shape[1]
    silent = [i for i, w in enumerate(HALF_SILENT) if w == 0]
    calm_first = [1e12 if w == 0 else 1 / w for w in HALF_SILENT]  # 1e-11 off the law, which no test of sets can see
    law = {
        masked: p
        for masked, p in successive_sampling_law(calm_first, num_masked).items()
        if len(masked & set(silent)) == min(num_masked, len(silent))
    }
    total = sum(law.values())
    assert total == pytest.approx(1.0, abs=1e-10)
    assert_sets_follow(mask, {masked: p / total for masked, p in law.items()})


@pytest.mark.parametrize("mask_ratio", [0.4, 0.6])
def test_a_frequency_profile_draws_by_its_rows(mask_ratio, successive_sampling_law, assert_sets_follow):
    for profile in ((3.0, 1.0), (2.0, 0.0)):
        mask = drawn(FreqProfile(profile=profile), [], SQUARE, mask_ratio, seed=8)
        weights = [profile[0]] * 4 + [profile[1]] * 4
        assert_sets_follow(mask, successive_sampling_law(weights, mask.masked.shape[1]))


@pytest.mark.parametrize("bands", ["running", "batch"])
def test_per_band_dwm_draws_by_weights_over_their_rows_mean(bands, successive_sampling_law, assert_sets_follow):
    weights = [8.0, 2.0, 4.0, 6.0, 0.5, 0.25, 1.0, 0.0]
    means = [5.0, 0.4375]
    # All samples are alike, so that the batch's means are the sample's.
    profile = {"running": (10.0, 0.875), "batch": (1.0, 7.0)}[bands]
    mask = drawn(BandDispersion(bands=bands, profile=profile), weights, SQUARE, 0.6, seed=9)
    law = successive_sampling_law([w / means[i // 4] for i, w in enumerate(weights)], mask.masked.shape[1])
    assert_sets_follow(mask, law)


def squares_law(weights: list[float], grid: PatchGrid, side: int, num_masked: int) -> dict[frozenset[int], float]:
    """Every order of centres by inverse weight: squares are visible until the last, which gives up random cells."""
    num_patches, reach = grid.num_patches, side // 2
    num_visible = num_patches - num_masked
    freq, time = np.divmod(np.arange(num_patches), grid.time)
    near = (np.abs(freq[:, None] - freq) <= reach) & (np.abs(time[:, None] - time) <= reach)
    squares = [frozenset(np.flatnonzero(row).tolist()) for row in near]
    law: dict[frozenset[int], float] = defaultdict(float)

    def place(visible: frozenset[int], centres: tuple[int, ...], probability: float) -> None:
        left = [i for i in range(num_patches) if i not in centres]
        total = sum(1 / weights[i] for i in left)
        for i in left:
            chance, new = probability / weights[i] / total, squares[i] - visible
            if len(visible) + len(new) < num_visible:
                place(visible | new, (*centres, i), chance)
                continue
            parts = list(itertools.combinations(sorted(new), num_visible - len(visible)))
            for part in parts:
                law[frozenset(range(num_patches)) - visible - frozenset(part)] += chance / len(parts)

    place(frozenset(), (), 1.0)
    return dict(law)


@pytest.mark.parametrize(
    ("grid", "mask_ratio"), [(PatchGrid(1, 7), 0.4), (PatchGrid(2, 4), 0.2), (PatchGrid(2, 3), 0.7)], ids=str
)
@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_squares_stay_visible_around_calm_centres(grid, mask_ratio, exponent, assert_sets_follow):
    weights = [*UNEVEN, 3.0][: grid.num_patches]
    mask = drawn(make_strategy("dwm_ibm", {"side": 3, "exponent": exponent}), weights, grid, mask_ratio, seed=10)
    assert_sets_follow(mask, squares_law([w**exponent for w in weights], grid, 3, mask.masked.shape[1]))


def test_without_an_exponent_the_squares_are_those_of_ibm(assert_sets_follow):
    weights, grid = [*UNEVEN, 3.0], PatchGrid(2, 4)
    mask = drawn(make_strategy("ibm", {"side": 3, "blocks": "cover"}), weights, grid, 0.4, seed=11)
    assert_sets_follow(mask, squares_law([1.0] * 8, grid, 3, mask.masked.shape[1]))


def test_a_frequency_profiles_marginals_are_the_exact_inclusion_probabilities_on_a_full_grid(assert_marginals_follow):
    mask = draw(
        "freq_profile", grid=PatchGrid(5, 38), batch_size=20_000, mask_ratio=0.7, rng=torch.Generator().manual_seed(12)
    )
    weights = torch.tensor(FreqProfile().profile).repeat_interleave(38)
    assert_marginals_follow(mask, inclusion_probabilities(weights, 133).numpy())
