"""The model that fine-tuning trains: an encoder with a linear head, and its files."""

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor, nn

from melmask.data.store import Store
from melmask.encoders.features import FeatureSettings, Pooling
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.evaluation.metrics import score_of
from melmask.evaluation.splits import Split
from melmask.evaluation.task import Task
from melmask.files import read_tensors, write_tensors
from melmask.finetune.augment import Lines
from melmask.finetune.batches import equal_chunks
from melmask.finetune.recipe import ClassLoss, Frequency
from melmask.nn.encoder_file import ENCODER, EncoderFile
from melmask.probes.base import as_tensor, loss_of, probabilities, with_one
from melmask.probes.logistic import LogisticProbe
from melmask.probes.run import chosen_by_parts
from melmask.types import PatchGrid

HEAD = "head.safetensors"
HEAD_FORMATS = ("melmask-head-1", "melmask-head-2")  # the first has stacked rows and the cross-entropy's probabilities
VARIANCE_EPS = 1e-5  # as in batch normalisation, so that constant features are not amplified


class FinetunedModel(nn.Module):
    """A copy of an encoder, and a linear head from its clip embedding to the classes.

    The embedding is that of `PretrainedEncoder`: class token dropped, patches of a time step stacked over frequency,
    pooled over time; or its mean over the rows of patches. The head is initialised with zeros or with a probe's
    weights, never at random, so that seeds differ only in the order of clips, crops and augmentation.

    Args:
        start: the encoder to start from, with its front end, maximum input length and pooling.
        classes: their names, in the order of the outputs.
        is_multilabel: whether a clip may have any number of classes.
        loss, frequency, batch_norm: see `FinetuneRecipe`.
    """

    mean: Tensor
    scale: Tensor
    probe_weight: Tensor
    probe_bias: Tensor

    def __init__(
        self,
        start: PretrainedEncoder,
        classes: Sequence[str],
        is_multilabel: bool,
        *,
        loss: ClassLoss = "cross-entropy",
        frequency: Frequency = "stacked",
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.front_end, self.crop_frames, self.device = start.front_end, start.crop_frames, start.device
        self.settings = FeatureSettings("last", start.settings.pooling)
        self.classes, self.is_multilabel = tuple(classes), is_multilabel
        self.is_binary = is_multilabel or loss == "binary"
        self.encoder = copy.deepcopy(start.encoder)
        self.frequency = frequency
        num_dims = num_head_dims(start, frequency)
        self.head = nn.Linear(num_dims, len(self.classes))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("mean", torch.zeros(num_dims))
        self.register_buffer("scale", torch.ones(num_dims))
        self.batch_norm = BatchNorm(num_dims) if batch_norm else None
        self.register_buffer("probe_weight", torch.zeros_like(self.head.weight))
        self.register_buffer("probe_bias", torch.zeros_like(self.head.bias))
        self.to(self.device)

    def as_encoder(self) -> PretrainedEncoder:
        """The encoder without its head, sharing the weights."""
        return PretrainedEncoder(self.encoder, self.front_end, self.crop_frames, self.settings)

    def standardise(self, store: Store, rows: Sequence[int]) -> Float[Tensor, "clip dim"]:
        """Standardise the head's input by mean and standard deviation of the current embeddings of these clips.

        Returns:
            The standardised embeddings of these clips.
        """
        features = self._embed(store, rows)
        self.mean.copy_(features.mean(dim=0))
        self.scale.copy_((features.var(dim=0, correction=0) + VARIANCE_EPS).rsqrt())
        return self._standardised(features)

    def initialise_head(self, store: Store, task: Task, split: Split, *, on_both: bool) -> float:
        """Standardise the embeddings, and initialise the head with the weights of a logistic probe on them.

        Args:
            store: log-mels of the task's clips.
            task: labels.
            split: the training clips, and the validation clips; its parts of both, or else the validation clips, choose
                the probe's regularisation.
            on_both: fit the final probe to both.

        Returns:
            The mean loss of the training clips.

        Source: linear probing, then fine-tuning, arXiv 2202.10054. Deviates: not at all; the probe is ours.
        """
        train_x = self.standardise(store, split.train.tolist()).cpu().numpy()
        valid_x = self._standardised(self._embed(store, split.valid.tolist())).cpu().numpy()
        train_y, valid_y = task.targets[split.train], task.targets[split.valid]
        rows, x, y = (
            np.concatenate(both) for both in ((split.train, split.valid), (train_x, valid_x), (train_y, valid_y))
        )
        probe = chosen_by_parts(
            LogisticProbe(), rows, split.parts, lambda mine: (x[mine], y[mine]),
            num_classes=len(self.classes), score=score_of,
        )  # fmt: skip
        weight = probe.solve(train_x, train_y, valid_x, valid_y, len(self.classes), score=score_of, on_both=on_both)
        self.probe_weight.copy_(weight[:-1].T)
        self.probe_bias.copy_(weight[-1])
        self.head.load_state_dict({"weight": self.probe_weight, "bias": self.probe_bias})
        return float(loss_of(with_one(train_x) @ weight, as_tensor(train_y)))

    @torch.no_grad()
    def interpolate_weights(self, start: PretrainedEncoder, share: float) -> None:
        """Interpolate all weights linearly between the current ones and the initial ones, which get ``share``.

        Args:
            start: the encoder that training started from; the head's initial weights are the probe's.
            share: of the initial weights; 0 changes nothing.

        Source: WiSE-FT, arXiv 2109.01903. Deviates: the initial head is a probe, not made from the classes' names.
        """
        for parameter, initial in zip(self.encoder.parameters(), start.encoder.parameters(), strict=True):
            parameter.lerp_(initial, share)
        self.head.weight.lerp_(self.probe_weight, share)
        self.head.bias.lerp_(self.probe_bias, share)

    def forward(
        self, patches: Float[Tensor, "b n p"], grid: PatchGrid, lines: Lines | None = None
    ) -> Float[Tensor, "b num_classes"]:
        """Logits of the classes; arguments as of `features`."""
        return self.classify(*self.features(patches, grid, lines))

    def features(
        self, patches: Float[Tensor, "b n p"], grid: PatchGrid, lines: Lines | None = None
    ) -> tuple[Float[Tensor, "b dim"], Float[Tensor, "b dim"] | None]:
        """Clip embeddings, and their weights in the head's input if there are any.

        Of stacked rows, those that are masked are zero for the head, and the visible ones are scaled up, as in dropout,
        so that the expected input of the head is the same. The mean over rows is over the visible ones.

        Args:
            patches: of whole inputs, without padding.
            grid: their layout; an input longer than the encoder's maximum is divided into equal chunks.
            lines: the visible rows and columns of patches in each chunk; None for all.
        """
        num_chunks, num_steps = equal_chunks(grid.time, self.crop_frames // self.encoder.patch_shape[1])
        assert num_steps == grid.time
        chunk = replace(grid, time=grid.time // num_chunks)
        chunks = patches.unflatten(1, (grid.freq, num_chunks, chunk.time)).transpose(1, 2).flatten(2, 3).flatten(0, 1)
        index = None if lines is None else lines.index(chunk).repeat_interleave(num_chunks, dim=0)
        tokens = self.encoder(chunks, chunk, index)[:, 1:].float()
        num_rows = grid.freq if lines is None else lines.rows.shape[1]
        by_time = tokens.unflatten(1, (num_rows, -1)).unflatten(0, (-1, num_chunks)).transpose(1, 2).flatten(2, 3)
        by_row = pool(by_time, self.settings.pooling)
        if self.frequency == "mean":
            return by_row.mean(dim=2).flatten(1), None
        if lines is None:
            return by_row.flatten(1), None
        row_index = lines.rows[:, None, :, None]
        features = by_row.new_zeros(*by_row.shape[:2], grid.freq, by_row.shape[3])
        features = features.scatter(2, row_index.expand_as(by_row), by_row)
        weight = by_row.new_zeros(len(by_row), 1, grid.freq, 1).scatter(2, row_index, grid.freq / num_rows)
        return features.flatten(1), weight.expand_as(features).flatten(1)

    def classify(
        self, features: Float[Tensor, "b dim"], weight: Float[Tensor, "b dim"] | None = None
    ) -> Float[Tensor, "b num_classes"]:
        """Logits of clip embeddings, which are standardised and then optionally weighted."""
        standardised = self._standardised(features)
        return self.head(standardised if weight is None else standardised * weight)

    @torch.no_grad()
    def predict(self, store: Store, rows: Sequence[int] | None = None) -> Float32[np.ndarray, "clip num_classes"]:
        """Class probabilities of a store's clips, of any length; each class on its own with the binary loss.

        Args:
            store: packed log-mels, made with this encoder's log-mel settings.
            rows: of the store's table; None for all.

        Raises:
            ValueError: the store was made with other log-mel settings.
        """
        self.eval()
        return probabilities(self.classify(self._embed(store, rows)).float().cpu(), self.is_binary)

    @torch.no_grad()
    def linear_head(self) -> tuple[Float[Tensor, "dim num_classes"], Float[Tensor, " num_classes"]]:
        """Weights and bias of the head on the embeddings of `as_encoder`: standardisation and row mean are in them."""
        mean, scale = (self.mean, self.scale) if self.batch_norm is None else self.batch_norm.as_standardisation()
        weight = self.head.weight.double() * scale.double()
        bias = self.head.bias.double() - weight @ mean.double()
        if self.frequency == "mean":
            num_rows = self.front_end.spec.num_mels // self.encoder.patch_shape[0]
            by_row = weight.unflatten(1, (-1, 1, self.encoder.size.dim)).expand(-1, -1, num_rows, -1) / num_rows
            weight = by_row.flatten(1)
        return weight.T.cpu(), bias.cpu()

    def save(self, folder: Path) -> None:
        """Write encoder and head into a folder, which `FinetunedModel.load` and `PretrainedEncoder.load` read."""
        folder.mkdir(parents=True, exist_ok=True)
        EncoderFile(self.encoder, self.front_end, self.crop_frames).save(folder / ENCODER)
        mean, scale = (self.mean, self.scale) if self.batch_norm is None else self.batch_norm.as_standardisation()
        tensors = {"weight": self.head.weight, "bias": self.head.bias, "mean": mean, "scale": scale}
        form = {"classes": json.dumps(self.classes), "is_multilabel": json.dumps(self.is_multilabel)}
        form |= {"pooling": self.settings.pooling, "frequency": self.frequency}
        form["loss"] = "binary" if self.is_binary else "cross-entropy"
        write_tensors(folder / HEAD, tensors, {"format": HEAD_FORMATS[-1], **form})

    @staticmethod
    def load(folder: Path) -> "FinetunedModel":
        """Read what `save` wrote.

        Raises:
            ValueError: a file is missing, damaged or of another format.
        """
        tensors, metadata = read_tensors(folder / HEAD)
        if metadata.get("format") not in HEAD_FORMATS:
            raise ValueError(f"{folder / HEAD} is not a melmask head (format {metadata.get('format')!r})")
        settings = FeatureSettings("last", metadata.get("pooling", "mean"))  # type: ignore[arg-type]
        saved = EncoderFile.load(folder / ENCODER)
        start = PretrainedEncoder(saved.encoder, saved.front_end, saved.crop_frames, settings)
        model = FinetunedModel(
            start,
            json.loads(metadata["classes"]),
            json.loads(metadata["is_multilabel"]),
            loss=metadata.get("loss", "cross-entropy"),  # type: ignore[arg-type]
            frequency=metadata.get("frequency", "stacked"),  # type: ignore[arg-type]
        )
        if tensors["weight"].shape != model.head.weight.shape:
            raise ValueError(f"{folder / HEAD} is of another encoder than {folder / ENCODER}: copy both together")
        model.head.load_state_dict({"weight": tensors["weight"], "bias": tensors["bias"]})
        model.mean.copy_(tensors["mean"])
        model.scale.copy_(tensors["scale"])
        return model

    def _embed(self, store: Store, rows: Sequence[int] | None) -> Float[Tensor, "clip dim"]:
        features = torch.from_numpy(self.as_encoder().embed_store(store, rows)).to(self.device)
        if self.frequency == "stacked":
            return features
        num_rows = self.front_end.spec.num_mels // self.encoder.patch_shape[0]
        return features.unflatten(1, (-1, num_rows, self.encoder.size.dim)).mean(dim=2).flatten(1)

    def _standardised(self, features: Float[Tensor, "b dim"]) -> Float[Tensor, "b dim"]:
        if self.batch_norm is not None:
            return self.batch_norm(features)
        return (features - self.mean) * self.scale


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation without weights; a batch of a single clip, which has no variance, has the running one."""

    def __init__(self, num_dims: int) -> None:
        super().__init__(num_dims, eps=VARIANCE_EPS, affine=False)

    def forward(self, input: Float[Tensor, "b dim"]) -> Float[Tensor, "b dim"]:
        """Normalise by the batch in training, by running statistics in evaluation."""
        if self.training and len(input) > 1:
            return super().forward(input)
        mean, scale = self.as_standardisation()
        return (input - mean) * scale

    def as_standardisation(self) -> tuple[Float[Tensor, " dim"], Float[Tensor, " dim"]]:
        """The running mean, and one over the running standard deviation."""
        assert self.running_mean is not None and self.running_var is not None
        return self.running_mean, (self.running_var + self.eps).rsqrt()


def num_head_dims(start: PretrainedEncoder, frequency: Frequency) -> int:
    """Length of the head's input: that of an embedding, or a row's share of it if rows are averaged."""
    num_rows = start.spec.num_mels // start.encoder.patch_shape[0]
    return start.num_dims if frequency == "stacked" else start.num_dims // num_rows


def pool(steps: Float[Tensor, "b row time d"], pooling: Pooling) -> Float[Tensor, "b statistic row d"]:
    """Statistics over time as in `melmask.encoders.features.Pool`, differentiable; constant features have no gradient.

    >>> pool(torch.tensor([1.0, 5.0]).view(1, 1, 2, 1), "mean+std").flatten().tolist()
    [3.0, 2.0]
    """
    statistics = [steps.mean(dim=2)]
    if pooling == "mean+std":
        tiny = torch.finfo(steps.dtype).tiny  # the gradient of the square root is infinite at 0
        statistics.append(steps.var(dim=2, correction=0).clamp(min=tiny).sqrt())
    if pooling == "mean+max":
        statistics.append(steps.amax(dim=2))
    return torch.stack(statistics, dim=1)


def soft_cross_entropy(
    logits: Float[Tensor, "b num_classes"],
    targets: Float[Tensor, "b num_classes"] | Bool[Tensor, "b num_classes"],
    is_binary: bool,
    smoothing: float = 0.0,
) -> Float[Tensor, " b"]:
    """Cross-entropy of each clip with soft targets, or binary cross-entropy, averaged over classes.

    Args:
        logits: of the classes.
        targets: each clip's shares of the classes.
        is_binary: whether the loss is the binary one, of each class on its own.
        smoothing: share of the targets that is spread over all classes.

    >>> soft_cross_entropy(torch.zeros(1, 4), torch.tensor([[0.5, 0.5, 0.0, 0.0]]), is_binary=False).exp().item()
    4.0
    """
    num_classes = logits.shape[1]
    targets = targets.float()
    targets = targets + smoothing * ((0.5 if is_binary else 1 / num_classes) - targets)
    if is_binary:
        return nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)
    return nn.functional.cross_entropy(logits, targets, reduction="none")
