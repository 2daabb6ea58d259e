"""Hints: how much of an informed choice survives, sample by sample and on average.

Every statistical test would fail by chance for one seed in 10,000; the seeds are fixed, so none flickers.
"""

import pytest
import torch
from scipy import stats

from melmask.masking import draw, make_strategy, with_hints
from melmask.masking.base import num_hints_of, top
from melmask.masking.laws import guidance, inclusion_probabilities
from melmask.types import Mask, PatchGrid

FALSE_ALARM = 1e-4
GRID = PatchGrid(5, 38, (4, 4))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def masked_at(mask: Mask) -> torch.Tensor:
    """One where a patch is masked, else zero [b, n]."""
    return torch.zeros(len(mask.masked), mask.num_patches).scatter_(1, mask.masked, 1.0)


def patches_of_dispersion(weights: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Patches whose mean absolute deviations are the weights."""
    return (weights[:, None] * torch.tensor([1.0, -1.0])).expand(batch_size, -1, -1)


@pytest.mark.numerical
@pytest.mark.parametrize("hint_ratio", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("mask_ratio", [0.3, 0.7])
def test_the_slope_of_dwm_under_hints_is_lambda(mask_ratio, hint_ratio):
    batch_size, weights = 8000, torch.randn(190, generator=seeded(1)).exp()
    mask = draw(
        "dwm", grid=GRID, batch_size=batch_size, mask_ratio=mask_ratio, rng=seeded(2), hint_ratio=hint_ratio,
        guide=patches_of_dispersion(weights, batch_size),
    )  # fmt: skip
    num_masked = mask.masked.shape[1]
    preference = inclusion_probabilities(weights, num_masked) - num_masked / 190
    # One slope a sample, so that their spread gives the error of the mean whatever the patches have to do together.
    slopes = (masked_at(mask) - num_masked / 190) @ preference / preference.square().sum()
    off = (slopes.mean() - guidance(190, num_masked, hint_ratio)) / (slopes.std() / batch_size**0.5)
    assert 2 * stats.norm.sf(abs(float(off))) > FALSE_ALARM
    # And the paper's "half the hints" is far from half the guidance, which the test can tell.
    assert abs(float(slopes.mean()) - (1 - hint_ratio)) > 10 * float(slopes.std()) / batch_size**0.5


def test_all_hints_make_any_mask_uniform_in_singles_and_pairs(strategy, guide_for):
    batch_size, grid = 4000, PatchGrid(5, 13, (4, 4))
    guide = guide_for(strategy, 1, grid, seed=3)
    if guide is not None:
        guide = (guide * 10 ** torch.linspace(-3, 3, 65)[:, None]).expand(batch_size, -1, -1)
    mask = draw(
        strategy, grid=grid, batch_size=batch_size, mask_ratio=0.7, rng=seeded(4), hint_ratio=1.0, guide=guide
    )  # fmt: skip
    masked = masked_at(mask)
    together = (masked.T @ masked).double()
    for count, probability in (
        (together.diagonal(), 46 / 65),
        (together[tuple(torch.triu_indices(65, 65, offset=1))], 46 * 45 / (65 * 64)),
    ):
        # Bonferroni over all patches, or all pairs of patches.
        z = (count - batch_size * probability) / (batch_size * probability * (1 - probability)) ** 0.5
        assert 2 * stats.norm.sf(float(z.abs().max())) * len(z) > FALSE_ALARM


def test_at_least_the_unhinted_share_of_the_choice_stays(strategy, guide_for):
    guide = guide_for(strategy, 100, GRID)
    chosen, *hinted = (
        masked_at(draw(strategy, grid=GRID, batch_size=100, mask_ratio=0.7, rng=seeded(5), guide=guide, hint_ratio=h))
        for h in (0.0, 0.1, 0.37, 0.5, 0.9)
    )
    for hint_ratio, masked in zip((0.1, 0.37, 0.5, 0.9), hinted, strict=True):
        stayed = (chosen * masked).sum(dim=1)
        num_hints = num_hints_of(133, hint_ratio)
        assert (stayed >= 133 - num_hints).all(), hint_ratio
        # The given-back patches come from everywhere outside S, the rest of the choice included: hypergeometric.
        law = stats.hypergeom(57 + num_hints, num_hints, num_hints)
        off = (float(stayed.mean()) - (133 - num_hints) - law.mean()) / (law.std() / 100**0.5)
        assert 2 * stats.norm.sf(abs(off)) > FALSE_ALARM, hint_ratio


@pytest.mark.parametrize("padded", [False, True])
def test_hints_of_padded_samples_keep_to_the_sound(strategy, padded, guide_for):
    num_valid_frames = torch.tensor([19, 38, 7] if padded else [38, 38, 38])
    valid = (torch.arange(38) < num_valid_frames[:, None]).repeat(1, 5)
    guide = guide_for(strategy, 3, GRID)
    hint_ratios = (0.0, 0.1, 0.5, 1.0)
    drawn = [
        masked_at(
            draw(
                strategy, grid=GRID, batch_size=3, mask_ratio=0.7, rng=seeded(5), guide=guide, hint_ratio=h, valid=valid
            )
        )
        for h in (0.0, *hint_ratios)
    ]
    chosen = drawn[0]
    for hint_ratio, hinted in zip(hint_ratios, drawn[1:], strict=True):
        for sample in range(3):
            num_masked = int(chosen[sample, valid[sample]].sum())
            assert int(hinted[sample, valid[sample]].sum()) == num_masked
            stayed = int((chosen[sample] * hinted[sample])[valid[sample]].sum())
            assert stayed >= num_masked - num_hints_of(num_masked, hint_ratio)
            if hint_ratio == 0:
                assert stayed == num_masked


@pytest.mark.parametrize(("num_masked", "hint_ratio"), [(300, 0.21), (750, 0.036), (900, 0.26), (133, 0.5), (10, 0.7)])
def test_a_count_for_each_sample_gives_as_many_hints_as_one_for_all(num_masked, hint_ratio):
    # In float32, 300 * 0.21 is just below 63, and a padded neighbour would change a sample's hints.
    priority = torch.rand(4, num_masked * 4 // 3, generator=seeded(1))
    one = with_hints(priority, num_masked, hint_ratio, seeded(2))
    each = with_hints(priority, torch.full((4,), num_masked), hint_ratio, seeded(2))
    assert torch.equal(one, each)
    stays = (one >= 2).sum(dim=1)
    assert (stays == num_masked - num_hints_of(num_masked, hint_ratio)).all()
    assert top(priority, num_masked)[one >= 2].all()


@pytest.mark.parametrize(
    ("num_masked", "hint_ratio", "num_hints"), [(133, 0.5, 66), (10, 0.3, 3), (100, 0.29, 29), (7, 1.0, 7), (9, 0.0, 0)]
)
def test_hints_are_counted_without_losing_one_to_rounding(num_masked, hint_ratio, num_hints):
    assert num_hints_of(num_masked, hint_ratio) == num_hints


def test_no_hints_leave_the_ranking_and_the_generator_alone():
    priority, rng = torch.rand(2, 9, generator=seeded(1)), seeded(2)
    before = rng.get_state()
    assert torch.equal(with_hints(priority, 5, 0.0, rng), priority)
    assert torch.equal(rng.get_state(), before)


def test_hints_are_taken_by_masks_that_look_at_nothing_too():
    # Squares stay visible without hints; half of the masked patches given back to chance break them up.
    squares, visible = make_strategy("ibm", {"blocks": "cover"}), []
    for hint_ratio in (0.0, 0.5):
        mask = draw(squares, grid=GRID, batch_size=300, mask_ratio=0.7, rng=seeded(5), hint_ratio=hint_ratio)
        on_grid = (1 - masked_at(mask)).view(-1, GRID.freq, GRID.time)
        visible.append(float((on_grid[:, :, 1:] * on_grid[:, :, :-1]).sum() / on_grid[:, :, 1:].sum()))
    assert visible[0] > 0.7 > 0.5 > visible[1] > 0.3
