"""Masks led by the encoder's own features."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn.functional import normalize

from melmask.masking.base import Needs, break_ties
from melmask.types import PatchGrid

POWER_ITERATIONS = 32


def principal_axis_scores(features: Float[Tensor, "b n d"]) -> Float[Tensor, "b n"]:
    """Projections of each sample's centred features on their first principal axis, up to sign and scale.

    Found by power iteration on the small Gram matrix, from a fixed start: no chance, no full decomposition.
    """
    centred = features - features.mean(dim=1, keepdim=True)
    gram = centred @ centred.transpose(1, 2)
    scores = gram.gather(2, gram.diagonal(dim1=1, dim2=2).argmax(dim=1)[:, None, None].expand(-1, gram.shape[1], 1))
    for _ in range(POWER_ITERATIONS):
        scores = normalize(gram @ scores, dim=1)
    return scores[:, :, 0]


@dataclass(frozen=True)
class SelfGuided:
    """Self-guided informed masking (SGIM): what is unlike both of the input's two main clusters is masked first.

    The encoder's features of the unmasked input are normalised and split in two at the mean of their projection on
    the first principal axis; each patch is ranked by minus its largest cosine to the two centroids. Model-dependent;
    costs one more encoder pass over all patches.

    Raises:
        ValueError: the guide is missing or not finite.

    Source: arXiv 2507.19773 as described in arXiv 2603.23810. Deviates: the two-way split is by the principal axis
    (PCA form) and not by a normalised cut.
    """

    needs: ClassVar[Needs] = "features"

    def priority(
        self, batch_size: int, grid: PatchGrid, num_masked: int, rng: Generator, guide: Tensor | None
    ) -> Float[Tensor, "b n"]:
        assert guide is not None  # draw() has checked it
        features = normalize(guide.float(), dim=2)
        if not features.isfinite().all():
            raise ValueError("the encoder's features hold NaN or infinite values: the run has diverged")
        in_first = principal_axis_scores(features) > 0
        sides = torch.stack([in_first, ~in_first], dim=1).to(features.dtype)
        centroids = normalize(sides @ features, dim=2)
        return break_ties(-(features @ centroids.transpose(1, 2)).amax(dim=2), rng)
