"""MSM-MAE: reconstruct the masked patches of a log-mel spectrogram."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from melmask.frameworks.base import VARIANCE_EPS, Framework, Loss, MaskedDecoder, mean_over_valid
from melmask.frameworks.cost import Cost, encoder_pass
from melmask.nn.vit import Size
from melmask.patches import place, take
from melmask.types import Mask, PatchGrid


class MSMMAE(Framework):
    """Masked spectrogram modelling with a masked autoencoder.

    The encoder takes the visible patches. From its output and a learnt token for each masked patch, a small decoder
    predicts the values of each masked patch, normalised to zero mean and unit variance. The loss is their mean squared
    error.

    Args:
        encoder: width, depth and heads of the encoder.
        decoder: the same of the decoder; 384 wide, 4 deep, 6 heads at base.
        patch_shape: (freq, time) of a patch, in mel bands and frames.
        options: none.

    Source: arXiv 2204.12260 after MAE, arXiv 2111.06377. Deviates: padding is excluded from the loss.
    """

    loss_label = "squared error"
    loss_scale = "0 is perfect, 1 is no better than each patch's mean"
    reconstruction_note = (
        "The model predicts masked patches normalised to zero mean and unit variance. To be shown here, each "
        "prediction is given the mean and the deviation of the true patch, which the model does not know: compare the "
        "shapes inside patches, not their brightness."
    )

    def __init__(self, encoder: Size, decoder: Size, patch_shape: tuple[int, int], options: Any = None) -> None:
        super().__init__(encoder, decoder, patch_shape, options)
        self.decoder = MaskedDecoder(decoder, encoder.dim, patch_shape[0] * patch_shape[1])

    def loss(
        self, patches: Float[Tensor, "b n p"], grid: PatchGrid, mask: Mask, valid: Bool[Tensor, "b n"] | None = None
    ) -> Loss:
        """The loss of predicting the values of the masked patches; as `Framework.loss`."""
        latent = self.encoder(patches, grid, mask.visible)
        predicted = self.decoder(latent, grid, mask)
        target = normalised_patches(patches, mask)
        per_patch = (predicted.float() - target).square().mean(dim=2)
        return Loss(mean_over_valid(per_patch, mask, valid), per_patch.detach(), latent[:, 1:].detach())

    def cost(self, num_visible: int, num_masked: int) -> Cost:
        """The encoder and the decoder; as `Framework.cost`."""
        compared_values = self.decoder.out_dim  # the difference of a prediction from its target
        decoder = self.decoder.cost(num_visible, num_masked, compared_values)
        return Cost((encoder_pass(self.encoder, num_visible), decoder))

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
