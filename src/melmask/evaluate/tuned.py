"""An encoder with a linear head: what fine-tuning trains, and how it is kept."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor, nn

from melmask.data.store import Store
from melmask.evaluate.augment import Lines
from melmask.evaluate.base import probabilities
from melmask.evaluate.embed import FrozenEncoder
from melmask.train.checkpoint import ENCODER, load_encoder, read_tensors, save_atomic, save_encoder
from melmask.types import PatchGrid

HEAD = "head.safetensors"
VARIANCE_EPS = 1e-5  # as of batch normalisation: features that do not vary are not blown up


class TunedEncoder(nn.Module):
    """A copy of an encoder, and a linear map of its clip embedding to the classes.

    The embedding is that of `FrozenEncoder`: class token dropped, patches of a time step stacked over frequency, mean
    over time. The head starts at zero, so that seeds differ in what training draws only.

    Args:
        start: the encoder to begin with, its front end, and the longest input.
        classes: their names, in the order of the outputs.
        is_multilabel: whether a clip may have any number of classes.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, start: FrozenEncoder, classes: Sequence[str], is_multilabel: bool) -> None:
        super().__init__()
        self.front_end, self.crop_frames, self.device = start.front_end, start.crop_frames, start.device
        self.classes, self.is_multilabel = tuple(classes), is_multilabel
        self.encoder = copy.deepcopy(start.encoder)
        self.num_rows = start.spec.num_mels // self.encoder.patch_shape[0]
        num_dims = self.num_rows * self.encoder.size.dim
        self.head = nn.Linear(num_dims, len(self.classes))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("mean", torch.zeros(num_dims))
        self.register_buffer("scale", torch.ones(num_dims))
        self.to(self.device)

    def frozen(self) -> FrozenEncoder:
        """The encoder as it stands, sharing its weights."""
        return FrozenEncoder(self.encoder, self.front_end, self.crop_frames)

    def standardise(self, store: Store, rows: Sequence[int]) -> None:
        """From now on the head is given features that, over these clips now, have zero mean and unit deviation."""
        features = self._embed(store, rows)
        self.mean.copy_(features.mean(dim=0))
        self.scale.copy_((features.var(dim=0, correction=0) + VARIANCE_EPS).rsqrt())

    def forward(
        self, patches: Float[Tensor, "b n p"], grid: PatchGrid, lines: Lines | None = None
    ) -> Float[Tensor, "b num_classes"]:
        """Logits of the classes.

        A row of patches that is not visible gives the head nothing, and the others count for more in its place, as in
        dropout: on average over the rows drawn, the head is given the same.

        Args:
            patches: of whole inputs, without padding.
            grid: their layout.
            lines: the rows and columns of patches to look at; None for all.
        """
        index = None if lines is None else lines.index(grid)
        tokens = self.encoder(patches, grid, index)[:, 1:].float()
        if lines is None:
            return self.classify(tokens.unflatten(1, (grid.freq, grid.time)).mean(dim=2).flatten(1))
        num_rows = lines.rows.shape[1]
        by_row = tokens.unflatten(1, (num_rows, -1)).mean(dim=2)
        place = lines.rows[:, :, None]
        features = by_row.new_zeros(len(by_row), grid.freq, by_row.shape[2])
        features = features.scatter(1, place.expand_as(by_row), by_row)
        weight = by_row.new_zeros(len(by_row), grid.freq, 1).scatter(1, place, grid.freq / num_rows)
        return self.classify(features.flatten(1), weight.expand_as(features).flatten(1))

    def classify(
        self, features: Float[Tensor, "b dim"], weight: Float[Tensor, "b dim"] | None = None
    ) -> Float[Tensor, "b num_classes"]:
        """Logits of clip embeddings, whose standardised values may be weighted."""
        standardised = (features - self.mean) * self.scale
        return self.head(standardised if weight is None else standardised * weight)

    @torch.no_grad()
    def predict(self, store: Store, rows: Sequence[int] | None = None) -> Float32[np.ndarray, "clip num_classes"]:
        """Probabilities of the classes for a store's clips of any length.

        Args:
            store: packed log-mels, made with this encoder's log-mel settings.
            rows: of the store's table; None for all.

        Raises:
            ValueError: the store was made with other log-mel settings.
        """
        return probabilities(self.classify(self._embed(store, rows)).float().cpu(), self.is_multilabel)

    def save(self, folder: Path) -> None:
        """Write encoder and head; the folder is then one that `FrozenEncoder.load` and `TunedEncoder.load` read."""
        folder.mkdir(parents=True, exist_ok=True)
        save_encoder(folder / ENCODER, self.encoder, self.front_end, self.crop_frames)
        tensors = {"weight": self.head.weight, "bias": self.head.bias, "mean": self.mean, "scale": self.scale}
        form = {"classes": json.dumps(self.classes), "is_multilabel": json.dumps(self.is_multilabel)}
        save_atomic(tensors, folder / HEAD, {"format": "melmask-head-1", **form})

    @staticmethod
    def load(folder: Path) -> "TunedEncoder":
        """What `save` wrote.

        Raises:
            ValueError: a file is missing, damaged or of another form.
        """
        tensors, metadata = read_tensors(folder / HEAD)
        if metadata.get("format") != "melmask-head-1":
            raise ValueError(f"{folder / HEAD} is no melmask head (format {metadata.get('format')!r})")
        start = FrozenEncoder(*load_encoder(folder / ENCODER))
        tuned = TunedEncoder(start, json.loads(metadata["classes"]), json.loads(metadata["is_multilabel"]))
        if tensors["weight"].shape != tuned.head.weight.shape:
            raise ValueError(f"{folder / HEAD} is of another encoder than {folder / ENCODER}: copy both together")
        tuned.head.load_state_dict({"weight": tensors["weight"], "bias": tensors["bias"]})
        tuned.mean.copy_(tensors["mean"])
        tuned.scale.copy_(tensors["scale"])
        return tuned

    def _embed(self, store: Store, rows: Sequence[int] | None) -> Float[Tensor, "clip dim"]:
        return torch.from_numpy(self.frozen().embed(store, rows)).to(self.device)


def soft_loss(
    logits: Float[Tensor, "b num_classes"],
    targets: Float[Tensor, "b num_classes"] | Bool[Tensor, "b num_classes"],
    is_multilabel: bool,
    smoothing: float = 0.0,
) -> Float[Tensor, " b"]:
    """Cross-entropy of each clip with shares of classes as targets; with several labels, its binary form, class mean.

    >>> soft_loss(torch.zeros(1, 4), torch.tensor([[0.5, 0.5, 0.0, 0.0]]), is_multilabel=False).exp().item()
    4.0
    """
    num_classes = logits.shape[1]
    targets = targets.float()
    targets = targets + smoothing * ((0.5 if is_multilabel else 1 / num_classes) - targets)
    if is_multilabel:
        return nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)
    return nn.functional.cross_entropy(logits, targets, reduction="none")
