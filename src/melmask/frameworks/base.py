"""The framework protocol, and what frameworks share: the loss they return and the decoder of masked patches."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from melmask.frameworks.cost import Cost, Pass, Product
from melmask.nn.linear import Linear
from melmask.nn.vit import LAYER_NORM_EPS, Blocks, Encoder, Positions, Size, init_token, init_weights
from melmask.patches import place, take
from melmask.types import Mask, PatchGrid

VARIANCE_EPS = 1e-6  # added to the variance of a patch before it is divided by


@dataclass(frozen=True)
class Loss:
    """The result of one forward pass.

    Args:
        value: the scalar to minimise: the mean of ``per_patch`` over masked patches that are not padding, and what
            a framework adds to it.
        per_patch: the error of every masked patch, in the order of ``mask.masked``.
        features: the online encoder's output for the visible patches, class token dropped; for monitors.
    """

    value: Float[Tensor, ""]
    per_patch: Float[Tensor, "b m"]
    features: Float[Tensor, "b v d"]


@dataclass(frozen=True)
class NoOptions:
    """The options of a framework that has none."""


class Framework(nn.Module, ABC):
    """A model that learns from masks: its networks, its loss, and what follows each optimiser step.

    Training, masking, `melmask.plan` and reports use this interface only. A subclass is trained by its name in
    `melmask.frameworks.FRAMEWORKS`, or by "package.module:Class" if it is defined outside the package. It must also be
    constructible on torch's meta device, where `melmask.plan` counts parameters without allocating them.

    Args:
        encoder: width, depth and heads of the encoder.
        decoder: the same of the network that predicts masked patches.
        patch_shape: (freq, time) of a patch, in mel bands and frames.
        options: an instance of the class's ``Options``; None for its defaults.

    Attributes:
        Options: frozen dataclass of the framework's own settings; raises ValueError for values out of range.
        loss_label: what the error of a patch is, as the label of an axis.
        loss_scale: how to read its values, as part of a caption.
        reconstruction_note: how to read a reconstruction, as a caption; empty if there are none.
    """

    Options: ClassVar[type[Any]] = NoOptions
    loss_label: ClassVar[str] = "loss"
    loss_scale: ClassVar[str] = "the lower, the better the prediction"
    reconstruction_note: ClassVar[str] = ""

    def __init__(self, encoder: Size, decoder: Size, patch_shape: tuple[int, int], options: Any = None) -> None:
        super().__init__()
        self.options = self.Options() if options is None else options
        self.encoder = Encoder(encoder, patch_shape)

    @abstractmethod
    def loss(
        self, patches: Float[Tensor, "b n p"], grid: PatchGrid, mask: Mask, valid: Bool[Tensor, "b n"] | None = None
    ) -> Loss:
        """The loss of predicting the masked patches from the visible ones.

        Args:
            patches: the normalised log-mel input.
            grid: its layout.
            mask: which patches are visible and masked.
            valid: False for padding, which is not counted in the loss; None if there is none.
        """

    @abstractmethod
    def cost(self, num_visible: int, num_masked: int) -> Cost:
        """What a training step computes, by the number of visible and masked patches of a sample."""

    def forward(
        self, patches: Float[Tensor, "b n p"], grid: PatchGrid, mask: Mask, valid: Bool[Tensor, "b n"] | None = None
    ) -> Loss:
        """As `loss`; DistributedDataParallel calls it."""
        return self.loss(patches, grid, mask, valid)

    def encoders(self) -> dict[str, Encoder]:
        """The encoders that a masking strategy can be guided by; a run saves the "online" one."""
        return {"online": self.encoder}

    @property
    def predicts_all(self) -> bool:
        """Whether a training step predicts every masked patch, as strategies need that are guided by the loss."""
        return True

    def after_step(self, progress: float) -> None:
        """Called after every optimiser step.

        Args:
            progress: share of the run that is done, in [0, 1].
        """

    def reconstruct(
        self, patches: Float[Tensor, "b n p"], grid: PatchGrid, mask: Mask
    ) -> Float[Tensor, "b n p"] | None:
        """The input with every masked patch replaced by its prediction.

        Returns:
            Normalised log-mel values; None if the framework predicts something else, as here.
        """
        return None


class MaskedDecoder(nn.Module):
    """A transformer that predicts a vector for every masked patch: MSM-MAE's decoder and M2D's predictor.

    Its tokens are the encoder's output at the visible patches and a learnt token at the masked ones; positions are
    added to both.

    Args:
        size: width, depth and heads.
        encoder_dim: feature width of the encoder's output.
        out_dim: numbers to predict for a masked patch.
    """

    def __init__(self, size: Size, encoder_dim: int, out_dim: int) -> None:
        super().__init__()
        self.size, self.encoder_dim, self.out_dim = size, encoder_dim, out_dim
        self.positions = Positions(size.dim)
        self.embed = Linear(encoder_dim, size.dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, size.dim))
        self.blocks = Blocks(size)
        self.norm = nn.LayerNorm(size.dim, eps=LAYER_NORM_EPS)
        self.pred = Linear(size.dim, out_dim)
        self.apply(init_weights)
        init_token(self.mask_token)

    def forward(self, latent: Float[Tensor, "b t d"], grid: PatchGrid, mask: Mask) -> Float[Tensor, "b m p"]:
        """Predictions for ``mask.masked``.

        Args:
            latent: the class token and then the features of ``mask.visible``: t = v + 1.
            grid: the layout of all patches.
            mask: which of them are visible and masked.
        """
        latent = self.embed(latent)
        tokens = self.mask_token.to(latent.dtype).expand(len(latent), grid.num_patches, -1)
        tokens = place(tokens, mask.visible, latent[:, 1:]) + self.positions(grid, latent)
        tokens = torch.cat([latent[:, :1].to(tokens.dtype), tokens], dim=1)
        return self.pred(self.norm(take(self.blocks(tokens)[:, 1:], mask.masked)))

    def cost(self, num_visible: int, num_masked: int, compared_values: int, name: str = "decoder") -> Pass:
        """Its pass for one sample.

        Args:
            num_visible: visible patches.
            num_masked: masked patches.
            compared_values: float32 values for each masked patch that the loss keeps for the backward pass.
            name: of the part, for tables.
        """
        return Pass(
            name,
            self.size,
            num_visible + num_masked + 1,
            products=(
                Product(num_visible + 1, self.encoder_dim, self.size.dim),
                Product(num_masked, self.size.dim, self.out_dim),
            ),
            kept_values=num_masked * (self.size.dim + compared_values),
        )


def counted(mask: Mask, valid: Bool[Tensor, "b n"] | None) -> Float[Tensor, "b m"]:
    """One for every masked patch that counts in the loss, zero for padding."""
    if valid is None:
        return torch.ones_like(mask.masked, dtype=torch.float32)
    return valid.gather(1, mask.masked).float()


def mean_over_valid(
    per_patch: Float[Tensor, "b m"], mask: Mask, valid: Bool[Tensor, "b n"] | None
) -> Float[Tensor, ""]:
    """The mean error over masked patches, padding excluded; zero if all of them are padding."""
    weight = counted(mask, valid)
    return (per_patch * weight).sum() / weight.sum().clamp(min=1.0)
