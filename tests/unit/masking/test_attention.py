"""Attention-guided masks: which patches go first, and which of them are shown after all."""

import pytest
import torch
from scipy import stats

from melmask.masking import draw, make_strategy
from melmask.types import PatchGrid

GRID = PatchGrid(4, 10)
NUM_MASKED = 28  # of 40 at a mask ratio of 0.7


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def attention(batch_size: int) -> torch.Tensor:
    """Three heads that each look elsewhere."""
    return torch.randn(batch_size, 40, 3, generator=seeded(1)).mul(2).softmax(dim=1)


def masked_at(guide: torch.Tensor, **options: object) -> torch.Tensor:
    """True where a patch is masked [b, n]."""
    strategy = make_strategy("attention", options)
    mask = draw(strategy, grid=GRID, batch_size=len(guide), mask_ratio=0.7, rng=seeded(2), guide=guide)
    return torch.zeros(len(guide), 40, dtype=torch.bool).scatter_(1, mask.masked, True)


@pytest.mark.parametrize("mode", ["high", "low"])
def test_the_most_or_least_attended_patches_are_masked(mode):
    guide = attention(20)
    order = guide.mean(dim=2).argsort(dim=1, descending=mode == "high")
    expected = torch.zeros(20, 40, dtype=torch.bool).scatter_(1, order[:, :NUM_MASKED], True)
    assert torch.equal(masked_at(guide, mode=mode), expected)


def test_heads_are_averaged_and_one_column_is_enough():
    guide = attention(20)
    assert torch.equal(masked_at(guide), masked_at(guide.mean(dim=2, keepdim=True)))


@pytest.mark.parametrize(("shown", "num_shown"), [(0.0, 0), (0.25, 7), (0.3, 8), (1.0, 12)])
def test_a_hint_shows_some_of_the_most_attended_and_masks_the_next_in_rank(shown, num_shown):
    guide = attention(50)
    high, hint = masked_at(guide), masked_at(guide, mode="hint", shown=shown)
    order = guide.mean(dim=2).argsort(dim=1, descending=True)
    assert ((high & ~hint).sum(dim=1) == num_shown).all()
    # Never more than can be replaced: 12 patches are visible.
    next_in_rank = torch.zeros(50, 40, dtype=torch.bool).scatter_(
        1, order[:, NUM_MASKED : NUM_MASKED + num_shown], True
    )
    assert torch.equal(hint & ~high, next_in_rank)


def test_the_scale_of_the_attention_does_not_matter():
    guide = attention(50)
    for mode in ("high", "low", "hint"):
        assert torch.equal(masked_at(guide, mode=mode), masked_at(2.0**20 * guide, mode=mode))


def test_which_patches_a_hint_shows_is_uniform_over_their_rank():
    guide = attention(1).expand(4000, -1, -1)
    order = guide[0].mean(dim=1).argsort(descending=True)[:NUM_MASKED]
    shown = (~masked_at(guide, mode="hint", shown=0.25))[:, order].sum(dim=0)
    # 7 of 28 are shown in each mask; that the counts are of fixed sum lowers their variance, never raises it.
    z = (shown.double() - 1000) / (4000 * 0.25 * 0.75) ** 0.5
    assert 2 * stats.norm.sf(float(z.abs().max())) * NUM_MASKED > 1e-4


def test_equal_attention_is_masked_by_chance():
    assert len(masked_at(torch.full((30, 40, 3), 0.02)).unique(dim=0)) == 30


def test_settings_out_of_range_are_refused(as_for_users):
    for options, message in (
        ({"mode": "top"}, "modes .* got 'top'"),
        ({"shown": 1.5}, "got shown 1.5"),
        ({"encoder": "teacher"}, 'attention takes the encoder "online" or "ema", got \'teacher\''),
    ):
        with pytest.raises(ValueError, match=message):
            make_strategy("attention", options)
