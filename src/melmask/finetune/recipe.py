"""Every setting of a fine-tuning, with named defaults."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from melmask.encoders.features import Pooling


@dataclass(frozen=True)
class FinetuneRecipe:
    """Every setting of a fine-tuning; with the encoder, the task and the seed it decides the result.

    Args:
        optimiser: SGD with momentum 0.9, or AdamW.
        learning_rate: its peak, of the head and, with layer_decay 1, of everything.
        layer_decay: each layer below the head learns at this share of the rate of the one above it; 1 is all alike.
        weight_decay: on matrices, none on norms, biases and the class token.
        batch_size: clips in one step.
        epochs: passes over the training clips; the one with the best validation score counts, but for train_on_valid.
        warmup_epochs: the learning rate rises linearly, then falls to zero by a cosine.
        crop_frames: longest input of the encoder, 0 for what it was trained on; longer ones are cut into chunks, whose
            time steps are pooled together.
        excerpt_frames: longest part of a clip in training, at a random place; 0 is crop_frames, and so a single chunk.
        mixup: alpha of the Beta distribution of mixup's shares; 0 is no mixup.
        resized_crop: stretch a random rectangle of each spectrogram to its size.
        max_hidden_bands: widest stripe of mel bands that is hidden.
        max_hidden_frames: widest stripe of frames that is hidden.
        patch_mask_ratio: share of the patches masked in whole rows and columns, in training only.
        label_smoothing: share of each label that is spread over all classes (to one half, with several labels a clip).
        pooling: statistics over the time steps of a clip that the head reads.
        head: where the head starts: at zeros, or at the solution of a logistic probe on the encoder as it is, which is
            then epoch 0 and counts if no later one has a better validation score.
        start_share: share of the start, encoder and probe, in the weights that are kept; the rest is that of the epoch
            that counts.
        train_on_valid: train on the validation clips too, as the probe does once it has chosen its strength; with
            nothing left to choose an epoch by, the last one counts.
        freeze_patch_embed: leave the patch embedding as it was pretrained.
        standardise: give the head features of zero mean and unit deviation, as measured on the training clips before
            training and fixed then.
        grad_clip: largest norm of the gradient.
        precision: "auto" takes bf16 autocast where the hardware computes in it.

    Raises:
        ValueError: a setting is out of range.
    """

    optimiser: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    layer_decay: float = 1.0
    weight_decay: float = 0.0
    batch_size: int = 64
    epochs: int = 200
    warmup_epochs: int = 5
    crop_frames: int = 0
    excerpt_frames: int = 0
    mixup: float = 0.0
    resized_crop: bool = False
    max_hidden_bands: int = 0
    max_hidden_frames: int = 0
    patch_mask_ratio: float = 0.0
    label_smoothing: float = 0.0
    pooling: Pooling = "mean"
    head: Literal["zeros", "probe"] = "zeros"
    start_share: float = 0.0
    train_on_valid: bool = False
    freeze_patch_embed: bool = False
    standardise: bool = False
    grad_clip: float = math.inf
    precision: Literal["auto", "float32", "bf16"] = "auto"

    def __post_init__(self) -> None:
        for name in ("learning_rate", "batch_size", "epochs", "grad_clip", "layer_decay"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        lengths = ("crop_frames", "excerpt_frames", "max_hidden_bands", "max_hidden_frames")
        for name in ("weight_decay", "mixup", *lengths):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("patch_mask_ratio", "label_smoothing", "start_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is a share in [0, 1), got {getattr(self, name)}")
        if self.layer_decay > 1:
            raise ValueError(f"layer_decay is a share in (0, 1], got {self.layer_decay}")
        if self.head == "probe" and not self.standardise:
            raise ValueError("a head that starts at a probe reads standardised features: set standardise")
        if self.start_share and self.head != "probe":
            raise ValueError(
                f"start_share {self.start_share} of a head of zeros would only weaken it: set head to probe"
            )
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(
                f"warmup_epochs must lie in [0, epochs), got {self.warmup_epochs} of {self.epochs}: shorten the warm-up"
            )


# The first five follow the fine-tuning table of M2D (arXiv 2210.14648, 2404.06095), whose models are of base size. They
# were written down from memory and not checked against the print: a starting point, not a reproduction. Known to
# deviate: a "mixup ratio" is read as alpha; AudioSet-2M's clips are not drawn by the rarity of their classes, and its
# optimiser, which we remember as LARS at 2.0, is SGD at the rate of AudioSet-20K; positions are sines and cosines at
# any length and never adjusted; the head starts at zero.
_PAPER = FinetuneRecipe(
    optimiser="sgd", learning_rate=0.5, batch_size=64, resized_crop=True, max_hidden_bands=30, patch_mask_ratio=0.5
)
_AUDIOSET = replace(_PAPER, crop_frames=1008, max_hidden_frames=192)

FINETUNE_RECIPES: dict[str, FinetuneRecipe] = {
    "esc50": replace(_PAPER, batch_size=128, crop_frames=512, max_hidden_bands=15, max_hidden_frames=48),
    "spcv2": replace(_PAPER, batch_size=128, mixup=0.3, max_hidden_frames=48),
    "vc1": replace(
        _PAPER, optimiser="adamw", learning_rate=5e-4, epochs=50, resized_crop=False, max_hidden_frames=48,
        patch_mask_ratio=0.0,
    ),
    "as20k": replace(_AUDIOSET, mixup=0.3),
    "as2m": replace(_AUDIOSET, mixup=0.5, epochs=70, warmup_epochs=15, resized_crop=False),
    # Our own, for at most a few thousand clips and a CPU.
    "small": FinetuneRecipe(
        learning_rate=2e-4, layer_decay=0.75, weight_decay=0.05, batch_size=32, epochs=16, warmup_epochs=1,
        excerpt_frames=1008, max_hidden_bands=4, max_hidden_frames=8, patch_mask_ratio=0.3, label_smoothing=0.1,
        pooling="mean+std", head="probe", start_share=0.5, train_on_valid=True, standardise=True, grad_clip=1.0,
    ),
}  # fmt: skip
