"""MSM-MAE: rebuild the masked patches of a log-mel spectrogram."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from melmask.frameworks.base import Loss, MaskedDecoder, mean_over_valid, normalised_patches
from melmask.nn.vit import Encoder, Size
from melmask.types import Mask, PatchGrid


class MSMMAE(nn.Module):
    """Masked spectrogram modelling with a masked autoencoder.

    The encoder sees the visible patches; a light decoder sees its output at their places and a learnt token at the
    masked ones, and predicts each masked patch's values, normalised to zero mean and unit variance.

    Args:
        encoder: width, depth and heads of the encoder.
        decoder: the same of the decoder; 384 wide, 4 deep, 6 heads at base.
        patch_shape: (freq, time) of a patch.

    Source: arXiv 2204.12260 after MAE, arXiv 2111.06377. Deviates: padding is left out of the loss.
    """

    def __init__(self, encoder: Size, decoder: Size, patch_shape: tuple[int, int]) -> None:
        super().__init__()
        self.encoder = Encoder(encoder, patch_shape)
        self.decoder = MaskedDecoder(decoder, encoder.dim, patch_shape[0] * patch_shape[1])

    def forward(
        self, patches: Float[Tensor, "b n p"], grid: PatchGrid, mask: Mask, valid: Bool[Tensor, "b n"] | None = None
    ) -> Loss:
        """The loss of predicting the masked patches from the visible ones.

        Args:
            patches: the normalised log-mel input.
            grid: its layout.
            mask: which patches are visible and masked.
            valid: False for padding, which is not counted in the loss.
        """
        latent = self.encoder(patches, grid, mask.visible)
        predicted = self.decoder(latent, grid, mask)
        target = normalised_patches(patches, mask)
        per_patch = (predicted.float() - target).square().mean(dim=2)
        return Loss(mean_over_valid(per_patch, mask, valid), per_patch.detach(), latent[:, 1:].detach())

    def encoders(self) -> dict[str, Encoder]:
        """The one encoder."""
        return {"online": self.encoder}

    def after_step(self, progress: float) -> None:
        """Nothing follows an optimiser step here."""
