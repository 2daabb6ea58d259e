"""How fast training is and where its time goes, on this machine: `make bench`.

Every figure is from one process, the alternatives in turns, so that ratios hold when the machine's speed drifts.
"""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch
from rich.console import Console
from rich.table import Table

from melmask.data.loader import Loader
from melmask.data.prepare import prepare
from melmask.data.store import Store
from melmask.masking import STRATEGIES, draw
from melmask.patches import patchify
from melmask.train.distributed import World
from melmask.train.loop import Trainer
from melmask.train.recipe import RECIPES

NUM_CLIPS, CLIP_S, ROUNDS = 64, 4, 5
console = Console(highlight=False)


def main() -> None:
    console.print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians of {ROUNDS} rounds")
    with tempfile.TemporaryDirectory() as folder:
        store = noise_store(Path(folder))
        console.print(training_table(store))
        console.print(masking_table())


def noise_store(folder: Path) -> Store:
    """A store of coloured noise: speed does not depend on what is heard."""
    rng = np.random.default_rng(0)
    (folder / "noise").mkdir()
    for i in range(NUM_CLIPS):
        noise = np.cumsum(rng.standard_normal(CLIP_S * 16_000))
        soundfile.write(folder / "noise" / f"{i:03}.wav", 0.5 * noise / np.abs(noise).max(), 16_000)
    return prepare([folder / "noise"], folder / "store", num_workers=0)


def training_table(store: Store) -> Table:
    """Samples per second of whole steps, and the shares that are not the model's."""
    table = Table(
        title="training, tiny, 2.08-s crops, batch 32 (reading runs beside the step, in a thread)", title_justify="left"
    )
    for column in ("framework", "precision", "samples/s", "ratio to float32", "reading/step", "dwm mask/step"):
        table.add_column(column, justify="left" if column == "framework" else "right")
    for framework in ("msm-mae", "m2d"):
        rates: dict[str, float] = {}
        for precision in ("float32", "bf16"):
            recipe = dataclasses.replace(
                RECIPES[f"tiny-{framework}"], precision=precision, batch_size=32, strategy="dwm", hint_start=0.0
            )
            loader = Loader(store, crop_frames=recipe.crop_frames, batch_size=32, seed=0)
            with tempfile.TemporaryDirectory() as run:
                trainer = Trainer(recipe, loader, Path(run), World(0, 1, torch.device("cpu")), lambda progress: None)
                batch = loader.part(0)
                patches = patchify(batch.log_mel, recipe.patch_shape)
                step_s = seconds(lambda t=trainer, b=batch: t.step(1, iter([b])))
                read_s = seconds(lambda loader=loader: loader.part(1))
                mask_s = seconds(lambda t=trainer, p=patches: t.mask(1, 0, p, None))
            rates[precision] = 32 / step_s
            table.add_row(
                framework,
                precision,
                f"{rates[precision]:.0f}",
                f"{rates[precision] / rates['float32']:.2f}",
                f"{read_s / step_s:.1%}",
                f"{mask_s / step_s:.1%}",
            )
    return table


def masking_table() -> Table:
    """Milliseconds of one draw, and its ratio to random masking."""
    batch_size, grid = 64, RECIPES["base-m2d"].grid(80)
    rng = torch.Generator().manual_seed(0)
    guides = {
        "nothing": None,
        "patches": torch.randn(batch_size, 190, 256),
        "features": torch.randn(batch_size, 190, 192),
    }
    settings = {"grid": grid, "batch_size": batch_size, "mask_ratio": 0.7, "rng": rng, "hint_ratio": 0.5}
    table = Table(title=f"masks, batch {batch_size} on {grid.freq} x {grid.time}, hint ratio 0.5", title_justify="left")
    for column in ("strategy", "ms", "ratio to random"):
        table.add_column(column, justify="left" if column == "strategy" else "right")
    random_s = None
    for name in sorted(STRATEGIES, key=lambda name: name != "random"):
        guide = guides[STRATEGIES[name].needs]
        taken = seconds(lambda name=name, guide=guide: draw(name, guide=guide, **settings))
        random_s = random_s or taken
        table.add_row(name, f"{1e3 * taken:.2f}", f"{taken / random_s:.1f}")
    return table


def seconds(call: Callable[[], object]) -> float:
    """Median wall time of a call, after two that warm up."""
    times = []
    for _ in range(ROUNDS + 2):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


if __name__ == "__main__":
    main()
