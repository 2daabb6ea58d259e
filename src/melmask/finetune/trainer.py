"""Where a fine-tuning stands between two epochs, on disk, so that a killed one goes on to the same end."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from melmask.data.store import Store
from melmask.encoders.features import FeatureSettings
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.evaluation.metrics import score_of
from melmask.evaluation.task import Split, Task
from melmask.files import read_tensors, select_prefix, write_tensors
from melmask.finetune.batches import Crops, Group, read_ahead
from melmask.finetune.model import TunedEncoder, soft_loss
from melmask.finetune.recipe import FinetuneRecipe
from melmask.runtime import autocast_for
from melmask.train.loop import Diverged
from melmask.train.optimiser import clip_gradients, learning_rate

MODEL, BEST, OPTIMISER = "model.", "best.", "optimiser."


def save_halfway(
    path: Path, model: nn.Module, optimiser: Optimizer, best: dict[str, Tensor], described: dict[str, Any]
) -> None:
    """Write weights, those of the best epoch, the optimiser, and what describes them, whole or not at all."""
    tensors = {MODEL + name: tensor for name, tensor in model.state_dict().items()}
    tensors |= {BEST + name: tensor for name, tensor in best.items()}
    for name, parameter in model.named_parameters():
        state = optimiser.state.get(parameter, {})
        tensors |= {f"{OPTIMISER}{name} {key}": value for key, value in state.items() if value is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, tensors, {name: json.dumps(value) for name, value in described.items()})


def load_halfway(path: Path, model: nn.Module, optimiser: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Take up what `save_halfway` wrote; returns the weights of the best epoch and the description.

    Raises:
        ValueError: the file is damaged.
    """
    tensors, described = read_tensors(path)
    model.load_state_dict(select_prefix(tensors, MODEL))
    for name, parameter in model.named_parameters():
        state = select_prefix(tensors, f"{OPTIMISER}{name} ")
        if state:
            optimiser.state[parameter] = {key: value.to(parameter.device) for key, value in state.items()}
    return select_prefix(tensors, BEST), {name: json.loads(value) for name, value in described.items()}


MOMENTUM = 0.9
HALFWAY_EVERY_S = 60.0
SMALLEST_PROBABILITY = 1e-12  # of a class that is there, when the validation loss is counted


@dataclass(frozen=True)
class Epoch:
    """How one epoch of a fine-tuning went.

    Args:
        fold, seed: which training.
        epoch: from 1 on; 0 is the probe that the head starts at, if it does.
        num_epochs: in all.
        loss: mean over the epoch's training clips, with augmentation; of epoch 0, whole clips as they are.
        valid_score: accuracy or mAP on the validation clips; None if they are trained on.
        valid_loss: cross-entropy on the validation clips; None likewise.
    """

    fold: str
    seed: int
    epoch: int
    num_epochs: int
    loss: float
    valid_score: float | None
    valid_loss: float | None

    @property
    def rank(self) -> tuple[float, ...]:
        """The higher, the better: by validation score, then by validation loss; without them, the later."""
        if self.valid_score is None or self.valid_loss is None:
            return (float(self.epoch),)
        return (self.valid_score, -self.valid_loss)


def tune(
    start: PretrainedEncoder,
    store: Store,
    task: Task,
    split: Split,
    recipe: FinetuneRecipe,
    seed: int,
    report: Callable[[Epoch], None] = lambda epoch: None,
    halfway: Path | None = None,
) -> tuple[TunedEncoder, Epoch]:
    """Train a copy of an encoder with a linear head; the epoch with the best validation score counts.

    Of epochs with equal scores, as small validation splits have many, the one with the lowest validation loss counts.
    Where the head starts at a probe, that is epoch 0 and may count. Where the validation clips are trained on, the last
    epoch counts. The labels of the split's test clips are never read.

    Args:
        start: the encoder to begin with.
        store: the task's log-mels; row i is clip i of the task.
        task: labels.
        split: which clips train, and which validate or, if the recipe says so, train as well.
        recipe: every setting.
        seed: of the order of the clips, crops and augmentation.
        report: called after every epoch.
        halfway: a file to go on from if it is there, and to write about once a minute.

    Returns:
        The encoder and head of the epoch that counts, and that epoch.

    Raises:
        ValueError: the recipe's crop is shorter than a patch.
        Diverged: the loss is not finite.

    Source: fine-tuning of M2D, arXiv 2210.14648 and 2404.06095. Deviates: the epoch is chosen on validation clips.
    """
    start = as_read(start, recipe)
    with torch.random.fork_rng(devices=[]):  # the head's own initialisation, overwritten by zeros, draws
        model = TunedEncoder(start, task.classes, task.is_multilabel)
    rows = np.sort(np.concatenate([split.train, split.valid])) if recipe.train_on_valid else split.train
    flags = torch.from_numpy(task.flags[rows]).float()
    crops = Crops(store, rows, flags, recipe, start.front_end, start.encoder.patch_shape, start.crop_frames, seed)
    optimiser = make_optimiser(model, recipe)
    first, best, weights, saved_s = 0, None, model.state_dict(), time.monotonic()
    if halfway and halfway.exists():
        weights, described = load_halfway(halfway, model, optimiser)
        first, best = described["epochs"], Epoch(**described["best"])
    for epoch in _epochs(model, optimiser, crops, recipe, store, task, split, seed, first):
        report(epoch)
        if best is None or epoch.rank > best.rank:
            best, weights = epoch, {name: tensor.clone() for name, tensor in model.state_dict().items()}
        if halfway and 0 < epoch.epoch < recipe.epochs and time.monotonic() - saved_s >= HALFWAY_EVERY_S:
            save_halfway(halfway, model, optimiser, weights, {"epochs": epoch.epoch, "best": asdict(best)})
            saved_s = time.monotonic()
    assert best is not None
    model.load_state_dict(weights)
    if recipe.start_share:
        model.move_towards_start(start, recipe.start_share)
    return model, best


def as_read(start: PretrainedEncoder, recipe: FinetuneRecipe) -> PretrainedEncoder:
    """The encoder with the recipe's crop and pooling.

    Raises:
        ValueError: the crop is shorter than a patch.
    """
    crop_frames = recipe.crop_frames or start.crop_frames
    if crop_frames < start.encoder.patch_shape[1]:
        raise ValueError(f"crop_frames {crop_frames} is shorter than a patch of {start.encoder.patch_shape[1]} frames")
    settings = FeatureSettings(pooling=recipe.pooling)
    return PretrainedEncoder(start.encoder, start.front_end, crop_frames, settings, start.called)


def _epochs(
    model: TunedEncoder,
    optimiser: Optimizer,
    crops: Crops,
    recipe: FinetuneRecipe,
    store: Store,
    task: Task,
    split: Split,
    seed: int,
    first: int,
) -> Iterator[Epoch]:
    """Train on after a number of epochs, and stop after each to look."""
    autocast = autocast_for(recipe.precision, model.device)

    def done(number: int, loss: float) -> Epoch:
        score, valid_loss = None, None
        if not recipe.train_on_valid:
            with autocast():
                score, valid_loss = _validate(model, store, task, split.valid)
        return Epoch(split.name, seed, number, recipe.epochs, loss, score, valid_loss)

    if not first and recipe.head == "probe":
        yield done(0, model.start_at_probe(store, task, split, on_both=recipe.train_on_valid))
    elif not first and recipe.standardise:
        model.standardise(store, split.train.tolist())
    num_steps = recipe.epochs * crops.steps_per_epoch
    losses: list[Tensor] = []
    steps = range(first * crops.steps_per_epoch, num_steps)
    for step, groups in zip(steps, read_ahead(crops.batch, steps), strict=True):
        peak = learning_rate(step, num_steps, recipe.learning_rate, recipe.warmup_epochs / recipe.epochs)
        for layer in optimiser.param_groups:
            layer["lr"] = peak * layer["share"]
        losses.append(_backward(model, groups, recipe, autocast))
        clip_gradients(model, recipe.grad_clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if (step + 1) % crops.steps_per_epoch:
            continue
        number, loss = (step + 1) // crops.steps_per_epoch, float(torch.stack(losses).sum()) / len(crops.rows)
        losses.clear()
        if not np.isfinite(loss):
            raise Diverged(
                f"the loss is not finite in epoch {number} of fold {split.name}, seed {seed}: try a lower learning "
                "rate, a longer warm-up or a grad_clip"
            )
        yield done(number, loss)


def _backward(
    model: TunedEncoder, groups: Sequence[Group], recipe: FinetuneRecipe, autocast: Callable[[], object]
) -> Float[Tensor, ""]:
    """Gradients of the mean loss over a batch; returns the loss summed over its clips."""
    size = sum(len(group.flags) for group in groups)
    total = torch.zeros((), device=model.device)
    for group in groups:
        patches, flags = group.patches.to(model.device), group.flags.to(model.device)
        lines = group.lines
        if lines is not None:
            lines = replace(lines, rows=lines.rows.to(model.device), columns=lines.columns.to(model.device))
        with autocast():  # type: ignore[attr-defined]
            logits = model(patches, group.grid, lines)
        loss = soft_loss(logits.float(), flags, model.is_multilabel, recipe.label_smoothing).sum()
        (loss / size).backward()
        total += loss.detach()
    return total


def _validate(model: TunedEncoder, store: Store, task: Task, rows: np.ndarray) -> tuple[float, float]:
    """The score and the cross-entropy of the validation clips."""
    predicted, flags = model.predict(store, rows.tolist()), task.flags[rows]
    right = np.where(flags, predicted, 1 - predicted if model.is_multilabel else 1.0)
    loss = -np.log(np.maximum(right, SMALLEST_PROBABILITY)).sum(axis=1).mean()
    return score_of(task.targets[rows], predicted), float(loss)


def make_optimiser(model: TunedEncoder, recipe: FinetuneRecipe) -> Optimizer:
    """SGD or AdamW, each layer with its share of the learning rate, weight decay on matrices only.

    The patch embedding is frozen where the recipe says so.

    Source: layer-wise decay of BEiT, arXiv 2106.08254. Deviates: not at all.
    """
    model.encoder.patch_embed.requires_grad_(not recipe.freeze_patch_embed)
    groups: dict[tuple[int, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((_layers_below_head(name, model), parameter.ndim == 2), []).append(parameter)
    settings = [
        {
            "params": parameters,
            "share": recipe.layer_decay**depth,
            "weight_decay": recipe.weight_decay if is_matrix else 0.0,
        }
        for (depth, is_matrix), parameters in groups.items()
    ]
    if recipe.optimiser == "sgd":
        return SGD(settings, recipe.learning_rate, momentum=MOMENTUM, fused=True)
    return AdamW(settings, recipe.learning_rate, fused=True)


def _layers_below_head(name: str, model: TunedEncoder) -> int:
    """0 for the head and the norm before it, 1 for the last block, and so on down to the embeddings."""
    part, *rest = name.removeprefix("encoder.").split(".")
    if part in ("head", "norm"):
        return 0
    depth = model.encoder.size.depth
    return depth - int(rest[0]) if part == "blocks" else depth + 1
