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
from melmask.encoders.features import FeatureSettings, Pooling
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.evaluation.metrics import score_of
from melmask.evaluation.task import Split, Task
from melmask.files import read_tensors, write_tensors
from melmask.finetune.augment import Lines
from melmask.finetune.batches import evenly_cut
from melmask.nn.encoder_file import ENCODER, load_encoder, save_encoder
from melmask.probes.base import as_tensor, loss_of, probabilities, with_one
from melmask.probes.logistic import LogisticProbe
from melmask.types import PatchGrid

HEAD = "head.safetensors"
VARIANCE_EPS = 1e-5  # as of batch normalisation: features that do not vary are not blown up


class TunedEncoder(nn.Module):
    """A copy of an encoder, and a linear map of its clip embedding to the classes.

    The embedding is that of `PretrainedEncoder`: class token dropped, patches of a time step stacked over
    frequency, pooled over time. The head starts at zero or at a probe's solution, so that seeds differ only in what
    training draws.

    Args:
        start: the encoder to begin with, its front end, the longest input, and the pooling.
        classes: their names, in the order of the outputs.
        is_multilabel: whether a clip may have any number of classes.
    """

    mean: Tensor
    scale: Tensor
    probe_weight: Tensor
    probe_bias: Tensor

    def __init__(self, start: PretrainedEncoder, classes: Sequence[str], is_multilabel: bool) -> None:
        super().__init__()
        self.front_end, self.crop_frames, self.device = start.front_end, start.crop_frames, start.device
        self.settings = FeatureSettings(pooling=start.settings.pooling)
        self.classes, self.is_multilabel = tuple(classes), is_multilabel
        self.encoder = copy.deepcopy(start.encoder)
        num_dims = self.frozen().num_dims
        self.head = nn.Linear(num_dims, len(self.classes))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("mean", torch.zeros(num_dims))
        self.register_buffer("scale", torch.ones(num_dims))
        self.register_buffer("probe_weight", torch.zeros_like(self.head.weight))
        self.register_buffer("probe_bias", torch.zeros_like(self.head.bias))
        self.to(self.device)

    def frozen(self) -> PretrainedEncoder:
        """The encoder as it stands, sharing its weights."""
        return PretrainedEncoder(self.encoder, self.front_end, self.crop_frames, self.settings)

    def standardise(self, store: Store, rows: Sequence[int]) -> Float[Tensor, "clip dim"]:
        """From now on the head is given features that, over these clips now, have zero mean and unit deviation.

        Returns:
            What it is given of these clips now.
        """
        features = self._embed(store, rows)
        self.mean.copy_(features.mean(dim=0))
        self.scale.copy_((features.var(dim=0, correction=0) + VARIANCE_EPS).rsqrt())
        return self._standardised(features)

    def start_at_probe(self, store: Store, task: Task, split: Split, *, on_both: bool) -> float:
        """Standardise, and give the head the weights of a logistic probe of the encoder as it stands.

        Args:
            store: log-mels of the task's clips.
            task: labels.
            split: the training clips, and the validation clips, which choose the probe's strength.
            on_both: fit the probe to both in the end.

        Returns:
            The mean loss of the training clips.

        Source: linear probing, then fine-tuning, arXiv 2202.10054. Deviates: not at all; the probe is ours.
        """
        train_x = self.standardise(store, split.train.tolist()).cpu().numpy()
        valid_x = self._standardised(self._embed(store, split.valid.tolist())).cpu().numpy()
        train_y, valid_y = task.targets[split.train], task.targets[split.valid]
        weight = LogisticProbe().solve(
            train_x, train_y, valid_x, valid_y, len(self.classes), score=score_of, on_both=on_both
        )
        self.probe_weight.copy_(weight[:-1].T)
        self.probe_bias.copy_(weight[-1])
        self.head.load_state_dict({"weight": self.probe_weight, "bias": self.probe_bias})
        return float(loss_of(with_one(train_x) @ weight, as_tensor(train_y)))

    @torch.no_grad()
    def move_towards_start(self, start: PretrainedEncoder, share: float) -> None:
        """Put the weights this share of the straight way back to where they began: that encoder, and the probe's head.

        Source: WiSE-FT, arXiv 2109.01903. Deviates: the start's head is a probe, not made of the classes' names.
        """
        for parameter, began in zip(self.encoder.parameters(), start.encoder.parameters(), strict=True):
            parameter.lerp_(began, share)
        self.head.weight.lerp_(self.probe_weight, share)
        self.head.bias.lerp_(self.probe_bias, share)

    def forward(
        self, patches: Float[Tensor, "b n p"], grid: PatchGrid, lines: Lines | None = None
    ) -> Float[Tensor, "b num_classes"]:
        """Logits of the classes.

        A row of patches that is not visible gives the head nothing, and the others count for more in its place, as in
        dropout: on average over the rows drawn, the head is given the same.

        Args:
            patches: of whole inputs, without padding.
            grid: their layout; what is longer than the encoder takes is cut into equal chunks.
            lines: the rows and columns of patches to look at, in each chunk; None for all.
        """
        num_chunks, num_steps = evenly_cut(grid.time, self.crop_frames // self.encoder.patch_shape[1])
        assert num_steps == grid.time
        chunk = PatchGrid(grid.freq, grid.time // num_chunks)
        chunks = patches.unflatten(1, (grid.freq, num_chunks, chunk.time)).transpose(1, 2).flatten(2, 3).flatten(0, 1)
        index = None if lines is None else lines.index(chunk).repeat_interleave(num_chunks, dim=0)
        tokens = self.encoder(chunks, chunk, index)[:, 1:].float()
        num_rows = grid.freq if lines is None else lines.rows.shape[1]
        by_time = tokens.unflatten(1, (num_rows, -1)).unflatten(0, (-1, num_chunks)).transpose(1, 2).flatten(2, 3)
        by_row = pooled(by_time, self.settings.pooling)
        if lines is None:
            return self.classify(by_row.flatten(1))
        place = lines.rows[:, None, :, None]
        features = by_row.new_zeros(*by_row.shape[:2], grid.freq, by_row.shape[3])
        features = features.scatter(2, place.expand_as(by_row), by_row)
        weight = by_row.new_zeros(len(by_row), 1, grid.freq, 1).scatter(2, place, grid.freq / num_rows)
        return self.classify(features.flatten(1), weight.expand_as(features).flatten(1))

    def classify(
        self, features: Float[Tensor, "b dim"], weight: Float[Tensor, "b dim"] | None = None
    ) -> Float[Tensor, "b num_classes"]:
        """Logits of clip embeddings, whose standardised values may be weighted."""
        standardised = self._standardised(features)
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
        """Write encoder and head; the folder is then one that `PretrainedEncoder.load` and `TunedEncoder.load` read."""
        folder.mkdir(parents=True, exist_ok=True)
        save_encoder(folder / ENCODER, self.encoder, self.front_end, self.crop_frames)
        tensors = {"weight": self.head.weight, "bias": self.head.bias, "mean": self.mean, "scale": self.scale}
        form = {"classes": json.dumps(self.classes), "is_multilabel": json.dumps(self.is_multilabel)}
        form["pooling"] = self.settings.pooling
        write_tensors(folder / HEAD, tensors, {"format": "melmask-head-1", **form})

    @staticmethod
    def load(folder: Path) -> "TunedEncoder":
        """What `save` wrote.

        Raises:
            ValueError: a file is missing, damaged or of another form.
        """
        tensors, metadata = read_tensors(folder / HEAD)
        if metadata.get("format") != "melmask-head-1":
            raise ValueError(f"{folder / HEAD} is no melmask head (format {metadata.get('format')!r})")
        settings = FeatureSettings(pooling=metadata.get("pooling", "mean"))  # type: ignore[arg-type]
        start = PretrainedEncoder(*load_encoder(folder / ENCODER), settings)
        tuned = TunedEncoder(start, json.loads(metadata["classes"]), json.loads(metadata["is_multilabel"]))
        if tensors["weight"].shape != tuned.head.weight.shape:
            raise ValueError(f"{folder / HEAD} is of another encoder than {folder / ENCODER}: copy both together")
        tuned.head.load_state_dict({"weight": tensors["weight"], "bias": tensors["bias"]})
        tuned.mean.copy_(tensors["mean"])
        tuned.scale.copy_(tensors["scale"])
        return tuned

    def _embed(self, store: Store, rows: Sequence[int] | None) -> Float[Tensor, "clip dim"]:
        return torch.from_numpy(self.frozen().embed_store(store, rows)).to(self.device)

    def _standardised(self, features: Float[Tensor, "b dim"]) -> Float[Tensor, "b dim"]:
        return (features - self.mean) * self.scale


def pooled(steps: Float[Tensor, "b row time d"], pooling: Pooling) -> Float[Tensor, "b statistic row d"]:
    """The statistics that `Pool` takes, with gradients, of whole clips; where nothing varies the deviation has none.

    >>> pooled(torch.tensor([1.0, 5.0]).view(1, 1, 2, 1), "mean+std").flatten().tolist()
    [3.0, 2.0]
    """
    statistics = [steps.mean(dim=2)]
    if pooling == "mean+std":
        smallest = torch.finfo(steps.dtype).tiny  # the root of 0 has no gradient
        statistics.append(steps.var(dim=2, correction=0).clamp(min=smallest).sqrt())
    if pooling == "mean+max":
        statistics.append(steps.amax(dim=2))
    return torch.stack(statistics, dim=1)


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
