"""The settings of a fine-tuning, and named recipes."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from melmask.encoders.features import Statistics
from melmask.train.ranges import Ranges, check_ranges

RANGES: Ranges = {
    "learning_rate": (math.ulp(0.0), 1e38),
    "batch_size": (1, 2**20),
    "epochs": (1, 10**6),
    "warmup_epochs": (0, 10**6),
    "crop_frames": (0, 10**6),
    "excerpt_frames": (0, 10**6),
    "max_hidden_bands": (0, 10**6),
    "max_hidden_frames": (0, 10**6),
}
ClassLoss = Literal["cross-entropy", "binary"]
Frequency = Literal["stacked", "mean"]


@dataclass(frozen=True)
class FinetuneRecipe:
    """All settings of a fine-tuning; with the encoder, the task and the seed they determine the result.

    A hash of the settings names the folder of the trainings, so another name or default here starts them anew.

    Args:
        optimiser: SGD with momentum 0.9, or AdamW.
        learning_rate: peak learning rate of the head and, with layer_decay 1, of all layers. It belongs to the loss:
            the gradients of the two losses differ by about the number of classes.
        loss: of tasks with one label a clip: cross-entropy of the classes, or "binary", the binary cross-entropy of
            each class, averaged over clips and classes. Multi-label tasks have the binary one in any case.
        layer_decay: ratio of the learning rates of a layer and of the one above it; 1 for equal rates.
        weight_decay: of matrices only, not of norms, biases and the class token.
        beta2: AdamW's decay rate of squared gradients; that of gradients, and SGD's momentum, is 0.9.
        amsgrad: AdamW divides by the largest mean of squared gradients so far.
        batch_size: clips per step.
        epochs: passes over the training clips; the epoch with the best validation score is kept, except with
            train_on_valid.
        warmup_epochs: of linear warm-up, before the cosine decay to zero.
        crop_frames: maximum input length of the encoder, 0 for the one it was trained on; longer inputs are divided
            into chunks, whose time steps are pooled together.
        excerpt_frames: maximum length of the random crop of a clip in training; 0 for crop_frames, that is one chunk.
        mixup: alpha of the Beta distribution of mixup; 0 for no mixup.
        resized_crop: resize a random rectangle of each spectrogram to the size of the whole.
        max_hidden_bands: maximum width of the stripe of mel bands set to the mean.
        max_hidden_frames: maximum width of the stripe of frames set to the mean.
        patch_mask_ratio: share of the patches masked in whole rows and columns, in training only.
        label_smoothing: share of each label that is spread over all classes (towards 0.5 with the binary loss).
        pooling: statistics over the time steps of a clip that the head reads.
        frequency: how the head reads the rows of patches: stacked, each with its own weights, or their mean, which is
            over the visible rows if patches are masked.
        head: initial weights of the head: zeros, or those of a logistic probe on the pretrained encoder. The probe is
            then epoch 0, and is kept if no epoch has a better validation score.
        start_share: weight of the initial encoder and head when the weights kept are interpolated with them.
        train_on_valid: train on the validation clips too, as the probe does once it has chosen its regularisation; the
            last epoch is kept, as there are no clips left to choose by.
        freeze_patch_embed: do not train the patch embedding.
        standardise: standardise the head's input, by mean and standard deviation of the training clips' features before
            training.
        batch_norm: standardise the head's input by mean and variance of the batch in training, and by their running
            means in evaluation: batch normalisation without weights.
        grad_clip: maximum norm of the gradient.
        precision: "auto" for bf16 autocast if the hardware computes in bf16.

    Raises:
        ValueError: a setting is out of range.
    """

    optimiser: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    loss: ClassLoss = "cross-entropy"
    layer_decay: float = 1.0
    weight_decay: float = 0.0
    beta2: float = 0.999
    amsgrad: bool = False
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
    pooling: Statistics = "mean"
    frequency: Frequency = "stacked"
    head: Literal["zeros", "probe"] = "zeros"
    start_share: float = 0.0
    train_on_valid: bool = False
    freeze_patch_embed: bool = False
    standardise: bool = False
    batch_norm: bool = False
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
        for name in ("patch_mask_ratio", "label_smoothing", "start_share", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is a share in [0, 1), got {getattr(self, name)}")
        check_ranges(self, RANGES)
        if self.layer_decay > 1:
            raise ValueError(f"layer_decay is a share in (0, 1], got {self.layer_decay}")
        if self.head == "probe" and not self.standardise:
            raise ValueError("a head that starts from a probe reads standardised features: set standardise")
        if self.head == "probe" and self.loss != "cross-entropy":
            raise ValueError("a head that starts from a probe has the probe's loss: set loss to cross-entropy")
        if self.batch_norm and self.standardise:
            raise ValueError("batch_norm standardises the head's input itself: leave standardise out")
        if self.batch_norm and self.patch_mask_ratio and self.frequency == "stacked":
            raise ValueError(
                "masked rows would count as zeros in the statistics of batch_norm: set frequency to mean, or "
                "patch_mask_ratio to 0"
            )
        if self.start_share and self.head != "probe":
            raise ValueError(
                f"start_share {self.start_share} with a head of zeros would only shrink its weights: set head to probe"
            )
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(
                f"warmup_epochs must be in [0, epochs), got {self.warmup_epochs} of {self.epochs}: shorten the warm-up"
            )


# The first five follow the fine-tuning of M2D (arXiv 2210.14648, 2404.06095), whose models are of base size. Their
# rates belong to the binary loss. They are from memory and from what others report of the papers: `melmask docs
# finetuning` lists what deviates in each.
_PAPER = FinetuneRecipe(
    optimiser="sgd", learning_rate=0.5, loss="binary", batch_size=64, resized_crop=True, max_hidden_bands=30,
    patch_mask_ratio=0.5, frequency="mean", batch_norm=True,
)  # fmt: skip
_AUDIOSET = replace(_PAPER, weight_decay=1e-4, crop_frames=1008, max_hidden_frames=192)

FINETUNE_RECIPES: dict[str, FinetuneRecipe] = {
    "esc50": replace(
        _PAPER, batch_size=128, crop_frames=512, max_hidden_bands=15, max_hidden_frames=48, freeze_patch_embed=True,
    ),
    "spcv2": replace(_PAPER, batch_size=128, mixup=0.3, max_hidden_frames=48),
    "vc1": replace(
        _PAPER, optimiser="adamw", learning_rate=5e-4, beta2=0.95, amsgrad=True, epochs=50, crop_frames=821,
        resized_crop=False, max_hidden_frames=48, patch_mask_ratio=0.0, frequency="stacked",
    ),
    "as20k": replace(_AUDIOSET, mixup=0.3),
    "as2m": replace(_AUDIOSET, mixup=0.5, epochs=70, warmup_epochs=15, resized_crop=False),
    # Our own, for up to a few thousand clips on a CPU.
    "small": FinetuneRecipe(
        learning_rate=2e-4, loss="cross-entropy", layer_decay=0.75, weight_decay=0.05, batch_size=32, epochs=16,
        warmup_epochs=1, excerpt_frames=1008, max_hidden_bands=4, max_hidden_frames=8, patch_mask_ratio=0.3,
        label_smoothing=0.1, pooling="mean+std", head="probe", start_share=0.5, train_on_valid=True, standardise=True,
        grad_clip=1.0,
    ),
}  # fmt: skip
