"""The training loop, for every framework and every masking strategy."""

import copy
import dataclasses
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from melmask.data.loader import Loader, random_seed
from melmask.data.store import EARLIER, Store
from melmask.files import append_line, read_lines, replace_lines, select_prefix
from melmask.frameworks import Loss
from melmask.nn.encoder_file import ENCODER, EncoderFile, FrontEnd
from melmask.nn.vit import Encoder
from melmask.patches import grid_of, patchify, valid_patches
from melmask.runtime import autocast_for, hardware, keep_freed_memory
from melmask.threads import following_load
from melmask.train.average import AVERAGE, WeightsAverage
from melmask.train.callbacks import Callback, Callbacks, Started, warn
from melmask.train.checkpoint import REMEDY, load_training, save_training, step_of
from melmask.train.distributed import RANK_TIMEOUT_S, World, join_world
from melmask.train.extension import check_settings, find_extension, settings_of
from melmask.train.initial import Initial, find_initial, normalised_for, stated_features
from melmask.train.masker import Masker
from melmask.train.monitors import effective_rank, feature_deviation
from melmask.train.new_networks import NewNetworks
from melmask.train.optimiser import clip_gradients, decay_start, learning_rate, make_optimiser
from melmask.train.recipe import Recipe
from melmask.train.run_folder import (
    CHECKPOINT,
    LOG,
    MASKING,
    STABLE,
    LogEntry,
    check_is_run,
    kept_encoder,
    locked,
    log_values,
    note_machine,
    open_run,
)
from melmask.train.signals import stop_requests
from melmask.train.whiten import learn_whitening
from melmask.types import Batch

NO_CALLBACKS = Callbacks(())


class Diverged(RuntimeError):
    """The loss is no longer finite."""


def pretrain(
    recipe: Recipe,
    store: Store,
    run: Path,
    *,
    resume: bool = False,
    init: str | Path | None = None,
    num_threads: int | None = None,
    rank_timeout_s: float = RANK_TIMEOUT_S,
    report: Callable[[LogEntry], None] = lambda entry: None,
    note: Callable[[str], None] = lambda text: None,
    callbacks: Sequence[Callback] = (),
    failed: Callable[[str], None] = warn,
) -> bool:
    """Train by the recipe and leave a run folder (`melmask.train.run_folder`).

    Args:
        recipe: every setting.
        store: the packed data set.
        run: the folder to make or, with ``resume``, that of the run to resume.
        resume: start from the last checkpoint, or anew if none was saved; the run ends with the weights of an
            uninterrupted one, to the bit if both compute on the same number of threads all the time. A run of the
            schedule "wsd" may be given other steps, epochs and decay (`melmask.train.extension`).
        init: weights to start from (`melmask.train.initial`), with a new optimiser; None for random ones.
        num_threads: that torch computes on; None follows what else keeps the cores busy (`melmask.threads`), unless
            OMP_NUM_THREADS is set.
        rank_timeout_s: seconds after which a process of several that does not answer ends the others, see `join_world`.
        report: called with every entry of the log, in the first process. Where it writes to a pipe that is closed, the
            run is saved and ends, as by SIGTERM.
        note: called with what was taken of those weights, or with what a new length does, in words.
        callbacks: measure, or log elsewhere (`melmask.train.callbacks`), in the first process.
        failed: called with what is to be said of a callback that fails, which stops no run.

    Returns:
        True if the run is complete, False if it was interrupted and its state saved.

    Raises:
        ValueError: the folder holds a run, or none to resume; its recipe or data are not those given; the weights to
            start from are of another form than the recipe's; or the run cannot get that length.
        Locked: another process trains that run.
        RankLost: another process of the run does not answer.
        Diverged: the loss is not finite; the last checkpoint with a finite loss is kept.
    """
    with ExitStack() as held:
        world, stop_requested = held.enter_context(join_world(rank_timeout_s)), held.enter_context(stop_requests())
        if resume:
            check_is_run(run)
        held.enter_context(store.in_use())
        if not store.has_checksums:
            note(f"{store.folder} {EARLIER}")
        recipe = recipe.on(store)
        initial = find_initial(init, run, recipe, store.spec)
        store = normalised_for(run, store, initial, resume)
        loader = recipe.make_loader(store, world.device)
        extension = find_extension(run, recipe, loader.crops_per_epoch) if resume else None
        begun, recipe = (extension.before, extension.recipe) if extension else (recipe, recipe)
        world.wait()  # no process looks at the folder while the first one makes it
        if world.is_first:
            held.enter_context(locked(run))
            open_run(run, begun, store, resume, initial.named if initial else None)
            note_machine(run, hardware(world.device), world.size)
            if extension:
                extension.apply(run)
                note(extension.told)
        world.wait()
        start = None if (run / CHECKPOINT).exists() else initial
        trainer = Trainer(
            recipe, loader, run, world, stop_requested.unless_closed(report), start, Callbacks(callbacks, failed)
        )
        if trainer.started_from:
            note(f"started from other weights: {trainer.started_from}{trainer.new.told}")
        return trainer.train(resume, stop_requested, num_threads)


class Trainer:
    """A model with its optimiser and its data, trained step by step.

    Args:
        recipe: every setting.
        loader: the training data.
        run: the run's folder.
        world: all processes of the run.
        report: called with every entry of the log, in the first process.
        initial: weights to start from; None for random ones, or those of the run's checkpoint.
        callbacks: called as the training goes, in the first process.

    Attributes:
        started_from: what was taken of those weights, in words; empty without any.
    """

    def __init__(
        self,
        recipe: Recipe,
        loader: Loader,
        run: Path,
        world: World,
        report: Callable[[LogEntry], None],
        initial: Initial | None = None,
        callbacks: Callbacks = NO_CALLBACKS,
    ) -> None:
        self.recipe, self.loader, self.run, self.world, self.report = recipe, loader, run, world, report
        self.callbacks = callbacks if world.is_first else NO_CALLBACKS
        self.num_steps = recipe.num_steps(loader.crops_per_epoch)
        keep_freed_memory()
        torch.manual_seed(recipe.seed)
        model = recipe.make_model()
        self.started_from = initial.start(model) if initial else ""
        self.new = NewNetworks.of_run(run, recipe.warmup, self.num_steps)
        self.model = model.to(world.device)
        self.wrapped = world.wrap(self.model)
        self.optimiser = make_optimiser(self.model, recipe)
        self.decay = recipe.decay if recipe.schedule == "wsd" else None
        online = self.model.encoders()["online"]
        self.average = WeightsAverage(online, recipe.weights_ema) if recipe.weights_ema else None
        self.masker = Masker(recipe, loader, world)
        self.autocast = autocast_for(recipe.precision, world.device)
        self.finite = torch.ones((), dtype=torch.bool, device=world.device)

    def train(self, resume: bool, stop_requested: Callable[[], bool], num_threads: int | None = None) -> bool:
        """Run the remaining steps, see `pretrain`; False if a stop was requested before the last."""
        first = self.restore() if resume and self.has_checkpoint() else 0
        if first and self.world.is_first and not self.encoder_is_current():  # after a kill or a full disk
            self.save_encoder(self.run / ENCODER)
        recipe, started, logged = self.recipe, time.monotonic(), (first, time.monotonic())
        if self.world.size > 1 and num_threads is None:  # its ranks wait for each other, which would pass for load
            num_threads = torch.get_num_threads()
        following = following_load(self.world.device, num_threads)
        with self._log(first) as log, closing(self.parts(first)) as parts, following as threads:
            for step in range(first, self.num_steps):
                with threads.step():
                    loss, grad_norm = self.step(step, parts)
                done = step + 1
                self.callbacks.on_step(done)
                if done % recipe.log_every == 0 or done == self.num_steps:
                    self.check_finite(done)
                    now = time.monotonic()
                    log(self.log_entry(step, loss, grad_norm, done - logged[0], now - logged[1], now - started))
                    logged = (done, time.monotonic())  # what callbacks take is no part of a step
                if recipe.keep_every and done % recipe.keep_every == 0:
                    self.keep(done)
                stopping = self.world.any(stop_requested())
                if done % recipe.save_every == 0 or done in (self.stable_step, self.num_steps) or stopping:
                    self.save(done)
                if stopping and done < self.num_steps:
                    return False
        return True

    def step(self, step: int, parts: Iterator[Batch]) -> tuple[Loss, Tensor]:
        """One optimiser step over all parts of a batch.

        Returns:
            The loss of the last part, with the mean value over all parts by their share of valid frames; and the norm
            of the gradient before clipping.
        """
        recipe = self.recipe
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(step, self.num_steps, recipe.learning_rate, recipe.warmup, self.decay)
        value, weight = torch.zeros((), device=self.world.device), 0.0
        for i in range(recipe.accumulate):
            last = i == recipe.accumulate - 1
            syncs = nullcontext() if last or self.world.size == 1 else self.wrapped.no_sync()  # type: ignore[operator]
            batch = next(parts)
            with syncs:
                loss = self.loss(step, self._part(i), batch)
                # Gradients are averaged over processes; the weights of all parts in all processes sum to one.
                (loss.value * (batch.weight * self.world.size)).backward()
            value, weight = value + loss.value.detach() * batch.weight, weight + batch.weight
            self.finite &= loss.value.detach().isfinite()
        self.new.train_alone(step, self.model)
        grad_norm = clip_gradients(self.model, recipe.grad_clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.model.after_step((step + 1) / self.num_steps)
        if self.average:
            self.average.after_step(step + 1, self.model.encoders()["online"])
        self.masker.after_step()
        return dataclasses.replace(loss, value=value / weight), grad_norm

    def loss(self, step: int, part: int, batch: Batch) -> Loss:
        """The loss of one part of a batch: cut into patches, masked, and passed through the model."""
        log_mel = batch.log_mel.to(self.world.device, non_blocking=True)
        patches = patchify(log_mel, self.recipe.patch_shape)
        grid, valid = grid_of(log_mel, self.recipe.patch_shape), None
        if bool((batch.num_valid_frames < log_mel.shape[2]).any()):
            valid = valid_patches(batch.num_valid_frames, grid).to(self.world.device)
        # So that what a framework draws is a function of these alone, and a run can be resumed.
        torch.manual_seed(random_seed(self.recipe.seed, 4, step, part))
        with self.autocast():
            mask = self.masker.draw((step, part), step / self.num_steps, self.model.encoders(), batch, patches, valid)
            loss = self.wrapped(patches, grid, mask, valid)
        self.masker.note(batch, patches, mask, loss.per_patch, valid)
        return loss

    def log_entry(
        self, step: int, loss: Loss, grad_norm: Tensor, num_steps: int, taken_s: float, elapsed_s: float
    ) -> LogEntry:
        """The log's entry for the last ``num_steps`` steps, which took ``taken_s`` seconds."""
        features = loss.features.flatten(0, 1)
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
            num_threads=torch.get_num_threads(),
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
        """Write checkpoint and encoder file, in the first process."""
        self.check_finite(step)
        if self.world.is_first:
            metadata = {"step": str(step), "recipe": settings_of(self.recipe)}
            extra = {f"{MASKING}{name}": tensor for name, tensor in self.masker.state().items()}
            if self.average:
                extra |= self.average.state()
            for file in (STABLE, CHECKPOINT) if step == self.stable_step else (CHECKPOINT,):
                save_training(self.run / file, self.model, self.optimiser, extra, metadata)
            self.save_encoder(self.run / ENCODER)
        self.world.wait()

    def keep(self, step: int) -> None:
        """Write the encoder of that step beside those of other steps, in the first process."""
        self.check_finite(step)
        if self.world.is_first:
            path = kept_encoder(self.run, step)
            path.parent.mkdir(exist_ok=True)
            self.save_encoder(path)

    def save_encoder(self, path: Path) -> None:
        """Write the encoder, or the average of its weights, with its front end."""
        self.encoder_file().save(path)

    def encoder_file(self) -> EncoderFile:
        """The encoder, or the average of its weights, with its front end, as it is now."""
        store = self.loader.store
        front_end, stated = FrontEnd(store.spec, store.mean, store.std), stated_features(self.run)
        if self.recipe.whitening_crops:
            crops = self.loader.sample(self.recipe.whitening_crops)
            stated["whitening"] = learn_whitening(self.encoder, crops, stated.get("layers", "last"))
        return EncoderFile(self.encoder, front_end, self.recipe.crop_frames, **stated)

    @property
    def encoder(self) -> Encoder:
        """What the encoder file holds: the online encoder, or the average of its weights."""
        return self.average.encoder if self.average else self.model.encoders()["online"]

    def encoder_is_current(self) -> bool:
        """Whether the run's encoder file is whole, and that of the present state."""
        try:
            file = EncoderFile.load(self.run / ENCODER)
        except ValueError:
            return False
        return bool(file.whitening) == bool(self.recipe.whitening_crops) and file.holds(self.encoder.state_dict())

    def restore(self) -> int:
        """Restore the state of the last checkpoint; returns its number of steps."""
        path = self.run / CHECKPOINT
        extra, metadata = load_training(path, self.model, self.optimiser)
        check_settings(self.run, self.recipe, metadata.get("recipe", "{}"))
        try:
            self.masker.restore(select_prefix(extra, MASKING))
            if self.average:
                self.average.encoder.load_state_dict(select_prefix(extra, AVERAGE))
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"{path} is of another recipe than the run's: {error}; {REMEDY}") from error
        return step_of(path, metadata)

    @property
    def stable_step(self) -> int | None:
        """The step after which the learning rate falls from its constant; None for a schedule without one."""
        return None if self.decay is None else decay_start(self.num_steps, self.decay)

    def has_checkpoint(self) -> bool:
        """Whether the run has saved its state."""
        return (self.run / CHECKPOINT).exists()

    def parts(self, first: int) -> Generator[Batch, None, None]:
        """This process's parts of every batch from step ``first`` on.

        On a GPU a thread prefetches them. On a CPU it would cost more than it saves: reading takes a hundredth of a
        step, and the thread competes with the model for the cores and for Python's lock.
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
        """The number of this process's ``i``-th part. Parts are sorted by length: all processes compute alike ones."""
        return i * self.world.size + self.world.rank

    @contextmanager
    def _log(self, first: int) -> Iterator[Callable[[LogEntry], None]]:
        """Yield a function that writes an entry to log.jsonl, with what callbacks measure, and gives it to all.

        Entries after the step of the checkpoint that is resumed are removed first.
        """
        if not self.world.is_first:
            yield lambda entry: None
            return
        entries, bad = read_lines(path := self.run / LOG, log_values)
        kept = [entry for entry in entries if entry["step"] <= first]
        if len(kept) < len(entries):
            replace_lines(path, kept, bad)
        self.callbacks.on_start(Started(self.run, self.recipe, self.loader.store, first, self.num_steps))
        last = first

        def log(entry: LogEntry) -> None:
            nonlocal last
            measured = self.callbacks.measure(entry.step, lambda: copy.deepcopy(self.encoder_file()))
            entry, last = dataclasses.replace(entry, measured=measured), entry.step
            append_line(path, asdict(entry))
            self.callbacks.on_log(entry)
            self.report(entry)

        try:
            yield log
        finally:
            self.callbacks.on_end(last == self.num_steps)
