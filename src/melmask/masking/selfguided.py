"""Masks led by the encoder's own features."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn.functional import normalize

from melmask.masking.base import Needs, break_ties
from melmask.types import PatchGrid

SQUARINGS = 8  # as good as 2^8 steps of power iteration


def principal_axis_scores(features: Float[Tensor, "b n d"]) -> Float[Tensor, "b n"]:
    """Projections of each sample's centred features on their first principal axis, up to sign and scale.

    Found by squaring the Gram matrix (patches or features, whichever are fewer) until only its first eigenvector is
    left in every column: no chance, no full decomposition, and right also where the second axis is nearly as long.
    """
    centred = features - features.mean(dim=1, keepdim=True)
    over_patches = centred.shape[1] <= centred.shape[2]
    gram = centred @ centred.mT if over_patches else centred.mT @ centred
    for _ in range(SQUARINGS):
        largest = gram.diagonal(dim1=1, dim2=2).amax(dim=1)
        gram = gram / largest.clamp(min=torch.finfo(gram.dtype).tiny)[:, None, None]
        gram = gram @ gram
    column = gram.diagonal(dim1=1, dim2=2).argmax(dim=1)
    axis = gram[torch.arange(len(gram)), :, column]
    return axis if over_patches else (centred @ axis[:, :, None])[:, :, 0]


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
            sample = int((~features.isfinite()).flatten(1).any(dim=1).nonzero()[0, 0])
            raise ValueError(f"the encoder's features of sample {sample} hold NaN or infinite values: the run diverged")
        in_first = principal_axis_scores(features) > 0
        sides = torch.stack([in_first, ~in_first], dim=1).to(features.dtype)
        centroids = normalize(sides @ features, dim=2)
        return break_ties(-(features @ centroids.transpose(1, 2)).amax(dim=2), rng)
