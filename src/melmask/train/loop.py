"""The training loop: one for every framework and every strategy."""

import dataclasses
import json
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from melmask.data.loader import Loader
from melmask.data.store import Store
from melmask.files import select_prefix
from melmask.frameworks import Loss
from melmask.nn.encoder_file import ENCODER, FrontEnd, save_encoder
from melmask.patches import grid_of, patchify, valid_patches
from melmask.runtime import autocast_for, keep_freed_memory
from melmask.train.checkpoint import load_training, save_training
from melmask.train.distributed import World, join_world
from melmask.train.masker import Masker
from melmask.train.monitors import effective_rank, feature_deviation
from melmask.train.optimiser import clip_gradients, learning_rate, make_optimiser
from melmask.train.recipe import Recipe
from melmask.train.run_folder import CHECKPOINT, LOG, MASKING, LogEntry, open_run, read_log
from melmask.train.signals import stop_requests
from melmask.types import Batch


class Diverged(RuntimeError):
    """The loss is no longer finite."""


def pretrain(
    recipe: Recipe,
    store: Store,
    run: Path,
    *,
    resume: bool = False,
    report: Callable[[LogEntry], None] = lambda entry: None,
) -> bool:
    """Train by the recipe and leave a run folder: recipe, checkpoint, encoder, log and TensorBoard events.

    Args:
        recipe: every setting.
        store: the packed data set.
        run: the folder to make, or with ``resume`` to go on with.
        resume: go on from the last checkpoint, to the same weights as if never stopped; start where there is none.
        report: called with every line of the log, in the first process.

    Returns:
        True when the run is complete; False when it was interrupted and saved.

    Raises:
        ValueError: the folder is in use, or the recipe or data differ from the run that is to be resumed.
        Diverged: the loss is not finite; the last good checkpoint is kept.
    """
    with join_world() as world, stop_requests() as stop_requested:
        loader = recipe.make_loader(store)
        if world.is_first:
            open_run(run, recipe, store, resume)
        world.wait()
        return Trainer(recipe, loader, run, world, report).train(resume, stop_requested)


class Trainer:
    """A model, its optimiser and its data, moved on step by step."""

    def __init__(
        self, recipe: Recipe, loader: Loader, run: Path, world: World, report: Callable[[LogEntry], None]
    ) -> None:
        self.recipe, self.loader, self.run, self.world, self.report = recipe, loader, run, world, report
        self.num_steps = recipe.num_steps(loader.crops_per_epoch)
        keep_freed_memory()
        torch.manual_seed(recipe.seed)
        self.model = recipe.make_model().to(world.device)
        self.wrapped = world.wrap(self.model)
        self.optimiser = make_optimiser(self.model, recipe)
        self.masker = Masker(recipe, loader, world)
        self.autocast = autocast_for(recipe.precision, world.device)
        self.finite = torch.ones((), dtype=torch.bool, device=world.device)

    def train(self, resume: bool, stop_requested: Callable[[], bool]) -> bool:
        """Run all steps that are left; False if a stop was requested first."""
        first = self.restore() if resume and self.has_checkpoint() else 0
        recipe, started, logged = self.recipe, time.monotonic(), (first, time.monotonic())
        with self._log(first) as log, closing(self.parts(first)) as parts:
            for step in range(first, self.num_steps):
                loss, grad_norm = self.step(step, parts)
                done = step + 1
                if done % recipe.log_every == 0 or done == self.num_steps:
                    self.check_finite(done)
                    now = time.monotonic()
                    log(self.log_entry(step, loss, grad_norm, done - logged[0], now - logged[1], now - started))
                    logged = (done, now)
                stopping = self.world.any(stop_requested())
                if done % recipe.save_every == 0 or done == self.num_steps or stopping:
                    self.save(done)
                if stopping and done < self.num_steps:
                    return False
        return True

    def step(self, step: int, parts: Iterator[Batch]) -> tuple[Loss, Tensor]:
        """One optimiser step over all parts, counted by the sound in it; the last one's loss with the mean value."""
        recipe = self.recipe
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(step, self.num_steps, recipe.learning_rate, recipe.warmup)
        value, weight = torch.zeros((), device=self.world.device), 0.0
        for i in range(recipe.accumulate):
            last = i == recipe.accumulate - 1
            syncs = nullcontext() if last or self.world.size == 1 else self.wrapped.no_sync()  # type: ignore[operator]
            batch = next(parts)
            with syncs:
                loss = self.loss(step, self._part(i), batch)
                # Gradients of all processes are averaged, and the weights of all parts of all of them add up to one.
                (loss.value * (batch.weight * self.world.size)).backward()
            value, weight = value + loss.value.detach() * batch.weight, weight + batch.weight
            self.finite &= loss.value.detach().isfinite()
        grad_norm = clip_gradients(self.model, recipe.grad_clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.model.after_step((step + 1) / self.num_steps)
        self.masker.after_step()
        return dataclasses.replace(loss, value=value / weight), grad_norm

    def loss(self, step: int, part: int, batch: Batch) -> Loss:
        """Patches, mask, model: the loss of one part of a batch."""
        log_mel = batch.log_mel.to(self.world.device, non_blocking=True)
        patches = patchify(log_mel, self.recipe.patch_shape)
        grid, valid = grid_of(log_mel, self.recipe.patch_shape), None
        if bool((batch.num_valid_frames < log_mel.shape[2]).any()):
            valid = valid_patches(batch.num_valid_frames, grid).to(self.world.device)
        with self.autocast():
            mask = self.masker.draw((step, part), step / self.num_steps, self.model.encoders(), batch, patches, valid)
            loss = self.wrapped(patches, grid, mask, valid)
        self.masker.note(batch, patches, mask, loss.per_patch, valid)
        return loss

    def log_entry(
        self, step: int, loss: Loss, grad_norm: Tensor, num_steps: int, taken_s: float, elapsed_s: float
    ) -> LogEntry:
        """The log's line after ``num_steps`` steps that took so long."""
        features = loss.features.reshape(-1, loss.features.shape[2])
        hint_ratio, lam, exponent = self.masker.settings(step / self.num_steps)
        return LogEntry(
            step=step + 1,
            num_steps=self.num_steps,
            loss=float(loss.value.detach()),
            learning_rate=self.optimiser.param_groups[0]["lr"],
            grad_norm=float(grad_norm),
            effective_rank=effective_rank(features),
            feature_deviation=feature_deviation(features),
            hint_ratio=hint_ratio,
            guidance=lam,
            exponent=exponent,
            mask_share=self.masker.timer.take() / taken_s,
            samples_per_s=num_steps * self.recipe.batch_size / taken_s,
            elapsed_s=elapsed_s,
        )

    def check_finite(self, step: int) -> None:
        """Raise `Diverged` in every process if a loss was not finite in any."""
        if self.world.any(not bool(self.finite)):
            kept = f"the last good checkpoint is kept in {self.run}" if self.has_checkpoint() else "none was saved yet"
            raise Diverged(
                f"the loss is not finite by step {step}; {kept}. Try a lower learning rate, a longer warm-up or "
                "precision float32"
            )

    def save(self, step: int) -> None:
        self.check_finite(step)
        if self.world.is_first:
            store = self.loader.store
            masking = {f"{MASKING}{name}": tensor for name, tensor in self.masker.state().items()}
            save_training(self.run / CHECKPOINT, self.model, self.optimiser, masking, {"step": str(step)})
            front_end = FrontEnd(store.spec, store.mean, store.std)
            save_encoder(self.run / ENCODER, self.model.encoders()["online"], front_end, self.recipe.crop_frames)
        self.world.wait()

    def restore(self) -> int:
        """Take up the last checkpoint; the number of steps it has done."""
        extra, metadata = load_training(self.run / CHECKPOINT, self.model, self.optimiser)
        self.masker.restore(select_prefix(extra, MASKING))
        return int(metadata["step"])

    def has_checkpoint(self) -> bool:
        return (self.run / CHECKPOINT).exists()

    def parts(self, first: int) -> Generator[Batch, None, None]:
        """This process's parts of every batch from step ``first`` on.

        For a GPU they are read ahead in a thread. On a CPU a thread would take more from the step than the hundredth of
        it that reading lasts: Python runs one thread at a time, and the cores are busy with the model.
        """
        accumulate = self.recipe.accumulate
        keys = (
            (step, self._part(i), accumulate * self.world.size)
            for step in range(first, self.num_steps)
            for i in range(accumulate)
        )
        if self.world.device.type == "cpu":
            return (self.loader.part(*key) for key in keys)
        return self.loader.prefetch(keys)

    def _part(self, i: int) -> int:
        """Which part is this process's ``i``-th: at any time, the parts of all processes are of about one length."""
        return i * self.world.size + self.world.rank

    @contextmanager
    def _log(self, first: int) -> Iterator[Callable[[LogEntry], None]]:
        """Write lines to log.jsonl, TensorBoard and the caller; lines after the resumed step are dropped first."""
        if not self.world.is_first:
            yield lambda entry: None
            return
        path = self.run / LOG
        kept = [line for line in read_log(self.run) if line["step"] <= first]
        path.write_text("".join(json.dumps(line) + "\n" for line in kept))
        with path.open("a", buffering=1) as lines, SummaryWriter(str(self.run), purge_step=first) as board:

            def log(entry: LogEntry) -> None:
                values = asdict(entry)
                lines.write(json.dumps(values) + "\n")
                for name, value in values.items():
                    if isinstance(value, float):
                        board.add_scalar(name, value, entry.step)
                self.report(entry)

            yield log
