"""The parts every strategy shares: counts, the one cut, ties, hints' counts and validity's shares."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from melmask.masking.base import break_ties, num_valid_masked_of, num_visible_of, split, top, with_hints, within_valid


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_no_visible_patch_is_lost_to_rounding():
    for percent in range(1, 100):
        for num_patches in range(2, 400):
            expected = math.floor(num_patches * (1 - Fraction(percent, 100)))
            if 0 < expected < num_patches:
                assert num_visible_of(num_patches, percent / 100) == expected


def test_counts_that_empty_a_side_are_refused():
    with pytest.raises(ValueError, match="leaves 0 visible: use another ratio or a longer crop"):
        num_visible_of(4, 0.8)
    with pytest.raises(ValueError, match="between 0 and 1"):
        num_visible_of(4, 1.0)


def test_split_masks_the_highest_and_sorts_both_sides():
    mask = split(torch.tensor([[0.1, 5.0, -torch.inf, 3.0], [torch.inf, 0.0, 1.0, 2.0]]), 2)
    assert mask.masked.tolist() == [[1, 3], [0, 3]]
    assert mask.visible.tolist() == [[0, 2], [1, 2]]


@pytest.mark.parametrize(
    "rank", [lambda p: split(p, 2), lambda p: top(p, 2), lambda p: with_hints(p, 2, 0.5, seeded(0))]
)
def test_nan_is_never_ranked(rank):
    with pytest.raises(ValueError, match="priority is NaN"):
        rank(torch.tensor([[0.0, torch.nan, 1.0]]))


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.lists(st.sampled_from([-torch.inf, 0.0, 0.5, 1.0, 7.0]), min_size=9, max_size=9), min_size=1),
    count=st.integers(0, 9),
)
def test_top_takes_as_many_as_asked_and_none_lower_than_one_left(rows, count):
    priority = torch.tensor(rows)
    for asked in (count, torch.full((len(rows),), count)):
        chosen = top(priority, asked)
        assert (chosen.sum(dim=1) == count).all()
        lowest_chosen = priority.masked_fill(~chosen, torch.inf).amin(dim=1)
        highest_left = priority.masked_fill(chosen, -torch.inf).amax(dim=1)
        assert (lowest_chosen >= highest_left).all()


def test_top_takes_a_count_for_each_sample():
    chosen = top(torch.arange(5.0).expand(3, -1), torch.tensor([0, 2, 5]))
    assert chosen.tolist() == [[False] * 5, [False, False, False, True, True], [True] * 5]


def test_ties_are_broken_by_chance_and_nothing_else_moves():
    score = torch.tensor([2.0, 1.0, 2.0, 0.0, 2.0, 1.0]).expand(12_000, -1)
    rank = break_ties(score, seeded(1))
    assert (rank.sort(dim=1).values == torch.arange(6.0)).all()
    assert (rank[:, 3] == 0).all() and (rank[:, [1, 5]].sum(dim=1) == 3).all()
    # The three highest may stand in any of their six orders: chi-square, false alarm 1e-4 a seed.
    orders = (rank[:, [0, 2, 4]].argsort(dim=1) * torch.tensor([9, 3, 1])).sum(dim=1)
    assert stats.chisquare(orders.unique(return_counts=True)[1].numpy(), [2000] * 6).pvalue > 1e-4


def test_sound_gets_its_share_of_both_roles():
    num_valid = torch.tensor([190, 95, 10, 4, 3, 1, 0])
    valid = torch.arange(190) < num_valid[:, None]
    assert num_valid_masked_of(valid, 133).tolist() == [k - k * 57 // 190 for k in num_valid.tolist()]


def test_sound_is_masked_by_its_ranking_and_padding_by_chance():
    valid = torch.tensor([[True] * 6 + [False] * 4]).expand(6000, -1)
    priority = torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0, 0.0, 9.0, 9.0, 9.0, 9.0]).expand(6000, -1)
    masked = within_valid(priority, valid, 5, seeded(1)) > 0.5
    assert masked[:, :6].int().unique(dim=0).tolist() == [[1, 0, 1, 0, 1, 0]]
    assert (masked[:, 6:].sum(dim=1) == 2).all()
    # Two of four paddings, all six pairs alike: chi-square, false alarm 1e-4 a seed.
    pairs = masked[:, 6:].int().unique(dim=0, return_counts=True)[1]
    assert stats.chisquare(pairs.numpy(), [1000] * 6).pvalue > 1e-4
