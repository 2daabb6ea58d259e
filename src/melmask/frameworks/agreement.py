"""A clip-level objective beside the patches': two masks of a clip are to be recognised as of one clip."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from melmask.frameworks.cost import Pass, Product, encoder_pass
from melmask.nn.linear import Linear
from melmask.nn.vit import LAYER_NORM_EPS, Encoder
from melmask.types import Mask

HIDDEN_DIM, OUT_DIM = 1024, 256


class Agreement(nn.Module):
    """Tells apart the clips of a batch by the mean features of two disjoint sets of their patches.

    Beside the visible patches, as many of the masked ones are encoded on their own. Each set's features are averaged
    and projected by a network of one hidden layer. The loss is the cross-entropy of finding, among the second sets of
    all clips of the batch, the one that is of the same clip, by cosine over a temperature, averaged over both
    directions. Padding is left out where a clip has patches enough without it.

    Args:
        encoder: whose features they are; not a part of this module.
        temperature: divides the cosines.

    Source: the loss of SimCLR, arXiv 2002.05709, between disjoint masks of one input as in masked siamese networks
    (arXiv 2204.07141). Deviates: negatives are the other clips of the same part of a batch on the same device, second
    sets only; LayerNorm in place of batch normalisation in the projection.
    """

    def __init__(self, encoder_dim: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.project = nn.Sequential(
            Linear(encoder_dim, HIDDEN_DIM),
            nn.LayerNorm(HIDDEN_DIM, eps=LAYER_NORM_EPS),
            nn.GELU(),
            Linear(HIDDEN_DIM, OUT_DIM),
        )

    def forward(self, first: Float[Tensor, "b d"], second: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
        """The loss for the mean features of both sets; ln(b) where they say nothing, 0 for a batch of one clip."""
        one, other = (F.normalize(self.project(features).float(), dim=1) for features in (first, second))
        logits = one @ other.T / self.temperature
        same = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same)) / 2

    def cost(self, encoder: Encoder, num_visible: int, num_masked: int) -> Pass:
        """The second encoding of one sample with both projections; the products between clips are not counted."""
        again = encoder_pass(encoder, min(num_visible, num_masked), "second encoding")
        projections = (Product(2, encoder.size.dim, HIDDEN_DIM), Product(2, HIDDEN_DIM, OUT_DIM))
        kept = again.kept_values + 2 * (2 * HIDDEN_DIM + 2 * OUT_DIM)
        return Pass(again.name, again.size, again.num_tokens, (*again.products, *projections), kept)


def other_patches(mask: Mask, valid: Bool[Tensor, "b n"] | None) -> Int[Tensor, "b k"]:
    """As many masked patches as are visible, or all if there are fewer: at random, those that are padding last.

    Returns:
        Their indices, sorted.
    """
    number = min(mask.visible.shape[1], mask.masked.shape[1])
    order = torch.rand(mask.masked.shape, device=mask.masked.device)
    if valid is not None:
        order = order + (~valid.gather(1, mask.masked)).float()
    chosen = order.argsort(dim=1)[:, :number]
    return mask.masked.gather(1, chosen).sort(dim=1).values


def mean_features(
    features: Float[Tensor, "b k d"], index: Int[Tensor, "b k"], valid: Bool[Tensor, "b n"] | None
) -> Float[Tensor, "b d"]:
    """The mean of a clip's features over the patches at ``index`` that are not padding; zero if all are."""
    if valid is None:
        return features.float().mean(dim=1)
    weight = valid.gather(1, index).float()[:, :, None]
    return (features.float() * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)
