"""M2D: predict, from the visible patches, what a slowly following encoder makes of the masked ones."""

import copy
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from melmask.frameworks.base import Loss, MaskedDecoder, counted, mean_over_valid
from melmask.nn.vit import Encoder, Size
from melmask.types import Mask, PatchGrid

Standardise = Literal["patch", "batch"]


class M2D(nn.Module):
    """Masked Modeling Duo.

    The online encoder sees the visible patches and a predictor, fed its output and a learnt token at the masked places,
    predicts the target encoder's features of the masked patches. The target encoder sees *only* the masked patches and
    is an exponential moving average (EMA) of the online one. The loss is 2 - 2 cos between predictions and targets,
    each target standardised over its features.

    Args:
        encoder: width, depth and heads of both encoders.
        predictor: the same of the predictor; 512 wide, 8 deep, 16 heads at base.
        patch_shape: (freq, time) of a patch.
        ema: the EMA's decay at the first and at the last step, linear between.
        standardise: what each target is standardised over: "patch", its own features, or "batch", for every feature
            all masked patches of the batch. Over the batch, what all targets share is no longer rewarded, so that
            an EMA fast enough for runs of a few thousand steps does not collapse.

    Raises:
        ValueError: standardise is neither form.

    Source: arXiv 2210.14648 and 2404.06095. Deviates: padding is left out of the loss; "batch" is melmask's own.
    """

    def __init__(
        self,
        encoder: Size,
        predictor: Size,
        patch_shape: tuple[int, int],
        ema: tuple[float, float] = (0.99995, 0.99999),
        standardise: Standardise = "patch",
    ) -> None:
        super().__init__()
        if standardise not in get_args(Standardise):
            raise ValueError(f'm2d standardises over a "patch" or the "batch", got {standardise!r}')
        self.ema, self.standardise = ema, standardise
        self.encoder = Encoder(encoder, patch_shape)
        self.target = copy.deepcopy(self.encoder).requires_grad_(False)
        self.predictor = MaskedDecoder(predictor, encoder.dim, encoder.dim)

    def forward(
        self, patches: Float[Tensor, "b n p"], grid: PatchGrid, mask: Mask, valid: Bool[Tensor, "b n"] | None = None
    ) -> Loss:
        """The loss of predicting the target encoder's features of the masked patches.

        Args:
            patches: the normalised log-mel input.
            grid: its layout.
            mask: which patches are visible and masked.
            valid: False for padding, which is not counted in the loss.
        """
        latent = self.encoder(patches, grid, mask.visible)
        predicted = self.predictor(latent, grid, mask)
        with torch.no_grad():
            target = self.target(patches, grid, mask.masked)[:, 1:].float()
            if self.standardise == "patch":
                target = standardised_over_features(target)
            else:
                target = standardised_over_batch(target, counted(mask, valid))
        per_patch = unit_distance(predicted.float(), target)
        return Loss(mean_over_valid(per_patch, mask, valid), per_patch.detach(), latent[:, 1:].detach())

    def encoders(self) -> dict[str, Encoder]:
        """The online encoder and the target, its average."""
        return {"online": self.encoder, "ema": self.target}

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Move the target encoder a little towards the online one.

        Args:
            progress: share of the run that is done, in [0, 1].
        """
        decay = self.ema[0] + (self.ema[1] - self.ema[0]) * progress
        torch._foreach_lerp_(list(self.target.parameters()), list(self.encoder.parameters()), 1.0 - decay)


def standardised_over_features(target: Float[Tensor, "b m d"], eps: float = 1e-6) -> Float[Tensor, "b m d"]:
    """Every vector with zero mean and unit variance over its own features."""
    mean, variance = target.mean(dim=2, keepdim=True), target.var(dim=2, keepdim=True, unbiased=False)
    return (target - mean) / torch.sqrt(variance + eps)


def standardised_over_batch(
    target: Float[Tensor, "b m d"], counted: Float[Tensor, "b m"], eps: float = 1e-6
) -> Float[Tensor, "b m d"]:
    """Every feature with zero mean and unit variance over those vectors of the batch that are counted."""
    share = (counted / counted.sum().clamp(min=1.0))[:, :, None]
    mean = (target * share).sum(dim=(0, 1))
    variance = ((target - mean).square() * share).sum(dim=(0, 1))
    return (target - mean) / torch.sqrt(variance + eps)


def unit_distance(
    predicted: Float[Tensor, "b m d"], target: Float[Tensor, "b m d"], eps: float = 1e-6
) -> Float[Tensor, "b m"]:
    """2 - 2 cos: the squared distance of the two as unit vectors."""
    return 2.0 - 2.0 * F.cosine_similarity(predicted, target, dim=2, eps=eps)
