"""How fast training is and where its time goes, on this machine: `make bench`."""

import dataclasses
import statistics
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import torch
from rich.console import Console
from rich.table import Table
from timing import in_turns, machine, ratio

from melmask.data.loader import Loader
from melmask.data.prepare import prepare
from melmask.data.store import Store
from melmask.patches import patchify
from melmask.train.distributed import World
from melmask.train.loop import Trainer
from melmask.train.recipe import RECIPES

NUM_CLIPS, CLIP_S, BATCH_SIZE, BUDGET_S = 64, 4, 32, 5.0


def main() -> None:
    console = Console(highlight=False)
    console.print(machine())
    with tempfile.TemporaryDirectory() as folder:
        console.print(training_table(noise_store(Path(folder)), Path(folder)))


def noise_store(folder: Path) -> Store:
    """A store of coloured noise: speed does not depend on what is heard."""
    rng = np.random.default_rng(0)
    (folder / "noise").mkdir()
    for i in range(NUM_CLIPS):
        noise = np.cumsum(rng.standard_normal(CLIP_S * 16_000))
        soundfile.write(folder / "noise" / f"{i:03}.wav", 0.5 * noise / np.abs(noise).max(), 16_000)
    return prepare([folder / "noise"], folder / "store", num_workers=0)


def training_table(store: Store, folder: Path) -> Table:
    """Samples per second of whole steps, and the shares that are not the model's."""
    table = Table(
        title="training, tiny, 2.08-s crops, batch 32 (reading runs beside the step, in a thread)", title_justify="left"
    )
    for column in ("framework", "precision", "samples/s", "ratio to float32", "reading/step", "dwm mask/step"):
        table.add_column(column, justify="left" if column == "framework" else "right")
    for framework in ("msm-mae", "m2d"):
        calls = {}
        for precision in ("float32", "bf16"):
            trainer = trainer_of(framework, precision, store, folder / f"{framework}-{precision}")
            batch = trainer.loader.part(0)
            patches = patchify(batch.log_mel, trainer.recipe.patch_shape)
            calls |= {
                f"{precision} step": lambda t=trainer, b=batch: t.step(1, iter([b])),
                f"{precision} read": lambda t=trainer: t.loader.part(1),
                f"{precision} mask": lambda t=trainer, b=batch, p=patches: t.masker.draw(
                    (1, 0), 0.5, t.model, b, p, None
                ),
            }
        times = in_turns(calls, BUDGET_S)
        for precision in ("float32", "bf16"):
            step = times[f"{precision} step"]
            table.add_row(
                framework,
                precision,
                f"{BATCH_SIZE / statistics.median(step):.0f}",
                f"{ratio(times['float32 step'], step):.2f}",
                f"{ratio(times[f'{precision} read'], step):.1%}",
                f"{ratio(times[f'{precision} mask'], step):.1%}",
            )
    return table


def trainer_of(framework: str, precision: str, store: Store, run: Path) -> Trainer:
    recipe = dataclasses.replace(
        RECIPES[f"tiny-{framework}"], precision=precision, batch_size=BATCH_SIZE, strategy="dwm", hint_start=0.0
    )
    loader = Loader(store, crop_frames=recipe.crop_frames, batch_size=BATCH_SIZE, seed=0)
    return Trainer(recipe, loader, run, World(0, 1, torch.device("cpu")), lambda progress: None)


if __name__ == "__main__":
    main()
