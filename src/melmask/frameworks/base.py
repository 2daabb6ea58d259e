"""What the frameworks share: the loss they return, and the decoder that predicts masked patches from visible ones."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from melmask.nn.linear import Linear
from melmask.nn.vit import LAYER_NORM_EPS, Blocks, Size, init_weights, positions
from melmask.patches import place, take
from melmask.types import Mask, PatchGrid

VARIANCE_EPS = 1e-6  # added to the variance of a patch before it is divided by


@dataclass(frozen=True)
class Loss:
    """The result of one forward pass.

    Args:
        value: the scalar to minimise: the mean of ``per_patch`` over masked patches that are not padding.
        per_patch: the error of every masked patch, in the order of ``mask.masked``.
        features: the online encoder's output for the visible patches, class token dropped; for monitors.
    """

    value: Float[Tensor, ""]
    per_patch: Float[Tensor, "b m"]
    features: Float[Tensor, "b v d"]


class MaskedDecoder(nn.Module):
    """Predicts something of every masked patch: MSM-MAE's decoder and M2D's predictor.

    The encoder's output stands at the visible places, a learnt token at the masked ones, positions are added to both.

    Args:
        size: width, depth and heads.
        encoder_dim: feature width of the encoder's output.
        out_dim: numbers to predict for a masked patch.
    """

    def __init__(self, size: Size, encoder_dim: int, out_dim: int) -> None:
        super().__init__()
        self.size = size
        self.embed = Linear(encoder_dim, size.dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, size.dim))
        self.blocks = Blocks(size)
        self.norm = nn.LayerNorm(size.dim, eps=LAYER_NORM_EPS)
        self.pred = Linear(size.dim, out_dim)
        self.apply(init_weights)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, latent: Float[Tensor, "b t d"], grid: PatchGrid, mask: Mask) -> Float[Tensor, "b m p"]:
        """Predictions for ``mask.masked``, from the class token and then the features of ``mask.visible``."""
        latent = self.embed(latent)
        tokens = self.mask_token.to(latent.dtype).expand(len(latent), grid.num_patches, -1)
        tokens = place(tokens, mask.visible, latent[:, 1:]) + positions(grid, self.size.dim, latent)
        tokens = torch.cat([latent[:, :1].to(tokens.dtype), tokens], dim=1)
        return self.pred(self.norm(take(self.blocks(tokens)[:, 1:], mask.masked)))


def counted(mask: Mask, valid: Bool[Tensor, "b n"] | None) -> Float[Tensor, "b m"]:
    """One for every masked patch that counts in the loss, zero for padding."""
    if valid is None:
        return torch.ones_like(mask.masked, dtype=torch.float32)
    return valid.gather(1, mask.masked).float()


def mean_over_valid(
    per_patch: Float[Tensor, "b m"], mask: Mask, valid: Bool[Tensor, "b n"] | None
) -> Float[Tensor, ""]:
    """The mean error over masked patches, padding left out; zero if all of them are padding."""
    weight = counted(mask, valid)
    return (per_patch * weight).sum() / weight.sum().clamp(min=1.0)


def normalised_patches(patches: Float[Tensor, "b n p"], mask: Mask) -> Float[Tensor, "b m p"]:
    """The masked patches, each with zero mean and unit variance over its values: what a decoder is to rebuild."""
    target = take(patches, mask.masked).float()
    mean, variance = target.mean(dim=2, keepdim=True), target.var(dim=2, keepdim=True)
    return (target - mean) / torch.sqrt(variance + VARIANCE_EPS)
