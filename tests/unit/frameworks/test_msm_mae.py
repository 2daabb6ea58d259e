"""MSM-MAE: its reconstructions."""

import torch
from torch import nn

from melmask.frameworks import MSMMAE
from melmask.frameworks.msm_mae import normalised_patches
from melmask.masking import draw
from melmask.nn.vit import Size
from melmask.types import Mask, PatchGrid


class Perfect(nn.Module):
    """A stand-in for a decoder that knows the patches."""

    def __init__(self, patches: torch.Tensor) -> None:
        super().__init__()
        self.patches = patches

    def forward(self, latent: torch.Tensor, grid: PatchGrid, mask: Mask) -> torch.Tensor:
        return normalised_patches(self.patches, mask)


def test_a_perfect_prediction_reconstructs_the_input() -> None:
    grid, rng = PatchGrid(5, 6), torch.Generator().manual_seed(0)
    patches = torch.randn(1, grid.num_patches, 256, generator=rng)
    mask = draw("random", grid=grid, batch_size=1, mask_ratio=0.7, rng=rng)
    model = MSMMAE(Size(32, 1, 2), Size(32, 1, 2), grid.patch)
    model.decoder = Perfect(patches)
    torch.testing.assert_close(model.reconstruct(patches, grid, mask), patches, atol=1e-4, rtol=0)
