"""Runs of the schedule "wsd" are extended, or ended early, from a checkpoint before their learning rate falls."""

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from melmask.files import atomic_write, read_tensors
from melmask.train.checkpoint import step_of
from melmask.train.optimiser import decay_start, warmup_steps
from melmask.train.recipe import LENGTH, Recipe
from melmask.train.run_folder import CHECKPOINT, RECIPE, STABLE, kept_encoder, kept_steps, own_recipe


@dataclass(frozen=True)
class Extension:
    """How a run gets another length.

    Args:
        before: the recipe of the run until now.
        recipe: of the run from now on. Its warm-up takes as many steps as the run's did, and its decay starts at no
            step that is done, so that a run that had this recipe from its start would end with the same weights, to the
            bit, unless something else follows the share of the run that is done: hints, guidance, an exponent that is
            annealed, the EMA of M2D's target. These follow the new length from there on.
        checkpoint: the file to continue from; None if the run has saved nothing so far.
        step: of that checkpoint.
        num_steps: optimiser steps of the run from now on.
    """

    before: Recipe
    recipe: Recipe
    checkpoint: Path | None
    step: int
    num_steps: int

    @property
    def told(self) -> str:
        """What is done, in words."""
        text = (
            f"the run has {self.num_steps} steps now: it continues from step {self.step}, "
            f"and its learning rate falls from step {self.falls} on"
        )
        has_hints = self.recipe.takes_hints and self.recipe.hint_constant is None
        if self.step and (has_hints or self.recipe.exponent_power is not None):
            text += "; the schedule of its masks is that of the new length from there on"
        return text

    @property
    def falls(self) -> int:
        """The step from which on the learning rate falls."""
        return decay_start(self.num_steps, self.recipe.decay)

    def apply(self, run: Path) -> None:
        """Give the run's folder the checkpoint and the recipe, in this order: a kill between the two changes no result.

        Encoders that were kept of later steps are removed.
        """
        if self.checkpoint:
            for path in (run / STABLE, run / CHECKPOINT) if self.step == self.falls else (run / CHECKPOINT,):
                if path != self.checkpoint:
                    with atomic_write(path) as temporary:
                        shutil.copyfile(self.checkpoint, temporary)
        for step in kept_steps(run):
            if step > self.step:
                kept_encoder(run, step).unlink()
        self.recipe.save(run / RECIPE)


def settings_of(recipe: Recipe) -> str:
    """The settings that a checkpoint is trained by, as JSON, without the length of a run that can be extended."""
    values = dataclasses.asdict(recipe)
    for name in (*LENGTH, "warmup") if recipe.schedule == "wsd" else ():
        del values[name]
    return json.dumps(values, sort_keys=True)


def check_settings(run: Path, recipe: Recipe, saved: str) -> None:
    """Check that the last checkpoint was trained by the recipe that the run has now.

    Args:
        run: the run's folder.
        recipe: that it has now.
        saved: `settings_of` the recipe that it was trained by; "{}" in checkpoints of earlier versions.

    Raises:
        ValueError: a setting is another, which is named.
    """
    before, now = json.loads(saved), json.loads(settings_of(recipe))
    others = [name for name in now if name in before and before[name] != now[name]]
    if others:
        said = f"{others[0]} is {now[others[0]]!r}, and was {before[others[0]]!r}"
        raise ValueError(
            f"{run / RECIPE} is not the recipe that {run / CHECKPOINT} was trained by: {said}: restore it, or start "
            "another run from these weights with --init"
        )


def find_extension(run: Path, recipe: Recipe, crops_per_epoch: int) -> Extension | None:
    """How the run in a folder gets the length of a recipe; None if it has it, or the recipe differs in more.

    Args:
        run: the run's folder.
        recipe: that of the run, with other steps, epochs or decay.
        crops_per_epoch: of its data.

    Raises:
        ValueError: the run's schedule is not "wsd", it was trained for longer without a checkpoint to return to, or the
            length is that of its warm-up or less.
    """
    before = own_recipe(run)
    if before is None or recipe == before:
        return None
    if dataclasses.replace(recipe, **{name: getattr(before, name) for name in LENGTH}) != before:
        return None
    if before.schedule != "wsd":
        raise ValueError(
            f"{run} has the learning rate of {before.num_steps(crops_per_epoch)} steps from its first step on. Only "
            "runs with --schedule wsd can get another length: choose another folder, and --init to keep its weights"
        )
    num_steps = recipe.num_steps(crops_per_epoch)
    checkpoint, step = _stable_checkpoint(run, before, before.num_steps(crops_per_epoch))
    warmup = warmup_steps(before.num_steps(crops_per_epoch), before.warmup)
    done = max(step, warmup)
    if num_steps <= done:
        what = "its warm-up takes" if warmup > step else "it was trained before its learning rate fell for"
        raise ValueError(f"{run} cannot end after {num_steps} steps: {what} {done}")
    decay = recipe.decay if decay_start(num_steps, recipe.decay) >= done else (num_steps - done) / num_steps
    changed = dataclasses.replace(recipe, warmup=warmup / num_steps, decay=decay)
    return Extension(before, changed, checkpoint, step, num_steps)


def _stable_checkpoint(run: Path, recipe: Recipe, num_steps: int) -> tuple[Path | None, int]:
    """The last checkpoint before the learning rate falls, and its step; None and 0 if nothing was saved so far."""
    if not (run / CHECKPOINT).exists():
        return None, 0
    falls = decay_start(num_steps, recipe.decay)
    for path in (run / CHECKPOINT, run / STABLE):
        if path.exists():
            step = step_of(path, read_tensors(path)[1])
            if step <= falls:
                return path, step
    raise ValueError(f"{run} has no {STABLE}, the checkpoint of step {falls}, from which it could get another length")
