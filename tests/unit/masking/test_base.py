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
    "rank",
    [
        lambda p: split(p, 2),
        lambda p: top(p, 2),
        lambda p: top(p, torch.tensor([0, 1])),
        lambda p: split(break_ties(p, seeded(0)), 2),
        lambda p: with_hints(p, 2, 0.5, seeded(0)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("row", [[0.0, torch.nan, 1.0], [torch.nan, 1.0, 1.0], [torch.nan] * 3, [-torch.nan, 0.0, 0.0]])
def test_nan_is_never_ranked(rank, dtype, row):
    with pytest.raises(ValueError, match="priority is NaN"):
        rank(torch.tensor([[2.0, 1.0, 0.0], row], dtype=dtype))


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


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.lists(st.sampled_from([-torch.inf, -1.0, -0.0, 0.0, 1e-40, 0.5, torch.inf]), min_size=9, max_size=9),
            st.integers(0, 9),
        ),
        min_size=1, max_size=5,
    ),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]),
)  # fmt: skip
def test_top_is_a_stable_sort_of_each_sample(rows, dtype):
    # Stored patch by patch, so that a sample's priorities do not lie beside each other in memory.
    priority = torch.tensor([values for values, _ in rows], dtype=dtype).T.contiguous().T
    counts = torch.tensor([count for _, count in rows])
    chosen = top(priority, counts)
    for values, count, row in zip(priority.tolist(), counts.tolist(), chosen, strict=True):
        first = sorted(range(9), key=lambda i: -values[i])[:count]
        assert row.nonzero()[:, 0].tolist() == sorted(first)
    assert torch.equal(top(priority, counts[0].item())[0], chosen[0])


def test_split_of_equal_priorities_goes_by_position():
    mask = split(torch.tensor([[1.0, 1.0, 0.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0, 2.0], [0.0, 1.0, 2.0, 3.0, 3.0]]), 2)
    assert mask.masked.tolist() == [[0, 1], [0, 1], [3, 4]]
    assert mask.visible.tolist() == [[2, 3, 4], [2, 3, 4], [0, 1, 2]]


def test_a_ranking_that_is_part_of_a_graph_can_be_cut():
    priority = torch.rand(2, 9, generator=seeded(1), requires_grad=True)
    assert torch.equal(split(priority, 4).masked, split(priority.detach(), 4).masked)


def test_ties_are_broken_by_chance_and_nothing_else_moves():
    score = torch.tensor([2.0, 1.0, 2.0, 0.0, 2.0, 1.0]).expand(12_000, -1)
    order = break_ties(score, seeded(1)).argsort(dim=1)
    assert (score.gather(1, order) == torch.tensor([0.0, 1.0, 1.0, 2.0, 2.0, 2.0])).all()
    # The three highest may stand in any of their six orders: chi-square, false alarm 1e-4 a seed.
    orders = (order[:, 3:] * torch.tensor([100, 10, 1])).sum(dim=1)
    assert stats.chisquare(orders.unique(return_counts=True)[1].numpy(), [2000] * 6).pvalue > 1e-4


def test_neighbouring_scores_keep_their_order_whatever_chance_adds():
    value = torch.tensor([-torch.inf, -1e30, -1.0, -1e-45, 0.0, 1e-45, 1e-30, 1.0, 3e38])
    ascending = torch.stack([value, value.nextafter(torch.tensor(torch.inf))], dim=1).flatten().unique()
    ranked = break_ties(ascending.expand(2000, -1), seeded(1))
    # Infinity is the largest finite score's tie, and both come here.
    assert (ranked[:, 2:].diff(dim=1) > 0).all() and (ranked[:, 2:] > ranked[:, 1:2]).all()
    assert 0 < (ranked[:, 1] > ranked[:, 0]).sum() < 2000


def test_zeros_of_both_signs_are_ties():
    ranked = break_ties(torch.tensor([0.0, -0.0]).expand(2000, -1), seeded(1))
    # A binomial of 2000 fair draws strays 4 deviations with a chance below 1e-4.
    assert abs(int((ranked[:, 0] > ranked[:, 1]).sum()) - 1000) < 4 * 500**0.5


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
