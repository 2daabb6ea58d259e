"""M2D: predict a target encoder's features of the masked patches from the visible ones."""

import copy
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from melmask.frameworks.base import Framework, Loss, MaskedDecoder, counted, mean_over_valid
from melmask.frameworks.cost import Cost, encoder_pass
from melmask.nn.vit import Encoder, Size
from melmask.types import Mask, PatchGrid

Standardise = Literal["patch", "batch"]
Target = Literal["encoder", "blocks"]
EMA_OPERATIONS = 3  # a parameter: subtract, scale, add


class M2D(Framework):
    """Masked Modeling Duo.

    The online encoder takes the visible patches. From its output and a learnt token for each masked patch, a predictor
    predicts the target encoder's features of the masked patches. The target encoder takes *only* the masked patches and
    is an exponential moving average (EMA) of the online one, in one of two forms. The loss is 2 - 2 cos between
    predictions and targets, each target standardised over its features.

    Args:
        encoder: width, depth and heads of both encoders.
        decoder: the same of the predictor; 512 wide, 8 deep, 16 heads at base.
        patch_shape: (freq, time) of a patch, in mel bands and frames.
        options: EMA, standardisation and form of the target.

    Source: arXiv 2210.14648 and 2404.06095; the target of "blocks" is that of the published code. Deviates: padding is
    excluded from the loss; standardising over the batch and the target of "encoder" are melmask's own.
    """

    loss_label = "2 − 2 cos to the target"
    loss_scale = "0 is the direction of the target's features, 2 is unrelated to it"

    @dataclass(frozen=True)
    class Options:
        """M2D's own settings.

        Args:
            ema_start: decay of the EMA at the first step, in [0, 1].
            ema_end: decay at the last step, linear between.
            standardise: what each target is standardised over: "patch", its own features, or "batch", for every
                feature all masked patches of the batch. Over the batch, what all targets share is no longer rewarded,
                so that an EMA fast enough for runs of a few thousand steps does not collapse.
            target: what of the target encoder is its own and moved by the EMA: the whole "encoder", which starts as a
                copy of the online one, or its "blocks" and final norm, which start from random values of their own,
                while patch embedding and class token are the online encoder's.

        Raises:
            ValueError: a decay lies outside [0, 1], or standardise or target has neither form.
        """

        ema_start: float = 0.99995
        ema_end: float = 0.99999
        standardise: Standardise = "patch"
        target: Target = "encoder"

        def __post_init__(self) -> None:
            for name, decay in (("ema_start", self.ema_start), ("ema_end", self.ema_end)):
                if not 0.0 <= decay <= 1.0:
                    raise ValueError(f"{name} is a decay in [0, 1], got {decay}")
            if self.standardise not in get_args(Standardise):
                raise ValueError(f'm2d standardises over a "patch" or the "batch", got {self.standardise!r}')
            if self.target not in get_args(Target):
                raise ValueError(f'the target of m2d is an "encoder" or "blocks" of its own, got {self.target!r}')

    def __init__(self, encoder: Size, decoder: Size, patch_shape: tuple[int, int], options: Any = None) -> None:
        super().__init__(encoder, decoder, patch_shape, options)
        if self.options.target == "encoder":
            self.target = copy.deepcopy(self.encoder).requires_grad_(False)
        else:
            self.target = Encoder(encoder, patch_shape).requires_grad_(False)
            self.target.patch_embed, self.target.cls_token = self.encoder.patch_embed, self.encoder.cls_token
        self.predictor = MaskedDecoder(decoder, encoder.dim, encoder.dim)

    def loss(
        self, patches: Float[Tensor, "b n p"], grid: PatchGrid, mask: Mask, valid: Bool[Tensor, "b n"] | None = None
    ) -> Loss:
        """The loss of predicting the target encoder's features of the masked patches; as `Framework.loss`."""
        latent = self.encoder(patches, grid, mask.visible)
        predicted = self.predictor(latent, grid, mask)
        with torch.no_grad():
            target = self.target(patches, grid, mask.masked)[:, 1:].float()
            if self.options.standardise == "patch":
                target = standardised_over_features(target)
            else:
                target = standardised_over_batch(target, counted(mask, valid))
        per_patch = unit_distance(predicted.float(), target)
        return Loss(mean_over_valid(per_patch, mask, valid), per_patch.detach(), latent[:, 1:].detach())

    def cost(self, num_visible: int, num_masked: int) -> Cost:
        """Both encoders, the predictor and the EMA; as `Framework.cost`."""
        compared_values = 3 * self.encoder.size.dim  # the cosine keeps prediction, target and their product
        return Cost(
            passes=(
                encoder_pass(self.encoder, num_visible),
                self.predictor.cost(num_visible, num_masked, compared_values, "predictor"),
                encoder_pass(self.target, num_masked, "target", is_trained=False),
            ),
            after_step=EMA_OPERATIONS * sum(parameter.numel() for parameter in self._moved(self.target)),
        )

    def encoders(self) -> dict[str, Encoder]:
        """The online encoder, and "ema", the target encoder."""
        return {"online": self.encoder, "ema": self.target}

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Move what is the target encoder's own towards the online one, by the EMA's decay at that share of the run."""
        start, end = self.options.ema_start, self.options.ema_end
        decay = start + (end - start) * progress
        torch._foreach_lerp_(self._moved(self.target), self._moved(self.encoder), 1.0 - decay)

    def _moved(self, encoder: Encoder) -> list[Tensor]:
        """The parameters of either encoder that the EMA concerns."""
        if self.options.target == "encoder":
            return list(encoder.parameters())
        return [*encoder.blocks.parameters(), *encoder.norm.parameters()]


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
