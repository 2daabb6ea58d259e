"""A run on crops of its data."""

from pathlib import Path

import torch

from melmask.frameworks import MSMMAE, Loss
from melmask.nn.vit import Size
from melmask.report.crops import NUM_CROPS, Crops, error_by_patch
from melmask.study.runs import Run
from melmask.train.recipe import RECIPES
from melmask.types import PatchGrid


class Indexed(MSMMAE):
    """A stand-in for a model whose error is the number of the patch."""

    def loss(self, patches, grid, mask, valid=None):
        error = mask.masked.float()
        return Loss(error.mean(), error, torch.zeros(len(patches), 1, 1))


def test_errors_are_at_their_patch_of_the_grid() -> None:
    grid, num_crops = PatchGrid(5, 6), NUM_CROPS
    run = Run(Path("run"), "run", RECIPES["micro-m2d"], {}, [], [], None, "")
    valid = torch.ones(num_crops, grid.num_patches, dtype=torch.bool)
    valid[:, 5] = False
    patches, first = torch.zeros(num_crops, grid.num_patches, 256), torch.zeros(num_crops, dtype=torch.long)
    crops = Crops(torch.zeros(num_crops, 80, 96), patches, valid, grid, (), (), (), first, first)
    error = error_by_patch(run, Indexed(Size(32, 1, 2), Size(32, 1, 2), grid.patch), crops)
    expected = torch.arange(30.0)
    expected[5] = torch.nan
    torch.testing.assert_close(error, expected, equal_nan=True)
