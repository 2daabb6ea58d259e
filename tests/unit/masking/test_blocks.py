"""Blocks: inverse ones are the *visible* part, and what covering means; masked ones have areas, aspects and places."""

import pytest
import torch
from torch.nn.functional import max_pool2d

from melmask.masking import draw
from melmask.masking.blocks import MAX_BLOCKS, Blockwise, InverseBlock, blocks_at, sliding_max
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
    square = strategy.pool(centre, grid).view(8, 8)
    expected = torch.zeros(8, 8)
    expected[:2, :2] = 1.0
    assert torch.equal(square, expected)


def test_rectangles_have_the_sides_asked_for():
    grid = PatchGrid(9, 20)
    centre = torch.zeros(1, 180)
    centre[0, 4 * 20 + 10] = 1.0
    for side, time_side in ((3, 7), (1, 5), (4, 2), (5, 0)):
        reached = InverseBlock(side=side, time_side=time_side).pool(centre, grid).view(9, 20)
        rows, columns = reached.any(dim=1).nonzero()[:, 0], reached.any(dim=0).nonzero()[:, 0]
        assert (len(rows), len(columns)) == (side, time_side or side)
        assert int(reached.sum()) == len(rows) * len(columns)
        assert int(rows[0]) == 4 - (side - 1) // 2 and int(columns[0]) == 10 - ((time_side or side) - 1) // 2


def test_rectangles_count_centres_by_their_area():
    assert InverseBlock(side=5, time_side=10).num_centres(PatchGrid(8, 64), 410) == 2  # (102 + 35.8) / 50
    assert InverseBlock(side=2, time_side=3, adjust=0.0).num_centres(PatchGrid(3, 8), 12) == 2
    with pytest.raises(ValueError, match="time_side >= 1, or 0 for squares, got -1"):
        InverseBlock(time_side=-1)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 8])
def test_the_sliding_maximum_is_that_of_every_window(size):
    image = torch.randn(3, 8, 11, generator=seeded(7))
    assert torch.equal(sliding_max(image, size, dim=1), max_pool2d(image, (size, 1), stride=1))
    assert torch.equal(sliding_max(image, size, dim=2), max_pool2d(image, (1, size), stride=1))


@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize("length", [1, 5, 38])
def test_every_block_holds_its_positions_and_has_its_bit(length, ring):
    place = torch.rand(50, MAX_BLOCKS, generator=seeded(8))
    place[0], place[1] = 0.0, 1 - 2**-24  # the first place and the last
    size = torch.randint(1, length + 1, (50, MAX_BLOCKS), generator=seeded(9)).float()
    held = blocks_at(place, size, length, ring)
    for block in range(MAX_BLOCKS):
        start = (place[:, block] * (length if ring else length - size[:, block] + 1)).long()
        inside = torch.arange(length) - start[:, None]
        inside = inside % length if ring else torch.where(inside < 0, length, inside)
        assert torch.equal((held >> block) & 1, (inside < size[:, block : block + 1]).long())
    assert not ring or length == 1 or (held[1] & 1)[-1] == 1
    assert (held[0] & 1)[0] == 1 and (held >= 0).all()


def score_of(priority: torch.Tensor) -> torch.Tensor:
    """The score under the chance that breaks its ties, which fills the last 29 bits."""
    return (priority.view(torch.int64) >> 29 << 29).view(torch.float64)


def first_blocks(strategy: Blockwise, grid: PatchGrid, num_masked: int, batch_size: int) -> torch.Tensor:
    """Where the first block of each sample is [b, freq, time]."""
    score = score_of(strategy.priority(batch_size, grid, num_masked, seeded(10), None))
    return (score == -1).view(batch_size, grid.freq, grid.time)


def test_the_first_block_has_the_area_and_the_aspect_asked_for():
    grid = PatchGrid(60, 60)
    first = first_blocks(Blockwise(smallest=0.05, aspect=0.25, ring=False), grid, 1440, 2000)
    height, width = first.any(dim=2).sum(dim=1).double(), first.any(dim=1).sum(dim=1).double()
    assert torch.equal(first.sum(dim=(1, 2)).double(), height * width)
    area, aspect = height * width, height / width
    assert area.min() > 0.9 * 180 and area.max() < 1.05 * 1440  # but for whole sides
    # A uniform share of the 1440, the 12.5 % under 180 raised to that: false alarm below 1e-6.
    assert abs(float((area > 720).double().mean()) - 0.5) < 5 * (0.25 / 2000) ** 0.5
    assert abs(float((area < 190).double().mean()) - 0.13) < 5 * (0.11 / 2000) ** 0.5
    assert aspect.min() > 0.2 and aspect.max() < 5
    assert abs(float((aspect > 1).double().mean()) - 0.5) < 0.1  # neither flat nor tall (ties are squares)
    # Inside the borders, from the first place to the last.
    assert first[:, 0].any() and first[:, -1].any() and first[:, :, 0].any() and first[:, :, -1].any()


@pytest.mark.parametrize(("freq", "time"), [(5, 38), (1, 50), (50, 1), (38, 5)])
def test_blocks_too_large_for_a_side_are_longer_instead(freq, time):
    grid = PatchGrid(freq, time)
    area = first_blocks(Blockwise(smallest=0.6, ring=False), grid, round(0.6 * grid.num_patches), 500).sum(dim=(1, 2))
    off = (area - 0.6 * grid.num_patches).abs().max()
    assert off <= max(freq, time) / 2  # half a line, as sides are whole


def test_small_blocks_follow_until_overlaps_are_made_up_for():
    for grid in (PatchGrid(5, 38), PatchGrid(12, 101), PatchGrid(1, 50)):
        for num_masked in (grid.num_patches // 2, int(0.7 * grid.num_patches)):
            strategy = Blockwise()
            assert strategy.num_blocks(grid, num_masked) < MAX_BLOCKS
            score = score_of(strategy.priority(2000, grid, num_masked, seeded(11), None))
            uncovered = score == -(2.0 ** strategy.num_blocks(grid, num_masked))
            assert (grid.num_patches - uncovered.sum(dim=1) >= num_masked).float().mean() > 0.999


@pytest.mark.parametrize("setting", [{"smallest": 0.0}, {"smallest": 1.5}, {"aspect": 0.0}, {"aspect": 3.0}])
def test_block_settings_out_of_range_are_refused(setting):
    (name, value), *_ = setting.items()
    with pytest.raises(ValueError, match=rf"smallest and aspect in \(0, 1\], got .*{name} {value}"):
        Blockwise(**setting)


@pytest.mark.parametrize("mask_ratio", [0.02, 0.5, 0.98])
def test_blocks_of_any_size_fit_any_grid(mask_ratio):
    for smallest in (1e-6, 0.3, 1.0):
        for grid in (PatchGrid(1, 60), PatchGrid(13, 8), PatchGrid(101, 1)):
            mask = draw(Blockwise(smallest=smallest), grid=grid, batch_size=20, mask_ratio=mask_ratio, rng=seeded(12))
            assert mask.num_patches == grid.num_patches
