"""What short recordings cost in training: `make bench`, or `python benchmarks/lengths.py --help`."""

import dataclasses
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from page import Table, options_of, publish
from recordings import noise_store
from timing import in_turns, machine, ratio

from melmask.data.store import Store
from melmask.train.distributed import ALONE
from melmask.train.loop import Trainer
from melmask.train.recipe import RECIPES, Recipe

NUM_CLIPS, SHORTEST_S, LONGEST_S = 256, 0.3, 5.0
STEPS = 10**6  # never reached; the schedules need an end
PARTS = (1, 2, 4, 8)
NAMES = ("tiny-msm-mae", "tiny-m2d")
BUDGET_S, QUICK_S = 8.0, 1.0
COLUMNS = {
    "recipe": "",
    "parts": "into which a batch is cut, by length",
    "samples/s": "",
    "ratio": "times as fast as a batch in one part, in which all recordings are padded to the longest",
    "sound": "share of the frames computed on that hold sound",
}


def main(arguments: list[str] | None = None) -> None:
    options = options_of(__doc__, arguments, "few steps: under 55 s on two cores")
    measured_on = machine()
    print(measured_on)
    with tempfile.TemporaryDirectory() as folder:
        store = noise_store(Path(folder), durations_s())
        rows = [row for name in NAMES for row in measure(name, store, QUICK_S if options.quick else BUDGET_S)]
    about = (
        f"{NUM_CLIPS} recordings of {SHORTEST_S} to {LONGEST_S} s, as many of each octave, crops of at most 2.08 s, "
        f"whole steps in bf16 where the processor computes in it, in turns. Measured on {measured_on}."
    )
    publish("lengths", "What short recordings cost", about, [table_of(rows)], rows, options)


def durations_s() -> list[float]:
    """Evenly spread by their logarithm."""
    return np.geomspace(SHORTEST_S, LONGEST_S, NUM_CLIPS).tolist()


def measure(name: str, store: Store, budget_s: float) -> list[dict[str, Any]]:
    """A row for every number of parts."""
    recipes = {parts: dataclasses.replace(RECIPES[name], accumulate=parts, steps=STEPS) for parts in PARTS}
    with ExitStack() as stack:
        calls = {str(parts): stack.enter_context(stepping(recipe, store)) for parts, recipe in recipes.items()}
        for call in calls.values():
            call()
        times = in_turns(calls, budget_s)
    return [
        {
            "framework": recipe.framework,
            "size": recipe.size,
            "recipe": name,
            "parts": parts,
            "samples_per_s": recipe.batch_size / statistics.median(times[str(parts)]),
            "baseline_samples_per_s": recipe.batch_size / statistics.median(times["1"]),
            "ratio": ratio(times["1"], times[str(parts)]),
            "sound_share": sound_share(recipe, store),
        }
        for parts, recipe in recipes.items()
    ]


@contextmanager
def stepping(recipe: Recipe, store: Store) -> Iterator[Callable[[], object]]:
    """A call that makes the loop's next step."""
    trainer = Trainer(recipe, recipe.make_loader(store), Path("unused"), ALONE, lambda progress: None)
    parts, numbers = trainer.parts(0), iter(range(STEPS))
    try:
        yield lambda: trainer.step(next(numbers), parts)
    finally:
        parts.close()


def sound_share(recipe: Recipe, store: Store, num_batches: int = 20) -> float:
    """Frames that hold sound, of all that are computed on."""
    loader = recipe.make_loader(store)
    parts = [
        loader.part(step, part, recipe.accumulate) for step in range(num_batches) for part in range(recipe.accumulate)
    ]
    return sum(int(part.num_valid_frames.sum()) for part in parts) / sum(part.log_mel[:, 0].numel() for part in parts)


def table_of(rows: list[dict[str, Any]]) -> Table:
    cells = [
        [
            row["recipe"], str(row["parts"]), f"{row['samples_per_s']:.0f}", f"{row['ratio']:.2f}",
            f"{row['sound_share']:.0%}",
        ]
        for row in rows
    ]  # fmt: skip
    return Table("Samples a second", COLUMNS, cells)


if __name__ == "__main__":
    main()
