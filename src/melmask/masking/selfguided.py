"""Masks guided by the encoder's own features."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn.functional import normalize

from melmask.masking.base import MaskingStrategy, Needs, break_ties
from melmask.types import PatchGrid

PCA_STEPS, SPECTRAL_STEPS = (3, 32), (5, 64)  # squarings and products: power iteration of 2^3 * 32 or 2^5 * 64 steps

EncoderChoice = Literal["online", "ema"]


def check_encoder(strategy: str, encoder: str) -> None:
    """Raise ValueError unless the encoder is one of the choices."""
    if encoder not in get_args(EncoderChoice):
        raise ValueError(f'{strategy} takes the encoder "online" or "ema", got {encoder!r}')


def check_finite(guide: Float[Tensor, "b n d"], what: str) -> None:
    """Raise ValueError, naming the sample, if something that a model hands in is NaN or infinite."""
    if not guide.isfinite().all():
        sample = int((~guide.isfinite()).flatten(1).any(dim=1).nonzero()[0, 0])
        raise ValueError(f"{what} of sample {sample} hold NaN or infinite values: the run diverged")


def principal_axis_scores(features: Float[Tensor, "b n d"]) -> Float[Tensor, "b n"]:
    """Projections of each sample's centred features on their first principal axis, up to sign and scale.

    Found by power iteration on the squared Gram matrix (of patches or features, whichever are fewer): deterministic,
    without a full decomposition, and accurate also where the second axis is nearly as long.
    """
    centred = features - features.mean(dim=1, keepdim=True)
    over_patches = centred.shape[1] <= centred.shape[2]
    axis = leading_eigenvector(centred @ centred.mT if over_patches else centred.mT @ centred, *PCA_STEPS)
    return axis if over_patches else (centred @ axis[:, :, None])[:, :, 0]


def fiedler_scores(features: Float[Tensor, "b n d"]) -> Float[Tensor, "b n"]:
    """The Fiedler vector of each sample's graph of patches, up to sign and scale.

    The graph's weights W are the cosines of the unit-length features, negative ones set to zero; D holds their row
    sums. The Fiedler vector belongs to the second smallest eigenvalue of the symmetric normalised Laplacian
    I - D^-1/2 W D^-1/2, so to the largest of (I + D^-1/2 W D^-1/2) / 2, which has none below zero, once the trivial
    eigenvector D^1/2 1 is taken out.
    """
    weights = (features @ features.mT).clamp(min=0.0)
    root = weights.sum(dim=2).sqrt()
    scaled = weights / (root[:, :, None] * root[:, None, :]).clamp(min=torch.finfo(weights.dtype).tiny)
    trivial = normalize(root, dim=1)
    scaled.diagonal(dim1=1, dim2=2).add_(1.0)
    return leading_eigenvector(scaled / 2 - trivial[:, :, None] * trivial[:, None, :], *SPECTRAL_STEPS)


def leading_eigenvector(matrix: Float[Tensor, "b k k"], num_squarings: int, num_products: int) -> Float[Tensor, "b k"]:
    """The eigenvector of the largest eigenvalue of matrices that have none below zero, up to sign and scale.

    Power iteration: a few squarings make each of the cheap products with a vector count for many.
    """
    for _ in range(num_squarings):
        largest = matrix.diagonal(dim1=1, dim2=2).amax(dim=1)
        matrix = matrix / largest.clamp(min=torch.finfo(matrix.dtype).tiny)[:, None, None]
        matrix = matrix @ matrix
    column = matrix.diagonal(dim1=1, dim2=2).argmax(dim=1)
    vector = matrix[torch.arange(len(matrix)), :, column]
    for _ in range(num_products - 1):
        vector = (normalize(vector, dim=1)[:, None, :] @ matrix)[:, 0]  # a row, which is ten times as fast as a column
    return vector


@dataclass(frozen=True)
class SelfGuided(MaskingStrategy):
    """Self-guided informed masking (SGIM): what is unlike both of the input's two main clusters is masked first.

    The encoder's features of the unmasked input are normalised and split in two; each patch is ranked by minus its
    largest cosine to the two sides' centroids. The split is by the sign of the projection on the features' first
    principal axis ("pca"), or of the Fiedler vector of the patches' graph ("spectral", a normalised cut).
    Model-dependent; costs one more encoder pass over all patches, and its own part is a small share of that.

    Args:
        form: how the features are split in two: "pca" or "spectral".
        encoder: whose features: the "online" encoder's, or those of the "ema" that M2D keeps of it.

    Raises:
        ValueError: an option is none of its choices; the guide is missing or not finite.

    Source: arXiv 2507.19773 as described in arXiv 2603.23810. Deviates: the default splits by the principal axis; the
    spectral form takes plain cosines as similarities.
    """

    form: Literal["pca", "spectral"] = "pca"
    encoder: EncoderChoice = "online"

    @property
    def needs(self) -> Needs:
        return Needs("features", self.encoder)

    def __post_init__(self) -> None:
        if self.form not in ("pca", "spectral"):
            raise ValueError(f'sgim has the forms "pca" and "spectral", got {self.form!r}')
        check_encoder("sgim", self.encoder)

    def priority(
        self, batch_size: int, grid: PatchGrid, num_masked: int, rng: Generator, guide: Tensor | None
    ) -> Float[Tensor, "b n"]:
        assert guide is not None  # draw() has checked it
        features = normalize(guide.float(), dim=2)
        check_finite(features, "the encoder's features")
        scores = principal_axis_scores(features) if self.form == "pca" else fiedler_scores(features)
        in_first = scores > 0
        sides = torch.stack([in_first, ~in_first], dim=1).to(features.dtype)
        centroids = normalize(sides @ features, dim=2)
        return break_ties(-(features @ centroids.transpose(1, 2)).amax(dim=2), rng)
