"""Inverse blocks: how many squares, that they are the *visible* part, and what covering means."""

import pytest
import torch

from melmask.masking import draw
from melmask.masking.blocks import InverseBlock
from melmask.types import Mask, PatchGrid


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def visible_map(mask: Mask, grid: PatchGrid) -> torch.Tensor:
    """One where a patch is visible [b, freq, time]."""
    return (
        torch.zeros(len(mask.visible), grid.num_patches).scatter_(1, mask.visible, 1.0).view(-1, grid.freq, grid.time)
    )


def in_whole_squares(visible: torch.Tensor, side: int) -> torch.Tensor:
    """The visible patches that lie in some square (odd side, clipped at the borders) which is visible throughout."""
    reach = side // 2
    freq, time = visible.shape[1:]
    inside = torch.zeros_like(visible)
    for f in range(freq):
        for t in range(time):
            rows, columns = slice(max(f - reach, 0), f + reach + 1), slice(max(t - reach, 0), t + reach + 1)
            whole = visible[:, rows, columns].flatten(1).all(dim=1)
            inside[whole, rows, columns] = 1.0
    return inside


@pytest.mark.parametrize(
    ("freq", "time", "mask_ratio", "side", "adjust", "expected"),
    [
        (5, 38, 0.7, 5, 0.07, 2),
        (5, 13, 0.75, 5, 0.07, 0),
        (8, 64, 0.8, 5, 0.07, 5),
        (10, 10, 0.9, 2, 0.1, 5),  # exactly five: none may be lost to rounding
        (10, 10, 0.99, 1, 0.29, 30),  # 100 * 0.29 is just below 29
        (2, 5, 0.8, 1, 0.0, 2),
        (3, 6, 0.8, 1, 0.0, 3),
    ],
)
def test_the_paper_draws_this_many_centres(freq, time, mask_ratio, side, adjust, expected):
    grid = PatchGrid(freq, time)
    num_masked = draw("random", grid=grid, batch_size=1, mask_ratio=mask_ratio, rng=seeded(0)).masked.shape[1]
    strategy = InverseBlock(side=side, adjust=adjust)
    assert strategy.num_centres(grid, num_masked) == expected
    assert len(strategy._centres(3, grid, num_masked, seeded(1)).nonzero()) <= 3 * expected


@pytest.mark.parametrize("blocks", ["paper", "cover"])
def test_squares_are_visible_and_not_masked(blocks):
    grid = PatchGrid(12, 40)
    mask = draw(InverseBlock(blocks=blocks), grid=grid, batch_size=50, mask_ratio=0.8, rng=seeded(1))
    visible = visible_map(mask, grid)
    # Beside a visible patch, patches are visible far more often than the 20 % of chance.
    beside = (visible[:, :, 1:] * visible[:, :, :-1]).sum() / visible[:, :, 1:].sum()
    assert beside > 0.6
    if blocks == "cover":  # all of the 96 visible patches but for a last, partial square lie in whole squares
        assert (in_whole_squares(visible, 5).flatten(1).sum(dim=1) >= 96 - 24).all()


def test_two_squares_of_the_paper_stay_whole():
    grid = PatchGrid(5, 38)
    visible = visible_map(draw("ibm", grid=grid, batch_size=300, mask_ratio=0.7, rng=seeded(2)), grid)
    in_squares = in_whole_squares(visible, 5).flatten(1).sum(dim=1)
    assert (in_squares >= 9).all()  # the smallest clipped square, in a corner
    assert (in_squares > 25).float().mean() > 0.9  # two centres nearly always cover more than one square


def test_covering_squares_hold_every_visible_patch_but_for_the_last_square():
    grid = PatchGrid(5, 38)
    mask = draw(InverseBlock(blocks="cover"), grid=grid, batch_size=300, mask_ratio=0.7, rng=seeded(3))
    visible = visible_map(mask, grid)
    loose = (visible - in_whole_squares(visible, 5)).nonzero()
    for sample in range(300):
        places = loose[loose[:, 0] == sample, 1:]
        if len(places):
            extent = places.amax(dim=0) - places.amin(dim=0)
            assert (extent < 5).all(), f"sample {sample} has loose visible patches {places.tolist()}"


def test_which_patches_the_last_square_gives_up_is_chance():
    # On one row, with one square of 5 and 4 visible, the loss falls on each place about alike; a cut by position would
    # always take the first. Two-sided binomial bounds at 5 standard deviations, false alarm below 1e-5.
    grid = PatchGrid(1, 40)
    visible = visible_map(
        draw(InverseBlock(blocks="cover"), grid=grid, batch_size=4000, mask_ratio=0.9, rng=seeded(4)), grid
    )[:, 0]
    inner = visible[(visible[:, :2].sum(dim=1) == 0) & (visible[:, -2:].sum(dim=1) == 0)]
    first, last = inner.argmax(dim=1), 39 - inner.flip(1).argmax(dim=1)
    lost_inside = (last - first == 4).float().mean()
    assert abs(float(lost_inside) - 3 / 5) < 5 * (0.24 / len(inner)) ** 0.5


@pytest.mark.parametrize("side", [1, 2, 4, 7, 50])
@pytest.mark.parametrize("blocks", ["paper", "cover"])
def test_squares_of_any_side_fit_any_grid(side, blocks):
    for grid in (PatchGrid(1, 50), PatchGrid(5, 13), PatchGrid(13, 3)):
        mask = draw(InverseBlock(side=side, blocks=blocks), grid=grid, batch_size=4, mask_ratio=0.6, rng=seeded(5))
        assert mask.num_patches == grid.num_patches


def test_every_patch_can_be_a_centre():
    centres = InverseBlock()._centres(5000, PatchGrid(5, 38), 133, seeded(6))
    # Two draws of 190 a sample: 52.6 expected at each patch, none below 15 or above 110 (Poisson, below 1e-8 in all).
    times = centres.sum(dim=0)
    assert times.min() > 15 and times.max() < 110


def test_squares_reach_the_corners_and_are_clipped_there():
    grid = PatchGrid(8, 8)
    strategy = InverseBlock(side=3)
    centre = torch.zeros(1, 64)
    centre[0, 0] = 1.0
    square = strategy._pool(centre, grid).view(8, 8)
    expected = torch.zeros(8, 8)
    expected[:2, :2] = 1.0
    assert torch.equal(square, expected)
