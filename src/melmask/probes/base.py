"""What every probe is, and the few lines that several of them share."""

from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int
from torch import Tensor
from torch.nn import functional as F

Features = Float32[np.ndarray, "_ dim"]
Targets = Int[np.ndarray, " _"] | Bool[np.ndarray, "_ num_classes"]


@runtime_checkable
class Probe(Protocol):
    """A classifier; it may look at ``valid`` to choose settings or epochs, and never sees test labels."""

    is_seeded: ClassVar[bool]  # whether a second seed could give another result

    def fit_predict(
        self, train_x: Features, train_y: Targets, valid_x: Features, valid_y: Targets, test_x: Features,
        *, num_classes: int, multilabel: bool, seed: int,
    ) -> Float32[np.ndarray, "test num_classes"]:  # fmt: skip
        """Probabilities of the classes for each test clip.

        Args:
            train_x, valid_x, test_x: features, already standardised on the training clips.
            train_y, valid_y: a class per clip, or class flags if multilabel.
            num_classes: all of them occur in train_y.
            multilabel: whether a clip may have any number of classes.
            seed: of everything drawn.
        """
        ...


def with_one(x: Features) -> Float32[Tensor, "_ dim1"]:
    """Features and a 1, whose weight is the bias."""
    return F.pad(torch.tensor(x), (0, 1), value=1.0)


def as_tensor(targets: Targets) -> Tensor:
    """Classes as integers, or flags as the floats that the losses want."""
    return torch.tensor(targets, dtype=torch.float32 if targets.ndim == 2 else torch.int64)


def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy; for several labels a clip its sum over classes, each fitted on its own."""
    if targets.ndim == 1:
        return F.cross_entropy(logits, targets)
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(targets)


def probabilities(logits: Tensor, multilabel: bool) -> Float32[np.ndarray, "_ num_classes"]:
    """Of classes that exclude each other, or of each class on its own."""
    return (logits.sigmoid() if multilabel else logits.softmax(dim=1)).numpy()
