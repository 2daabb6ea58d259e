"""Features of the time steps of an encoder's input, and the linear map that decorrelates them."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from melmask.nn.vit import LAYER_NORM_EPS, Encoder
from melmask.types import PatchGrid

Layers = Literal["auto", "last", "all"] | tuple[int, ...]

SHRINKAGE = (
    1e-2  # of the largest variance, added to all: less amplifies what varies by chance, above all in narrow data
)
WITHIN_SHARE = 0.3  # of the variance over the time of a crop: averages over time have little of it


def layer_numbers(layers: Layers, depth: int) -> tuple[int, ...]:
    """The numbers of layers in an encoder of ``depth`` blocks, 1 for the first block's output; see `FeatureSettings`.

    Raises:
        ValueError: the encoder has no such layer.
    """
    assert layers != "auto", "resolve the settings first"
    if layers == "last":
        return (depth,)
    if isinstance(layers, str):
        return tuple(range(1, depth + 1))
    if layers[-1] > depth:
        raise ValueError(f"layer {layers[-1]} of an encoder of {depth} layers: choose from 1 to {depth}")
    return layers


def time_steps(
    encoder: Encoder, patches: Float[Tensor, "b n p"], grid: PatchGrid, layers: tuple[int, ...]
) -> list[Float[Tensor, "b time d"]]:
    """Features of each time step, of one layer after the other.

    The class token is dropped, and the patches of a time step are stacked over frequency (freq x dim). The last layer
    passes through the encoder's own norm, others through one without weights.

    Args:
        encoder: in the mode and precision it is called in.
        patches: the whole input, normalised.
        grid: its layout.
        layers: by number, 1 for the first block's output.
    """
    depth, dim = encoder.size.depth, encoder.size.dim
    if layers == (depth,):
        return [_by_step(encoder(patches, grid), grid)]
    outputs = encoder.layers(patches, grid)
    normed = [F.layer_norm(output, (dim,), eps=LAYER_NORM_EPS) for output in outputs[:-1]]
    normed.append(encoder.norm(outputs[-1]))
    return [_by_step(normed[number - 1], grid) for number in layers]


def _by_step(tokens: Float[Tensor, "b t d"], grid: PatchGrid) -> Float[Tensor, "b time d2"]:
    """Features of each time step, frequencies side by side; the class token is dropped."""
    return tokens[:, 1:].float().unflatten(1, (grid.freq, grid.time)).transpose(1, 2).flatten(2)


@dataclass(frozen=True, eq=False)
class Whitening:
    """A linear map after which the features of time steps are nearly uncorrelated and of unit variance.

    Features of masked autoencoders vary most along a few directions, such as loudness. Distances, which k-NN, search
    and maps are made of, follow these few, and so does the deviation over time; whitened, they follow all.

    Embeddings are averages over time. Of what varies within a recording, such as from one note to the next, averages
    have less than single time steps; so the covariance within crops counts for a share only, beside that of their
    means.

    Args:
        mean: of the time steps it was learned from.
        matrix: symmetric, so that a whitened feature still belongs to its frequency and dimension as far as it can.

    Source: ZCA whitening, see Kessy, Lewin and Strimmer (2018), "Optimal whitening and decorrelation", arXiv
    1512.00809. Deviates: a share of the largest variance is added to each, and the covariance within crops counts for a
    share.
    """

    mean: Float[Tensor, " d"]
    matrix: Float[Tensor, "d d"]

    @staticmethod
    def learn(
        steps: Float[Tensor, "n d"],
        crop: Int[Tensor, " n"],
        shrinkage: float = SHRINKAGE,
        within_share: float = WITHIN_SHARE,
    ) -> "Whitening":
        """The whitening of a sample of time steps, computed in float64.

        Args:
            steps: at least one; with fewer than dimensions, the shrinkage bounds what is amplified. Where all are equal
                they are only centred.
            crop: the number of the crop that each step is of, from 0 on.
            shrinkage: share of the largest variance that is added to each variance.
            within_share: weight of the covariance of steps about the mean of their crop; that of these means has 1. By
                1 single time steps are whitened.

        Raises:
            ValueError: not all steps are finite.
        """
        wide = steps.double()
        mean = wide.mean(dim=0)
        num_steps = torch.bincount(crop)[:, None]
        of_crop = wide.new_zeros(len(num_steps), wide.shape[1]).index_add_(0, crop, wide) / num_steps.clamp(min=1)
        between, within = (of_crop - mean) * num_steps.double().sqrt(), wide - of_crop[crop]
        covariance = (between.T @ between + within_share * within.T @ within) / len(wide)
        if not covariance.isfinite().all():
            raise ValueError("features are not finite, so that they cannot be whitened")
        if covariance.trace() <= torch.finfo(torch.float32).eps ** 2 * wide.square().sum(dim=1).mean():
            # All equal to float32's precision, such as those of silence: there is nothing to scale but rounding.
            return Whitening(mean.float(), torch.eye(len(mean)))
        variance, axes = torch.linalg.eigh(covariance)
        scale = (variance.clamp(min=0) + shrinkage * variance[-1]).rsqrt()
        return Whitening(mean.float(), ((axes * scale) @ axes.T).float())

    def __call__(self, steps: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Whitened features of time steps."""
        return (steps - self.mean) @ self.matrix

    def to(self, device: torch.device | str) -> "Whitening":
        """This map on another device."""
        return Whitening(self.mean.to(device), self.matrix.to(device))
