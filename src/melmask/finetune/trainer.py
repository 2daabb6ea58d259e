"""One training of a fine-tuning: one split and one seed, resumable between epochs."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer

from melmask.data.store import Store
from melmask.encoders.features import FeatureSettings
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.evaluation.metrics import score_of
from melmask.evaluation.splits import Split
from melmask.evaluation.task import Task
from melmask.fields import fitted, make
from melmask.files import parse_json, select_prefix
from melmask.finetune.batches import ClipBatches, SubBatch, prefetch
from melmask.finetune.model import FinetunedModel, soft_cross_entropy
from melmask.finetune.recipe import FinetuneRecipe
from melmask.runtime import autocast_for
from melmask.threads import following_load
from melmask.train.checkpoint import REMEDY, load_training, save_training
from melmask.train.loop import Diverged
from melmask.train.optimiser import clip_gradients, learning_rate

BEST = "best."  # prefix of the best epoch's weights in a checkpoint
CHECKPOINT_EVERY_S = 60.0
MOMENTUM = 0.9
MIN_PROBABILITY = 1e-12  # of the correct class, in the validation loss


@dataclass(frozen=True, eq=False)
class Training:
    """What one training is made of; the same training gives the same weights.

    Args:
        start: the encoder to start from.
        store: the task's log-mels; row i is clip i of the task.
        task: the labels.
        split: the training clips, and the validation clips, which choose the epoch or, if the recipe says so, are
            trained on too. The labels of the test clips are never read.
        recipe: all settings.
        seed: of the order of clips, crops and augmentation.
    """

    start: PretrainedEncoder
    store: Store
    task: Task
    split: Split
    recipe: FinetuneRecipe
    seed: int

    @property
    def rows(self) -> Int[np.ndarray, " clip"]:
        """The clips to train on."""
        if self.recipe.train_on_valid:
            return np.sort(np.concatenate([self.split.train, self.split.valid]))
        return self.split.train


@dataclass(frozen=True)
class Epoch:
    """The result of one epoch of a training.

    Args:
        fold, seed: of the training.
        epoch: from 1 on; 0 is the probe that the head starts from.
        num_epochs: in total.
        loss: mean over the training clips, as augmented in this epoch; of epoch 0, over the clips as they are.
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
        """The key that orders epochs: validation score, then validation loss; without them, the later is better."""
        if self.valid_score is None or self.valid_loss is None:
            return (float(self.epoch),)
        return (self.valid_score, -self.valid_loss)


def train(
    training: Training, report: Callable[[Epoch], None] = lambda epoch: None, checkpoint: Path | None = None
) -> tuple[FinetunedModel, Epoch]:
    """Train a copy of an encoder with a linear head, and return the weights of the best epoch.

    The best epoch has the highest validation score; of equal scores, which small validation splits often have, the
    lowest validation loss. A head that starts from a probe makes that probe epoch 0. If the validation clips are
    trained on, the last epoch is the best.

    Args:
        training: what to train.
        report: called after every epoch.
        checkpoint: a file to resume from if it exists, and to write about once a minute.

    Returns:
        The model with the weights of the best epoch, and that epoch.

    Raises:
        ValueError: the recipe's crop is shorter than a patch.
        Diverged: the loss is not finite.

    Source: fine-tuning of M2D, arXiv 2210.14648 and 2404.06095. Deviates: the epoch is chosen on validation clips.
    """
    recipe, task = training.recipe, training.task
    start = with_recipe(training.start, recipe)
    with torch.random.fork_rng(devices=[]):  # nn.Linear draws initial weights, although zeros replace them
        model = FinetunedModel(
            start,
            task.classes,
            task.is_multilabel,
            loss=recipe.loss,
            frequency=recipe.frequency,
            batch_norm=recipe.batch_norm,
        )
    flags = torch.from_numpy(task.flags[training.rows]).float()
    batches = ClipBatches(training.store, training.rows, flags, recipe, start, training.seed)
    optimiser = make_optimiser(model, recipe)
    num_done, best, weights, saved_s = 0, None, model.state_dict(), time.monotonic()
    if checkpoint and checkpoint.exists():
        tensors, metadata = load_training(checkpoint, model, optimiser)
        weights = select_prefix(tensors, BEST)
        num_done, best = _progress_of(checkpoint, metadata)
    for epoch in _epochs(training, model, optimiser, batches, num_done):
        report(epoch)
        if best is None or epoch.rank > best.rank:
            best, weights = epoch, {name: tensor.clone() for name, tensor in model.state_dict().items()}
        if checkpoint and 0 < epoch.epoch < recipe.epochs and time.monotonic() - saved_s >= CHECKPOINT_EVERY_S:
            metadata = {"epochs": json.dumps(epoch.epoch), "best": json.dumps(asdict(best))}
            extra = {BEST + name: tensor for name, tensor in weights.items()}
            save_training(checkpoint, model, optimiser, extra, metadata)
            saved_s = time.monotonic()
    assert best is not None
    model.load_state_dict(weights)
    if recipe.start_share:
        model.interpolate_weights(start, recipe.start_share)
    return model, best


def _progress_of(checkpoint: Path, metadata: Mapping[str, str]) -> tuple[int, Epoch]:
    """Epochs done, and the best of them, as a checkpoint's metadata say."""
    try:
        best = parse_json(metadata["best"], "its best epoch is damaged", remedy=REMEDY)
        return fitted(json.loads(metadata["epochs"]), int, "epochs"), make(Epoch, best)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{checkpoint} is no checkpoint of a fine-tuning: {error}; {REMEDY}") from error


def with_recipe(start: PretrainedEncoder, recipe: FinetuneRecipe) -> PretrainedEncoder:
    """The encoder with the recipe's maximum input length and pooling.

    Raises:
        ValueError: the input length is shorter than a patch.
    """
    crop_frames = recipe.crop_frames or start.crop_frames
    if crop_frames < start.encoder.patch_shape[1]:
        raise ValueError(f"crop_frames {crop_frames} is shorter than a patch of {start.encoder.patch_shape[1]} frames")
    settings = FeatureSettings("last", recipe.pooling)
    return PretrainedEncoder(start.encoder, start.front_end, crop_frames, settings, start.called)


def _epochs(
    training: Training, model: FinetunedModel, optimiser: Optimizer, batches: ClipBatches, num_done: int
) -> Iterator[Epoch]:
    """Train the remaining epochs, and yield after each."""
    recipe, split = training.recipe, training.split
    autocast = autocast_for(recipe.precision, model.device)

    def finish(number: int, loss: float) -> Epoch:
        score, valid_loss = None, None
        if not recipe.train_on_valid:
            with autocast():
                score, valid_loss = _validate(training, model)
        return Epoch(split.name, training.seed, number, recipe.epochs, loss, score, valid_loss)

    if not num_done and recipe.head == "probe":
        loss = model.initialise_head(training.store, training.task, split, on_both=recipe.train_on_valid)
        yield finish(0, loss)
    elif not num_done and recipe.standardise:
        model.standardise(training.store, split.train.tolist())
    num_steps = recipe.epochs * batches.steps_per_epoch
    losses: list[Tensor] = []
    steps = range(num_done * batches.steps_per_epoch, num_steps)
    with following_load(model.device) as threads:
        for step, sub_batches in zip(steps, prefetch(batches.batch, steps), strict=True):
            rate = learning_rate(step, num_steps, recipe.learning_rate, recipe.warmup_epochs / recipe.epochs)
            for group in optimiser.param_groups:
                group["lr"] = rate * group["share"]
            with threads.step(sum(part.patches.numel() for part in sub_batches)):
                losses.append(_backward(model, sub_batches, recipe, autocast))
                clip_gradients(model, recipe.grad_clip)
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            if (step + 1) % batches.steps_per_epoch:
                continue
            number, loss = (step + 1) // batches.steps_per_epoch, float(torch.stack(losses).sum()) / len(batches.rows)
            losses.clear()
            if not np.isfinite(loss):
                raise Diverged(
                    f"the loss is not finite in epoch {number} of fold {split.name}, seed {training.seed}: try a lower "
                    "learning rate, a longer warm-up or a grad_clip"
                )
            yield finish(number, loss)


def _backward(
    model: FinetunedModel, sub_batches: Sequence[SubBatch], recipe: FinetuneRecipe, autocast: Callable[[], object]
) -> Float[Tensor, ""]:
    """Accumulate the gradients of a batch's mean loss; returns the loss summed over its clips.

    Each sub-batch has a backward pass of its own, unless batch normalisation needs the features of all of them.
    """
    num_clips = sum(len(part.flags) for part in sub_batches)
    total = torch.zeros((), device=model.device)
    model.train()
    for parts in [sub_batches] if recipe.batch_norm else [[part] for part in sub_batches]:
        flags = torch.cat([part.flags for part in parts]).to(model.device)
        with autocast():  # type: ignore[attr-defined]
            read = [_features(model, part) for part in parts]
            weights = [weight for _, weight in read if weight is not None]
            logits = model.classify(torch.cat([of for of, _ in read]), torch.cat(weights) if weights else None)
        loss = soft_cross_entropy(logits.float(), flags, model.is_binary, recipe.label_smoothing).sum()
        (loss / num_clips).backward()
        total += loss.detach()
    return total


def _features(model: FinetunedModel, part: SubBatch) -> tuple[Float[Tensor, "b dim"], Float[Tensor, "b dim"] | None]:
    """The head's input for one sub-batch, on the model's device, and its weights if there are any."""
    lines = part.lines
    if lines is not None:
        lines = replace(lines, rows=lines.rows.to(model.device), columns=lines.columns.to(model.device))
    return model.features(part.patches.to(model.device), part.grid, lines)


def _validate(training: Training, model: FinetunedModel) -> tuple[float, float]:
    """Score and cross-entropy of the validation clips."""
    task, rows = training.task, training.split.valid
    predicted, flags = model.predict(training.store, rows.tolist()), task.flags[rows]
    likelihood = np.where(flags, predicted, 1 - predicted if model.is_binary else 1.0)
    loss = -np.log(np.maximum(likelihood, MIN_PROBABILITY)).sum(axis=1).mean()
    return score_of(task.targets[rows], predicted), float(loss)


def make_optimiser(model: FinetunedModel, recipe: FinetuneRecipe) -> Optimizer:
    """SGD or AdamW, with each layer's share of the learning rate, and weight decay on matrices only.

    Freezes the patch embedding if the recipe says so.

    Source: layer-wise learning rate decay of BEiT, arXiv 2106.08254. Deviates: not at all.
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
    betas = (MOMENTUM, recipe.beta2)
    return AdamW(settings, recipe.learning_rate, betas=betas, amsgrad=recipe.amsgrad, fused=True)


def _layers_below_head(name: str, model: FinetunedModel) -> int:
    """The depth of a parameter: 0 for the head and the last norm, 1 for the last block, and so on to the embeddings."""
    part, *rest = name.removeprefix("encoder.").split(".")
    if part in ("head", "norm"):
        return 0
    depth = model.encoder.size.depth
    return depth - int(rest[0]) if part == "blocks" else depth + 1
