"""MSM-MAE: reconstruct the masked patches of a log-mel spectrogram."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from melmask.frameworks.agreement import Agreement, mean_features, other_patches
from melmask.frameworks.base import VARIANCE_EPS, Framework, Loss, MaskedDecoder, mean_over_valid
from melmask.frameworks.cost import Cost, encoder_pass
from melmask.frameworks.cross import CrossDecoder
from melmask.nn.vit import Size
from melmask.patches import place, take
from melmask.types import Mask, PatchGrid

Decoder = Literal["self", "cross"]


class MSMMAE(Framework):
    """Masked spectrogram modelling with a masked autoencoder.

    The encoder takes the visible patches. From its output and a learnt token for each masked patch, a small decoder
    predicts the values of each masked patch, normalised to zero mean and unit variance. The loss is their mean squared
    error.

    Args:
        encoder: width, depth and heads of the encoder.
        decoder: the same of the decoder; 384 wide, 4 deep, 6 heads at base.
        patch_shape: (freq, time) of a patch, in mel bands and frames.
        options: see `MSMMAE.Options`.

    Source: arXiv 2204.12260 after MAE, arXiv 2111.06377. Deviates: padding is excluded from the loss; options that the
    papers do not have.
    """

    @dataclass(frozen=True)
    class Options:
        """What the papers do by default, and what makes a step cheaper or teaches it more.

        Args:
            decoder: "self": visible and masked patches attend to each other, as in the papers. "cross": masked ones
                attend to visible ones alone (`CrossDecoder`).
            decoded_share: share of the masked patches that are predicted in a training step, drawn anew for each sample
                and step; needs the "cross" decoder, whose predictions do not depend on each other.
            agreement: weight of the clip-level loss that is added to the mean error (`Agreement`); 0: none.
            temperature: of that loss.
        """

        decoder: Decoder = "self"
        decoded_share: float = 1.0
        agreement: float = 0.0
        temperature: float = 0.1

        def __post_init__(self) -> None:
            if self.decoder not in get_args(Decoder):
                raise ValueError(f'the decoder of msm-mae is "self" or "cross", got {self.decoder!r}')
            if not 0.0 < self.decoded_share <= 1.0:
                raise ValueError(f"decoded_share is a share in (0, 1], got {self.decoded_share}")
            if self.decoded_share < 1.0 and self.decoder != "cross":
                raise ValueError(f'decoded_share {self.decoded_share} needs the decoder "cross"')
            if not 0.0 <= self.agreement < math.inf:
                raise ValueError(f"agreement is a weight of at least 0, got {self.agreement}")
            if not 0.0 < self.temperature < math.inf:
                raise ValueError(f"temperature must be positive, got {self.temperature}")

    loss_label = "squared error"
    loss_scale = "0 is perfect, 1 is no better than each patch's mean"
    reconstruction_note = (
        "The model predicts masked patches normalised to zero mean and unit variance. To be shown here, each "
        "prediction is given the mean and the deviation of the true patch, which the model does not know: compare the "
        "shapes inside patches, not their brightness."
    )

    def __init__(self, encoder: Size, decoder: Size, patch_shape: tuple[int, int], options: Any = None) -> None:
        super().__init__(encoder, decoder, patch_shape, options)
        kind = CrossDecoder if self.options.decoder == "cross" else MaskedDecoder
        self.decoder = kind(decoder, encoder.dim, patch_shape[0] * patch_shape[1])
        self.agreement = Agreement(encoder.dim, self.options.temperature) if self.options.agreement else None

    def loss(
        self, patches: Float[Tensor, "b n p"], grid: PatchGrid, mask: Mask, valid: Bool[Tensor, "b n"] | None = None
    ) -> Loss:
        """The loss of predicting the values of the masked patches; as `Framework.loss`.

        In training, ``per_patch`` is NaN for masked patches that were not predicted.
        """
        latent = self.encoder(patches, grid, mask.visible)
        predicted_of = self._drawn(mask) if self.training else mask
        predicted = self.decoder(latent, grid, predicted_of)
        target = normalised_patches(patches, predicted_of)
        per_patch = (predicted.float() - target).square().mean(dim=2)
        value = mean_over_valid(per_patch, predicted_of, valid)
        if self.agreement is not None:
            other = other_patches(mask, valid)
            second = self.encoder(patches, grid, other)
            means = (
                mean_features(features[:, 1:], index, valid)
                for features, index in ((latent, mask.visible), (second, other))
            )
            value = value + self.options.agreement * self.agreement(*means)
        return Loss(value, _in_order(per_patch.detach(), predicted_of, mask), latent[:, 1:].detach())

    def _drawn(self, mask: Mask) -> Mask:
        """The mask with a random part of the masked patches, ``decoded_share`` of them and at least one."""
        number = max(1, round(self.options.decoded_share * mask.masked.shape[1]))
        if number == mask.masked.shape[1]:
            return mask
        drawn = torch.rand(mask.masked.shape, device=mask.masked.device).argsort(dim=1)[:, :number]
        return Mask(mask.visible, mask.masked.gather(1, drawn.sort(dim=1).values))

    @property
    def predicts_all(self) -> bool:
        """As of `Framework`."""
        return self.options.decoded_share == 1.0

    def cost(self, num_visible: int, num_masked: int) -> Cost:
        """The encoder, the decoder, and the agreement if there is one; as `Framework.cost`."""
        compared_values = self.decoder.out_dim  # the difference of a prediction from its target
        num_decoded = max(1, round(self.options.decoded_share * num_masked))
        decoder = self.decoder.cost(num_visible, num_decoded, compared_values)
        passes = (encoder_pass(self.encoder, num_visible), decoder)
        if self.agreement is None:
            return Cost(passes)
        return Cost((*passes, self.agreement.cost(self.encoder, num_visible, num_masked)))

    @torch.no_grad()
    def reconstruct(
        self, patches: Float[Tensor, "b n p"], grid: PatchGrid, mask: Mask
    ) -> Float[Tensor, "b n p"] | None:
        """The input with every masked patch replaced by its prediction, at the true patch's mean and deviation."""
        predicted = self.decoder(self.encoder(patches, grid, mask.visible), grid, mask)
        true = take(patches, mask.masked)
        deviation = (true.var(dim=2, keepdim=True) + VARIANCE_EPS).sqrt()
        return place(patches, mask.masked, predicted * deviation + true.mean(dim=2, keepdim=True))


def normalised_patches(patches: Float[Tensor, "b n p"], mask: Mask) -> Float[Tensor, "b m p"]:
    """The masked patches, each with zero mean and unit variance over its values: the decoder's target."""
    target = take(patches, mask.masked).float()
    mean, variance = target.mean(dim=2, keepdim=True), target.var(dim=2, keepdim=True)
    return (target - mean) / torch.sqrt(variance + VARIANCE_EPS)


def _in_order(per_patch: Float[Tensor, "b k"], predicted: Mask, mask: Mask) -> Float[Tensor, "b m"]:
    """The errors of the patches that were predicted, in the order of ``mask.masked``, with NaN for the others."""
    if predicted is mask:
        return per_patch
    by_patch = per_patch.new_full((len(per_patch), mask.num_patches), torch.nan)
    return by_patch.scatter(1, predicted.masked, per_patch).gather(1, mask.masked)
