"""Lines: how many rows a product leaves visible, and where lines have nothing to choose from."""

import pytest
import torch

from melmask.masking import draw
from melmask.masking.lines import FreqLines, TimeFreqLines, TimeLines, TimeProduct, on_grid, shuffled
from melmask.types import PatchGrid


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_an_order_is_a_permutation_of_each_samples_own():
    order = shuffled(500, 7, seeded(1))
    assert torch.equal(order.sort(dim=1).values, torch.arange(7).expand(500, -1))
    assert len(order.unique(dim=0)) > 450  # of 5040


def test_scores_of_lines_reach_the_patches_of_their_lines():
    grid = PatchGrid(2, 3)
    assert on_grid(torch.tensor([[[5, 6, 7]]]), grid).tolist() == [[5, 6, 7, 5, 6, 7]]
    assert on_grid(torch.tensor([[[5], [6]]]), grid).tolist() == [[5, 5, 5, 6, 6, 6]]


@pytest.mark.parametrize(
    ("freq", "time", "num_masked", "balance", "expected"),
    [
        (5, 38, 133, 0.5, 3),  # 5 sqrt(0.3) = 2.7
        (5, 38, 133, 0.0, 2),  # 5 * 0.3 = 1.5, and 57 visible patches need two rows of 38
        (5, 38, 133, 1.0, 5),
        (5, 38, 171, 0.5, 2),  # 5 sqrt(0.1) = 1.6
        (12, 101, 848, 0.5, 7),  # 12 sqrt(0.3) = 6.6
        (1, 50, 35, 0.5, 1),
        (50, 1, 35, 0.5, 15),  # one column: a row holds one visible patch
        (50, 1, 49, 0.9, 1),  # one visible patch cannot fill more rows than one
        (10, 2, 18, 1.0, 2),
        (10, 2, 2, 0.0, 9),
    ],
)
def test_a_product_has_rows_enough_and_none_without_a_visible_patch(freq, time, num_masked, balance, expected):
    assert TimeProduct(balance=balance).num_visible_rows(PatchGrid(freq, time), num_masked) == expected


def test_every_product_fits_its_rows():
    for freq in range(1, 9):
        for time in range(1, 9):
            grid = PatchGrid(freq, time)
            for num_masked in range(1, grid.num_patches):
                for balance in (0.0, 0.3, 0.5, 1.0):
                    num_rows = TimeProduct(balance=balance).num_visible_rows(grid, num_masked)
                    num_visible = grid.num_patches - num_masked
                    assert num_rows <= freq and num_rows <= num_visible <= num_rows * time


def test_the_rates_of_a_product_are_those_of_the_balance():
    # Large enough that whole rows and columns come close to the rates.
    grid = PatchGrid(100, 200)
    for balance in (0.2, 0.5, 0.8):
        mask = draw(TimeProduct(balance=balance), grid=grid, batch_size=1, mask_ratio=0.8, rng=seeded(1))
        visible = torch.zeros(grid.num_patches).scatter_(0, mask.visible[0], 1.0).view(100, 200)
        assert float(visible.any(dim=1).float().mean()) == pytest.approx(0.2 ** (1 - balance), abs=0.01)
        assert float(visible.any(dim=0).float().mean()) == pytest.approx(0.2**balance, abs=0.02)


@pytest.mark.parametrize("balance", [-0.1, 1.1, float("nan")])
def test_a_balance_out_of_range_is_refused(balance):
    with pytest.raises(ValueError, match=rf"balance in \[0, 1\], 0.5 for equal rates, got {balance}"):
        TimeProduct(balance=balance)


@pytest.mark.parametrize("strategy", [TimeLines(), FreqLines(), TimeFreqLines(), TimeProduct()])
def test_the_line_at_the_cut_is_masked_at_random_patches(strategy):
    # Nine visible patches on 4 x 6. Lines and their order alone give at most 180 sets; one that is cut by position
    # would meet no more.
    mask = draw(strategy, grid=PatchGrid(4, 6), batch_size=5000, mask_ratio=0.625, rng=seeded(2))
    assert mask.visible.shape[1] == 9
    assert len(mask.visible.unique(dim=0)) > 180
