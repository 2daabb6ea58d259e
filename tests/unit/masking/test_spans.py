"""Spans: what a ring reaches, how many starts there are, and lengths that fill it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from melmask.masking import draw
from melmask.masking.spans import Spans, spread_on_ring
from melmask.types import PatchGrid


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=60, deadline=None)
@given(order=st.lists(st.integers(0, 99), min_size=1, max_size=9), length=st.integers(1, 9), slope=st.integers(0, 2))
def test_the_spread_is_the_smallest_over_all_offsets(order, length, slope):
    expected = [min(order[(t - o) % len(order)] + slope * o for o in range(length)) for t in range(len(order))]
    assert spread_on_ring(torch.tensor([order]), length, slope).tolist() == [expected]


@pytest.mark.parametrize(
    ("time", "mask_ratio", "length", "expected"), [(38, 0.7, 5, 8), (13, 0.7, 3, 4), (50, 0.5, 1, 25)]
)
def test_wav2vec2_counts_its_starts_by_the_ratio(time, mask_ratio, length, expected):
    grid = PatchGrid(1, time)
    assert Spans(length=length).num_starts(grid, round(time * mask_ratio)) == expected


def test_the_starts_of_wav2vec2_cover_the_ratio_on_average():
    for mask_ratio in (0.3, 0.5, 0.7):
        for length in (2, 5, 10):
            time = 500
            num_starts = Spans(length=length).num_starts(PatchGrid(1, time), round(time * mask_ratio))
            missed = 1.0  # the chance that none of the starts lies in the window that reaches a column
            for i in range(num_starts):
                missed *= (time - length - i) / (time - i)
            assert 1 - missed == pytest.approx(mask_ratio, abs=0.01)


@pytest.mark.parametrize("length", [50, 70])
def test_a_span_as_long_as_the_input_is_one_arc(length):
    grid = PatchGrid(1, 50)
    mask = draw(Spans(length=length), grid=grid, batch_size=400, mask_ratio=0.7, rng=seeded(1))
    masked = torch.zeros(400, 50).scatter_(1, mask.masked, 1.0)
    begins = masked * (1 - masked.roll(1, dims=1))
    assert (begins.sum(dim=1) == 1).all()
    assert begins.any(dim=0).sum() == 50  # anywhere: one place in 50 is missed 400 times with a chance of 0.02 in all


def test_ends_are_masked_as_often_as_the_middle():
    # Spans trimmed at the borders mask the first column far less often. Binomial bounds at 5 standard deviations.
    mask = draw(Spans(length=8), grid=PatchGrid(1, 38), batch_size=4000, mask_ratio=0.5, rng=seeded(2))
    often = torch.zeros(4000, 38).scatter_(1, mask.masked, 1.0).mean(dim=0)
    assert (often - 0.5).abs().max() < 5 * (0.25 / 4000) ** 0.5


def test_settings_out_of_range_are_refused(as_for_users):
    with pytest.raises(ValueError, match="a length of at least 1 column, got 0"):
        Spans(length=0)
    with pytest.raises(ValueError, match='starts "cover" or "wav2vec2", got \'wav2vec\''):
        Spans(starts="wav2vec")
