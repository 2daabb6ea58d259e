"""Structured masks on whole grids: the structure is there and not inverted, and no position is favoured.

Every statistical test would fail by chance for one seed in 10,000 (FALSE_ALARM); the seeds are fixed, so none flickers.
"""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from melmask.masking import STRATEGIES, draw, make_strategy
from melmask.types import Mask, PatchGrid

FALSE_ALARM = 1e-4


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(name: str, grid: PatchGrid, batch_size: int, mask_ratio: float, seed: int = 1, **options: object) -> Mask:
    strategy = make_strategy(name, options)
    return draw(strategy, grid=grid, batch_size=batch_size, mask_ratio=mask_ratio, rng=seeded(seed))


def on_grid(mask: Mask, grid: PatchGrid) -> torch.Tensor:
    """True where a patch is masked [b, freq, time]."""
    masked = torch.zeros(len(mask.masked), grid.num_patches, dtype=torch.bool).scatter_(1, mask.masked, True)
    return masked.view(-1, grid.freq, grid.time)


def assert_alike(masked: torch.Tensor) -> None:
    """Hotelling's T² on the shares [b, k] that k positions have of each mask: all alike on average.

    Compared are neighbours, whose differences leave nothing to be known from the others.
    """
    difference = masked.double().diff(dim=1).numpy()
    num_masks, dim = difference.shape
    mean = difference.mean(axis=0)
    ratio = num_masks * mean @ np.linalg.solve(np.cov(difference.T).reshape(dim, dim), mean)
    assert stats.f.sf(ratio * (num_masks - dim) / (dim * (num_masks - 1)), dim, num_masks - dim) > FALSE_ALARM


FAIR = [
    ("time", {}), ("freq", {}), ("time_freq", {}), ("time_product", {}), ("time_product", {"balance": 0.2}),
    ("spans", {}), ("spans", {"length": 9}), ("spans", {"starts": "wav2vec2"}),
]  # fmt: skip


@pytest.mark.parametrize("time", [13, 38, 101])
@pytest.mark.parametrize(("name", "options"), FAIR)
def test_no_patch_is_favoured_whatever_the_length(name, options, time):
    # Sums over columns and over rows, as within a column the patches mostly share one fate.
    masked = on_grid(drawn(name, PatchGrid(5, time), 3_000, 0.7, **options), PatchGrid(5, time))
    assert_alike(masked.sum(dim=1))
    if masked.sum(dim=2).double().std(dim=0).min() > 0:
        assert_alike(masked.sum(dim=2))


@pytest.mark.parametrize("name", ["block", "multiblock"])
@pytest.mark.parametrize("time", [13, 38])
def test_on_a_ring_no_moment_is_favoured(name, time):
    grid = PatchGrid(5, time)
    assert_alike(on_grid(drawn(name, grid, 3_000, 0.7), grid).sum(dim=1))
    inside = on_grid(drawn(name, grid, 3_000, 0.7, ring=False), grid).sum(dim=1)
    with pytest.raises(AssertionError):  # as without the ring, which shows that the test can tell
        assert_alike(inside)


BLIND = [(name, {}) for name, kind in STRATEGIES.items() if kind().needs.guide == "nothing"] + [
    ("spans", {"starts": "wav2vec2"}), ("ibm", {"blocks": "cover"}), ("block", {"ring": False}),
    ("multiblock", {"ring": False}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), BLIND)
def test_the_smallest_grids_are_masked_at_every_count(name, options):
    strategy = make_strategy(name, options)
    for freq, time in ((1, 2), (2, 1), (1, 3), (3, 1), (2, 2), (2, 3), (3, 2), (1, 6)):
        for num_masked in range(1, freq * time):
            priority = strategy.priority(400, PatchGrid(freq, time), num_masked, seeded(1), None)
            assert priority.shape == (400, freq * time) and priority.isfinite().all()
            # Every patch stands on both sides of the cut: one that did so with 5 % is missed with 1e-9.
            masked = priority >= priority.sort(dim=1, descending=True).values[:, num_masked - 1 : num_masked]
            assert (masked.sum(dim=1) == num_masked).all()
            assert masked.any(dim=0).all() and not masked.all(dim=0).any()


@pytest.mark.parametrize("mask_ratio", [0.3, 0.7, 0.85])
@pytest.mark.parametrize(
    ("name", "options"), [("time", {}), ("spans", {}), ("spans", {"length": 6}), ("spans", {"starts": "wav2vec2"})]
)
def test_whole_columns_are_masked_but_for_one(name, options, mask_ratio):
    for grid in (PatchGrid(5, 38), PatchGrid(12, 101), PatchGrid(7, 4), PatchGrid(1, 50)):
        mask = drawn(name, grid, 200, mask_ratio, **options)
        in_column = on_grid(mask, grid).sum(dim=1).sort(dim=1, descending=True).values
        whole, rest = divmod(mask.masked.shape[1], grid.freq)
        expected = torch.tensor(([grid.freq] * whole + [rest] + [0] * grid.time)[: grid.time])
        assert (in_column == expected).all()


@pytest.mark.parametrize("mask_ratio", [0.3, 0.7, 0.85])
def test_whole_rows_are_masked_but_for_one(mask_ratio):
    for grid in (PatchGrid(5, 38), PatchGrid(12, 101), PatchGrid(7, 4), PatchGrid(1, 50)):
        mask = drawn("freq", grid, 200, mask_ratio)
        in_row = on_grid(mask, grid).sum(dim=2).sort(dim=1, descending=True).values
        whole, rest = divmod(mask.masked.shape[1], grid.time)
        expected = torch.tensor(([grid.time] * whole + [rest] + [0] * grid.freq)[: grid.freq])
        assert (in_row == expected).all()


@pytest.mark.parametrize("mask_ratio", [0.3, 0.5, 0.8])
def test_masked_spans_are_long_but_for_the_last(mask_ratio):
    touched = on_grid(drawn("spans", PatchGrid(5, 101), 300, mask_ratio, length=4), PatchGrid(5, 101)).any(dim=1)
    for sample in touched:
        begins = (sample & ~sample.roll(1)).nonzero()[:, 0]
        runs = [next(i for i in range(102) if not sample[(int(begin) + i) % 101]) for begin in begins]
        assert sum(run < 4 for run in runs) <= 1


def test_masked_patches_of_crossing_lines_lie_on_whole_lines_but_for_one():
    masked = on_grid(drawn("time_freq", PatchGrid(8, 30), 300, 0.5), PatchGrid(8, 30))
    on_lines = masked.all(dim=2)[:, :, None] | masked.all(dim=1)[:, None, :]
    assert on_lines.any(dim=(1, 2)).all()
    loose = masked & ~on_lines
    in_one_line = (loose.any(dim=2).sum(dim=1) <= 1) | (loose.any(dim=1).sum(dim=1) <= 1)
    assert in_one_line.all()


@pytest.mark.parametrize("mask_ratio", [0.3, 0.5, 0.7, 0.9])
def test_visible_patches_of_a_product_are_those_of_one_row_in_all_visible_rows(mask_ratio):
    grid = PatchGrid(8, 30)
    visible = ~on_grid(drawn("time_product", grid, 300, mask_ratio), grid)
    num_rows = visible.any(dim=2).sum(dim=1)
    assert (num_rows == round(8 * (1 - mask_ratio) ** 0.5)).all()
    in_column = visible.sum(dim=1)
    partial = (in_column > 0) & (in_column < num_rows[:, None])
    assert (partial.sum(dim=1) <= 1).all()


def test_masked_squares_are_whole_but_for_the_last():
    grid = PatchGrid(9, 30)
    masked = on_grid(drawn("cluster", grid, 100, 0.4, smallest=3, largest=3), grid)
    inside = torch.zeros_like(masked)
    for f, t in itertools.product(range(-2, 9), range(-2, 30)):
        square = (slice(max(f, 0), f + 3), slice(max(t, 0), t + 3))
        whole = masked[:, *square].flatten(1).all(dim=1)
        inside[whole, *square] = True
    for loose in masked & ~inside:
        places = loose.nonzero()
        if len(places):
            assert (places.amax(dim=0) - places.amin(dim=0) < 3).all()
    assert inside.sum() > 0.9 * masked.sum()


@pytest.mark.parametrize("mask_ratio", [0.1, 0.3, 0.6])
def test_one_target_is_a_rectangle_masked_but_for_its_last_step(mask_ratio):
    for grid in (PatchGrid(5, 38), PatchGrid(20, 6), PatchGrid(1, 50)):
        for sample in on_grid(drawn("multiblock", grid, 100, mask_ratio, targets=1, ring=False), grid):
            height, width = (int((places.amax() - places.amin()) + 1) for places in sample.nonzero().T)
            assert height * width - int(sample.sum()) < max(height, width)


def test_a_block_is_masked_and_the_rest_is_visible():
    # One block of a fifth holds all masked patches; were it visible, they would be spread around it over the grid.
    for grid in (PatchGrid(16, 40), PatchGrid(10, 10), PatchGrid(1, 50)):
        for sample in on_grid(drawn("block", grid, 100, 0.15, smallest=0.2, ring=False), grid):
            height, width = (int((places.amax() - places.amin()) + 1) for places in sample.nonzero().T)
            assert height * width <= 0.25 * grid.num_patches


def test_random_masks_have_none_of_these_structures():
    grid = PatchGrid(16, 40)
    masked = on_grid(drawn("random", grid, 300, 0.1), grid)
    assert masked.unfold(1, 2, 1).unfold(2, 2, 1).flatten(3).all(dim=3).sum() < 0.01 * masked.sum()
    assert not masked.all(dim=1).any() and not masked.all(dim=2).any()


def power_at(mask: Mask, grid: PatchGrid) -> tuple[float, float, float]:
    """Mean power of the masks at periods of over 8, 3.5 to 7, and under 2.5 patches; 1 is that of random masks."""
    masked = on_grid(mask, grid).double()
    power = torch.fft.fft2(masked - masked.mean()).abs().square().mean(dim=0) / masked.var() / grid.num_patches
    frequency = torch.hypot(torch.fft.fftfreq(grid.freq)[:, None], torch.fft.fftfreq(grid.time))
    bands = frequency.lt(1 / 8), frequency.gt(1 / 7) & frequency.lt(1 / 3.5), frequency.gt(1 / 2.5)
    low, middle, high = (float(power[band].mean()) for band in bands)
    return low, middle, high


@pytest.mark.parametrize("mask_ratio", [0.3, 0.5, 0.75])
def test_the_colours_are_in_the_masks(mask_ratio):
    grid = PatchGrid(32, 64)
    red, green, blue = (
        power_at(drawn("noise", grid, 100, mask_ratio, colour=colour), grid) for colour in ("red", "green", "blue")
    )
    for power in power_at(drawn("random", grid, 100, mask_ratio), grid):
        assert power == pytest.approx(1.0, abs=0.05)
    low, middle, high = red  # low-pass
    assert low > 5 and low > 5 * middle and high < 0.3
    low, middle, high = green  # band-pass
    assert middle > 1.8 and middle > 1.5 * low and middle > 3 * high
    low, middle, high = blue  # high-pass
    assert high > 1.15 and low < 0.6 and middle < 0.8


def test_neighbours_of_noise_are_alike_in_red_and_unlike_in_blue():
    grid = PatchGrid(5, 38)
    correlation = {}
    for colour in ("red", "green", "blue"):
        masked = on_grid(drawn("noise", grid, 500, 0.7, colour=colour), grid).double() - 0.7
        correlation[colour] = float((masked[:, :, 1:] * masked[:, :, :-1]).mean() / 0.21)
    assert correlation["red"] > 0.5 > correlation["green"] > 0.15 > -0.08 > correlation["blue"]
