"""Clusters: sizes as asked for, and borders masked like the middle."""

import pytest
import torch

from melmask.masking import draw
from melmask.masking.clusters import Cluster
from melmask.types import PatchGrid


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def score_of(priority: torch.Tensor) -> torch.Tensor:
    """The score under the chance that breaks its ties, which fills the last 29 bits."""
    return (priority.view(torch.int64) >> 29 << 29).view(torch.float64)


@pytest.mark.parametrize(("smallest", "largest"), [(3, 5), (2, 2), (1, 4)])
def test_the_first_square_has_one_of_the_sides_each_as_often(smallest, largest):
    # Ranked first are the patches of one square. In the middle of a large grid it is whole.
    grid, batch_size = PatchGrid(40, 40), 3000
    priority = Cluster(smallest=smallest, largest=largest).priority(batch_size, grid, 100, seeded(1), None)
    score = score_of(priority)
    first = (score == score.amax(dim=1, keepdim=True)).view(-1, 40, 40)
    whole = ~(first[:, [0, -1]].any(dim=(1, 2)) | first[:, :, [0, -1]].any(dim=(1, 2)))
    height, width = (first[whole].any(dim=axis).sum(dim=1) for axis in (2, 1))
    assert torch.equal(height, width)
    assert torch.equal(first[whole].sum(dim=(1, 2)), height * width)
    for side in range(smallest, largest + 1):
        # A larger square lies off the borders in fewer places. Binomial bounds at 5 standard deviations.
        expected = ((39 - side) / (39 + side)) ** 2 / (largest - smallest + 1)
        assert abs(float((height == side).sum()) / batch_size - expected) < 5 * (0.25 / batch_size) ** 0.5


def test_borders_are_masked_about_as_often_as_the_middle():
    # Squares that stay inside the grid would mask a corner with a probability of about 0.1 instead of 0.5.
    mask = draw(Cluster(), grid=PatchGrid(12, 40), batch_size=3000, mask_ratio=0.5, rng=seeded(2))
    often = torch.zeros(3000, 480).scatter_(1, mask.masked, 1.0).mean(dim=0)
    assert (often - 0.5).abs().max() < 0.06


@pytest.mark.parametrize(("smallest", "largest"), [(0, 3), (4, 3), (-1, -1)])
def test_sides_out_of_order_are_refused(smallest, largest):
    with pytest.raises(ValueError, match=f"1 <= smallest <= largest, got {smallest} and {largest}"):
        Cluster(smallest=smallest, largest=largest)


def test_squares_larger_than_the_grid_fit():
    mask = draw(Cluster(smallest=6, largest=9), grid=PatchGrid(2, 5), batch_size=4, mask_ratio=0.5, rng=seeded(3))
    assert mask.masked.shape == (4, 5)
