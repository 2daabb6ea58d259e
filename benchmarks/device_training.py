"""What benchmarks/device.py does with the time that is left: it pre-trains a small encoder on procedural sound."""

import dataclasses
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from melmask.demo.procedural.stream import ProceduralSound
from melmask.nn.encoder_file import ENCODER, EncoderFile
from melmask.train.loop import pretrain
from melmask.train.recipe import RECIPES, Recipe
from melmask.train.run_folder import LogEntry

NAME, ENCODER_OUT = "small-msm-mae", "pretrained.safetensors"
BATCH, QUICK_BATCH = 512, 4
TRIAL_STEPS, QUICK_TRIAL_STEPS, MIN_STEPS = 40, 4, 4
USED_SHARE = 0.9  # of the time left, by the trial's rate: checkpoints come on top
NUM_LINES = 20  # of the log
MICRO = {"size": "micro", "crop_frames": 96, "decoder_dim": 32, "decoder_depth": 1, "decoder_heads": 2}


def pretraining(folder: Path, out: Path, seconds: float, quick: bool) -> Iterator[dict[str, Any]]:
    """Pre-train for about so many seconds, on the device that a user's run would take, and keep the encoder.

    Args:
        folder: for the run, whose checkpoint is too large to bring back.
        out: for the encoder's file, in float16, which is written anew at every checkpoint.
        seconds: the time, that of a short trial included, by which the number of steps is chosen.
        quick: a micro model.

    Yields:
        The only row: what was trained, its log, and the encoder's file.
    """
    deadline = time.monotonic() + seconds
    num_trial, recipe, sound = QUICK_TRIAL_STEPS if quick else TRIAL_STEPS, recipe_of(quick), ProceduralSound()
    trial: list[LogEntry] = []
    pretrain(with_steps(recipe, num_trial, num_trial // 2), sound, folder / "trial", report=trial.append)
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
    is_complete = pretrain(recipe, sound, folder / "run", report=report)
    bring_back(folder / "run" / ENCODER, out / ENCODER_OUT)
    yield {
        "recipe": NAME, "size": recipe.size, "strategy": recipe.strategy, "batch": recipe.batch_size,
        "steps": log[-1].step, "of_steps": num_steps, "complete": is_complete,
        "seconds": time.monotonic() - started, "samples_per_s": log[-1].step * recipe.batch_size / log[-1].elapsed_s,
        "encoder": ENCODER_OUT, "encoder_bytes": (out / ENCODER_OUT).stat().st_size,
        "log": [dataclasses.asdict(entry) for entry in log],
    }  # fmt: skip


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
