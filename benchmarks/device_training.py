"""What benchmarks/device.py does with the time that is left: a small encoder of procedural sound.

The sound is made first, in a tenth of the time, by all cores of the processor; then a run as a user's trains on it.
"""

import dataclasses
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from melmask.data.store import Store
from melmask.demo.procedural.store import make_store
from melmask.nn.encoder_file import ENCODER, EncoderFile
from melmask.train.loop import pretrain
from melmask.train.recipe import RECIPES, Recipe
from melmask.train.run_folder import LogEntry

NAME, ENCODER_OUT = "small-msm-mae", "pretrained.safetensors"
BATCH, QUICK_BATCH = 512, 4
FIRST_HOURS, QUICK_FIRST_HOURS, MOST_HOURS = 0.5, 0.01, 40.0
SOUND_SHARE = 0.1  # of the time, to make sound in
TRIAL_STEPS, QUICK_TRIAL_STEPS, MIN_STEPS = 40, 4, 4
USED_SHARE = 0.9  # of the time left, by the trial's rate: checkpoints come on top
NUM_LINES = 20  # of the log
MICRO = {"size": "micro", "crop_frames": 96, "decoder_dim": 32, "decoder_depth": 1, "decoder_heads": 2}


def pretraining(folder: Path, out: Path, seconds: float, quick: bool) -> Iterator[dict[str, Any]]:
    """Pre-train for about so many seconds, on the device that a user's run would take, and keep the encoder.

    Args:
        folder: for the sound and for the run, whose checkpoint is too large to bring back.
        out: for the encoder's file, in float16, which is written anew at every checkpoint.
        seconds: the time, with that of making sound and of a short trial, by which the number of steps is chosen.
        quick: a micro model and few sounds.

    Yields:
        The only row: what was trained, its log, and the encoder's file.
    """
    deadline = time.monotonic() + seconds
    store = sound_for(folder / "procedural", SOUND_SHARE * seconds, QUICK_FIRST_HOURS if quick else FIRST_HOURS, quick)
    num_trial, recipe = QUICK_TRIAL_STEPS if quick else TRIAL_STEPS, recipe_of(quick)
    trial: list[LogEntry] = []
    pretrain(with_steps(recipe, num_trial, num_trial // 2), store, folder / "trial", report=trial.append)
    step_s = recipe.batch_size / trial[-1].samples_per_s  # of the second half, which is warm
    num_steps = max(MIN_STEPS, int(USED_SHARE * (deadline - time.monotonic()) / step_s))
    log: list[LogEntry] = []

    def report(entry: LogEntry) -> None:
        log.append(entry)
        rank = f"rank {entry.effective_rank:.1f}"
        print(f"step {entry.step} of {entry.num_steps}: loss {entry.loss:.3f}, {rank}", flush=True)
        bring_back(folder / "run" / ENCODER, out / ENCODER_OUT)
        if time.monotonic() > deadline:
            signal.raise_signal(signal.SIGINT)  # the run saves its state and ends, as for a user

    started, recipe = time.monotonic(), with_steps(recipe, num_steps, num_steps // NUM_LINES)
    is_complete = pretrain(recipe, store, folder / "run", report=report)
    bring_back(folder / "run" / ENCODER, out / ENCODER_OUT)
    yield {
        "recipe": NAME, "size": recipe.size, "strategy": recipe.strategy, "batch": recipe.batch_size,
        "hours": store.info["duration_s"] / 3600, "steps": log[-1].step, "of_steps": num_steps, "complete": is_complete,
        "seconds": time.monotonic() - started, "samples_per_s": log[-1].step * recipe.batch_size / log[-1].elapsed_s,
        "encoder": ENCODER_OUT, "encoder_bytes": (out / ENCODER_OUT).stat().st_size,
        "log": [dataclasses.asdict(entry) for entry in log],
    }  # fmt: skip


def sound_for(folder: Path, seconds: float, first_hours: float, quick: bool) -> Store:
    """A store of as many hours of procedural sound as the processor makes in about so many seconds."""
    start, num_workers = time.monotonic(), 0 if quick else None
    store = make_store(folder, first_hours, num_workers=num_workers)
    taken = time.monotonic() - start
    hours = min(MOST_HOURS, first_hours * seconds / taken)
    return store if hours <= first_hours else make_store(folder, hours, num_workers=num_workers)


def bring_back(saved: Path, encoder: Path) -> None:
    """Write the run's encoder, if it has saved one, in float16: half as much to carry."""
    if saved.exists():
        EncoderFile.load(saved).save(encoder, torch.float16)


def recipe_of(quick: bool) -> Recipe:
    """The small recipe with DWM, at the papers' learning rate for its batch."""
    recipe = dataclasses.replace(
        RECIPES[NAME], strategy="dwm", batch_size=BATCH, learning_rate=3e-4 * BATCH / 256, warmup=0.05
    )
    return dataclasses.replace(recipe, **MICRO, batch_size=QUICK_BATCH, precision="float32") if quick else recipe


def with_steps(recipe: Recipe, num_steps: int, log_every: int) -> Recipe:
    """The recipe for so many steps, with two lines of the log between checkpoints."""
    every = max(1, log_every)
    return dataclasses.replace(recipe, steps=num_steps, epochs=0.0, log_every=every, save_every=2 * every)
