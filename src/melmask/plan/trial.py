"""Take a few real steps of a recipe on this machine, and measure their time and memory."""

import ctypes
import dataclasses
import itertools
import statistics
import sys
import time
import wave
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from melmask.data.prepare import prepare
from melmask.data.store import Store
from melmask.locks import temporary_folder
from melmask.logmel import LogMelSpec
from melmask.train.distributed import World, join_world
from melmask.train.loop import Trainer
from melmask.train.recipe import Recipe

NUM_CLIPS, MIN_STEPS, MAX_STEPS = 4, 2, 100


@dataclass(frozen=True)
class Trial:
    """The measurements of a few steps.

    Args:
        batch_size: of these steps.
        step_s: median seconds of a whole step: reading, masks, both passes, optimiser.
        num_steps: that were timed, after one warm-up step.
        peak_bytes: peak memory of the process, minus that with a tiny model; on a GPU, of the allocated memory.
    """

    batch_size: int
    step_s: float
    num_steps: int
    peak_bytes: int

    @property
    def sample_s(self) -> float:
        """Seconds a sample."""
        return self.step_s / self.batch_size


def try_steps(recipe: Recipe, spec: LogMelSpec, clip_s: float, budget_s: float) -> Trial:
    """Train for a few steps on noise; the content of the recordings changes neither time nor memory.

    Args:
        recipe: to take steps of.
        spec: the front end.
        clip_s: length of the clips, in seconds; those longer than a crop are shortened.
        budget_s: stop after that many seconds, but not before two steps.
    """
    crop_s = recipe.crop_frames / spec.frames_per_s
    recipe = dataclasses.replace(recipe, steps=MAX_STEPS, epochs=0.0, exclude=())
    small = dataclasses.replace(
        recipe, size="micro", decoder_dim=32, decoder_depth=1, decoder_heads=2, batch_size=1, accumulate=1
    )
    with temporary_folder() as folder, join_world() as world:
        store = noise_store(folder, spec, min(clip_s, crop_s + 1.0))
        list(itertools.islice(_steps(small, store, world), 2))  # loads the libraries that a first step loads
        before = reset_peak_memory(world.device)
        _, *times = _within(budget_s, _steps(recipe, store, world))
        return Trial(recipe.batch_size, statistics.median(times), len(times), peak_memory(world.device) - before)


def _steps(recipe: Recipe, store: Store, world: World) -> Generator[float, None, None]:
    """The seconds of each step, with batches read from the store as in a run."""
    trainer = Trainer(recipe, recipe.make_loader(store), store.folder / "no run", world, lambda progress: None)
    with closing(trainer.parts(0)) as parts:
        for step in range(recipe.steps):
            start = time.perf_counter()
            trainer.step(step, parts)
            if world.device.type == "cuda":
                torch.cuda.synchronize(world.device)
            yield time.perf_counter() - start


def _within(budget_s: float, times: Iterator[float]) -> list[float]:
    """The times until their sum exceeds the budget, but at least three."""
    taken: list[float] = []
    for time_s in times:
        taken.append(time_s)
        if len(taken) > MIN_STEPS and sum(taken) > budget_s:
            break
    return taken


def noise_store(folder: Path, spec: LogMelSpec, clip_s: float) -> Store:
    """A store of a few clips of noise."""
    rng, recordings = np.random.default_rng(0), folder / "noise"
    recordings.mkdir()
    for i in range(NUM_CLIPS):
        noise = rng.normal(0.0, 3000.0, round(clip_s * spec.sample_rate_hz)).clip(-32768, 32767).astype("<i2")
        with wave.open(str(recordings / f"{i}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(spec.sample_rate_hz)
            file.writeframes(noise.tobytes())
    return prepare([recordings], folder / "store", spec=spec, num_workers=0)


def reset_peak_memory(device: torch.device) -> int:
    """Reset the peak of memory where the system can; returns the peak from then on, in bytes."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc: returns freed memory to the system
        if trim is not None:
            trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # see proc(5)
    return peak_memory(device)


def peak_memory(device: torch.device) -> int:
    """The peak memory of this process, in bytes; on a GPU, of the allocated memory; 0 where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, the resource module's peak includes that of the parent before it forked
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    try:
        import resource
    except ImportError:  # as on Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
