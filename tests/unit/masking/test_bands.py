"""Bands: the profile of white noise, profiles of data, and what is left of DWM without them."""

import dataclasses
import math

import pytest
import torch

from bounds import assert_sums_close, gamma
from melmask.logmel import LogMel, LogMelSpec
from melmask.masking import draw, make_strategy
from melmask.masking.bands import WHITE_NOISE, BandDispersion, FreqProfile, band_profile, per_patch
from melmask.masking.laws import inclusion_probabilities
from melmask.masking.statistics import STATISTICS, dispersion
from melmask.patches import patchify
from melmask.types import PatchGrid

pytestmark = pytest.mark.numerical

GRID = PatchGrid(5, 13, (4, 4))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def white_noise(batch_size: int, frames: int, seed: int) -> torch.Tensor:
    """Patches [b, n, 256] of white noise."""
    spec = LogMelSpec()
    wave = torch.randn(batch_size, frames * spec.hop_length - 1, generator=seeded(seed))
    return patchify(LogMel(spec)(wave), (16, 16))


def guide(batch_size: int, seed: int = 1) -> torch.Tensor:
    """Patches that vary more in low bands, and each in its own way."""
    rows = torch.tensor([5.0, 3.0, 2.0, 1.0, 0.5]).repeat_interleave(13)[:, None]
    uneven = torch.randn(batch_size, 65, 1, generator=seeded(seed)).exp()
    return rows * uneven * torch.randn(batch_size, 65, 16, generator=seeded(seed + 1))


def drawn(strategy, patches: torch.Tensor, seed: int = 1, mask_ratio: float = 0.7) -> torch.Tensor:
    return draw(
        strategy, grid=GRID, batch_size=len(patches), mask_ratio=mask_ratio, rng=seeded(seed), guide=patches
    ).masked  # fmt: skip


def share_by_row(masked: torch.Tensor, grid: PatchGrid) -> torch.Tensor:
    """How often each row's patches are masked [freq]."""
    return (masked // grid.time).flatten().bincount(minlength=grid.freq) / (len(masked) * grid.time)


def test_the_first_profile_is_that_of_white_noise():
    measured = band_profile(white_noise(16, 1600, seed=1), PatchGrid(5, 100))
    # The means of 1,600 patches a row scatter by 0.2 %; 1 % is far beyond.
    assert torch.allclose(measured, torch.tensor(WHITE_NOISE), rtol=0.01)
    assert BandDispersion().profile == FreqProfile().profile == WHITE_NOISE


def test_white_noise_is_masked_by_its_bands_unless_they_are_divided_out():
    patches, grid = white_noise(100, 608, seed=2), PatchGrid(5, 38)

    def shares(strategy: object) -> torch.Tensor:
        guide = None if strategy.needs.guide == "nothing" else patches
        mask = draw(strategy, grid=grid, batch_size=100, mask_ratio=0.7, rng=seeded(3), guide=guide)
        return share_by_row(mask.masked, grid)

    inclusion = inclusion_probabilities(torch.tensor(WHITE_NOISE).repeat_interleave(38), 133)[::38]
    assert inclusion[0] > 0.8 and inclusion[-1] < 0.55  # with no event present
    # Of 3,800 patches a row a share scatters by .008 at most; four times that has odds below 1e-3 in all.
    assert torch.allclose(shares(FreqProfile()), inclusion, atol=0.03)
    assert torch.allclose(shares(make_strategy("dwm")), inclusion, atol=0.03)
    for bands in ("running", "batch"):
        assert torch.allclose(shares(BandDispersion(bands=bands)), torch.tensor(0.7), atol=0.03)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_a_profile_is_the_mean_of_each_row_without_padding(statistic):
    patches = guide(7)
    valid = (torch.arange(13) < torch.tensor([13, 5, 1, 0, 13, 8, 2])[:, None]).repeat(1, 5)
    weight = dispersion(patches, statistic)
    profile = band_profile(patches, GRID, statistic, valid)
    for row in range(5):
        in_row = torch.zeros(65, dtype=torch.bool)
        in_row[row * 13 : (row + 1) * 13] = True
        assert float(profile[row]) == pytest.approx(float(weight[valid & in_row].mean()), rel=2 * gamma(7 * 13))
    loud = torch.where(valid[:, :, None], patches, 1e3 * patches)
    assert torch.equal(band_profile(loud, GRID, statistic, valid), profile)
    expected = weight.view(7, 5, 13).double().mean(dim=(0, 2))
    assert_sums_close(band_profile(patches, GRID, statistic), expected, expected, 7 * 13)
    assert (band_profile(patches, GRID, statistic, torch.zeros_like(valid)) == 0).all()


def test_a_profile_of_patches_that_are_not_square_knows_their_frames():
    patches = torch.randn(2, 65, 10, generator=seeded(1))
    grids = [dataclasses.replace(GRID, patch=patch) for patch in ((5, 2), (2, 5))]
    by_frames = [band_profile(patches, grid, "flux") for grid in grids]
    assert not torch.allclose(*by_frames)


@pytest.mark.parametrize(
    ("freq", "expected"),
    [(1, [4.0]), (3, [1.0, 4.0, 1.0]), (2, [1.75, 1.75]), (6, [1.0, 1.75, 3.25, 3.25, 1.75, 1.0])],
)
def test_profiles_of_any_length_are_laid_over_the_rows(freq, expected):
    laid = per_patch(torch.tensor([1.0, 4.0, 1.0]), PatchGrid(freq, 2))
    assert laid.tolist() == pytest.approx([value for value in expected for _ in range(2)])
    assert per_patch(torch.tensor([3.0]), PatchGrid(freq, 2)).tolist() == [3.0] * (2 * freq)


@pytest.mark.parametrize("strategy", [BandDispersion(exponent=2.0, floor=0.1), FreqProfile(exponent=2.0)])
def test_another_profile_gives_a_copy_that_differs_in_it_alone(strategy):
    learnt = strategy.with_profile(torch.tensor([2.0, 1.0, 0.5]))
    assert learnt == dataclasses.replace(strategy, profile=(2.0, 1.0, 0.5)) and type(learnt) is type(strategy)
    assert strategy.profile == WHITE_NOISE
    for broken in ([1.0, math.nan], [1.0, -1.0], [math.inf], [0.0, 0.0], []):
        with pytest.raises(ValueError, match="a profile needs finite weights of at least 0, some of them above"):
            strategy.with_profile(torch.tensor(broken))


def test_only_the_proportions_of_a_profile_count():
    patches, profile = guide(20), torch.tensor([5.0, 3.0, 2.0, 1.0, 0.5])
    for name in ("dwm_band", "freq_profile"):
        masks = [drawn(make_strategy(name).with_profile(scale * profile), patches) for scale in (1.0, 2.0**20)]
        assert torch.equal(*masks)


def test_a_profile_learnt_from_the_batch_masks_as_the_batch_does():
    patches = guide(20)
    learnt = BandDispersion().with_profile(band_profile(patches, GRID))
    assert torch.equal(drawn(learnt, patches), drawn(BandDispersion(bands="batch"), patches))
    assert not torch.equal(drawn(learnt, patches), drawn(make_strategy("dwm"), patches))


def test_the_batch_counts_through_its_band_means_alone():
    strategy, patches, others = BandDispersion(bands="batch"), guide(8), guide(8, seed=5)
    others[0] = patches[0]
    means = [band_profile(x[1:], GRID) for x in (patches, others)]
    # Neighbours of other content but the same band means leave a mask alone; other means do not.
    same = others.view(8, 5, 13, 16) * (means[0] / means[1])[:, None, None]
    same = same.reshape(8, 65, 16)
    same[0] = patches[0]
    assert torch.equal(drawn(strategy, patches)[0], drawn(strategy, same)[0])
    tilted = patches * torch.tensor([1.0, 4.0, 16.0, 64.0, 256.0]).repeat_interleave(13)[:, None]
    tilted[0] = patches[0]
    assert not torch.equal(drawn(strategy, patches)[0], drawn(strategy, tilted)[0])


def test_silent_bands_neither_break_a_mask_nor_swallow_the_first_sound_in_them():
    patches = guide(30)
    patches[:, 52:] = 0.0  # the highest band
    learnt = BandDispersion().with_profile(band_profile(patches, GRID))
    for strategy in (learnt, BandDispersion(bands="batch")):
        masked = drawn(strategy, patches, mask_ratio=0.5)
        assert (masked < 52).all()
        raised = drawn(dataclasses.replace(strategy, floor=1.0), patches, mask_ratio=0.5)
        assert 0 < (raised >= 52).sum() < (raised < 52).sum()
    patches[:, 60] = 1e-3 * torch.randn(16, generator=seeded(7))
    assert (drawn(learnt, patches, mask_ratio=0.5) == 60).any(dim=1).all()


def test_rows_of_a_frequency_profile_are_masked_whole_without_chance():
    masked = draw(
        FreqProfile(profile=(1.0, 2.0, 5.0, 4.0, 3.0), exponent=math.inf), grid=GRID, batch_size=50, mask_ratio=0.8,
        rng=seeded(1),
    ).masked  # fmt: skip
    assert (masked == torch.arange(13, 65)).all()
    partly = draw(
        FreqProfile(profile=(1.0, 2.0, 5.0, 4.0, 3.0), exponent=math.inf), grid=GRID, batch_size=50, mask_ratio=0.7,
        rng=seeded(1),
    ).masked  # fmt: skip
    assert ((partly >= 26).sum(dim=1) == 39).all() and ((partly >= 13).sum(dim=1) == 46).all()
    assert len(partly.unique(dim=0)) > 40


@pytest.mark.parametrize("name", ["dwm_band", "freq_profile"])
def test_profiles_without_weight_are_refused(name):
    for profile in ((), (0.0, 0.0), (1.0, -1.0), (1.0, math.inf), (math.nan,)):
        with pytest.raises(ValueError, match="a profile needs finite weights of at least 0"):
            make_strategy(name, {"profile": profile})
