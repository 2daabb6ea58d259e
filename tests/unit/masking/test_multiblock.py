"""Multi-block: what a growing block reaches, against blocks built one by one."""

import math

import pytest
import torch

from melmask.masking import draw
from melmask.masking.multiblock import MultiBlock, area_to_reach, reach
from melmask.types import PatchGrid


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("length", [1, 2, 5, 38])
def test_a_block_between_borders_reaches_the_positions_it_covers(length):
    place = torch.rand(1, 300, 1, generator=seeded(1))
    size = reach(place, length)
    assert (size >= 1).all() and (size <= length + 1e-3).all()
    for wanted in range(1, length + 1):
        reached = size <= wanted + 1e-4
        start = place * (length - wanted + 1)
        certain = ((start - start.round()).abs() > 1e-3)[0, :, 0]  # which side of a step rounding does not decide
        position = torch.arange(length)
        covered = (position >= start.floor()) & (position < start.floor() + wanted)
        assert torch.equal(reached[:, certain], covered[:, certain]) and certain.sum() > 200


@pytest.mark.parametrize("length", [1, 2, 5, 38])
def test_a_block_on_a_ring_reaches_the_positions_around_it(length):
    place = torch.rand(1, 300, 1, generator=seeded(2))
    size = reach(place, length, ring=True)
    assert (size >= 1).all() and (size <= length).all()
    for wanted in range(1, length):
        # A whole number of positions, but where one more is exactly as near; the nearest to the origin, on both sides.
        reached = (size <= wanted).sum(dim=2)
        assert ((reached == wanted) | (size == 1).all(dim=2)).all()
    nearest = size.argmin(dim=2)
    assert torch.equal(nearest, (place[:, :, 0] * length).long())


def test_a_block_takes_the_place_of_its_origin_at_the_ends():
    for ring in (False, True):
        ends = torch.tensor([[[0.0], [1 - 2**-24]]])
        size = reach(ends, 5, ring)
        assert size.isfinite().all()
        assert size[0].argmin(dim=1).tolist() == [0, 4]


@pytest.mark.parametrize(("freq", "time"), [(5, 38), (1, 50), (38, 5), (14, 14)])
@pytest.mark.parametrize("aspect", [0.05, 0.3, 1.0, 2.0, 8.0])
def test_the_area_to_reach_a_size_is_the_first_block_that_has_it(freq, time, aspect):
    def height_of(area: float) -> float:
        """A block's rows: by its aspect, unless a side would be under one patch or over the grid's."""
        return min(max(math.sqrt(area * aspect), 1.0, area / time), area, freq)

    for size in torch.linspace(1, freq, 9).tolist():
        area = float(area_to_reach(torch.full((1, 1, 1), size), torch.full((1, 1, 1), aspect), time))
        assert 1 <= area <= freq * time + 1e-3
        assert height_of(area * 1.001) >= size * (1 - 1e-3)
        if area > 1:
            assert height_of(area * 0.999) <= size


def test_targets_have_the_aspect_of_the_grid():
    # One target at a time, far from filling the grid: rows over columns between 0.75 and 1.5 of the grid's 0.25.
    grid = PatchGrid(40, 160)
    mask = draw(MultiBlock(targets=1, ring=False), grid=grid, batch_size=300, mask_ratio=0.2, rng=seeded(3))
    masked = torch.zeros(300, grid.num_patches).scatter_(1, mask.masked, 1.0).view(300, 40, 160)
    aspect = masked.any(dim=2).sum(dim=1) / masked.any(dim=1).sum(dim=1) * 4
    assert aspect.min() > 0.7 and aspect.max() < 1.6
    assert aspect.min() < 0.85 and aspect.max() > 1.35


def test_more_targets_spread_the_mask():
    grid = PatchGrid(20, 80)
    spread = []
    for targets in (1, 4, 12):
        mask = draw(MultiBlock(targets=targets), grid=grid, batch_size=200, mask_ratio=0.3, rng=seeded(4))
        masked = torch.zeros(200, grid.num_patches).scatter_(1, mask.masked, 1.0).view(200, 20, 80)
        spread.append(float(masked.any(dim=1).float().mean()))
    assert spread[0] < spread[1] < spread[2]


def test_no_target_is_refused():
    with pytest.raises(ValueError, match="at least 1 target, got 0"):
        MultiBlock(targets=0)
