"""Where the time of a step goes, by what is computed: `make bench`, or `python benchmarks/profile_step.py --help`."""

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from page import Table, options_of, publish
from recordings import noise_store
from timing import machine
from torch.profiler import ProfilerActivity, profile
from train import CLIP_S, DTYPES, NUM_CLIPS, SETTINGS, recipe_of

from melmask.data.store import Store
from melmask.runtime import keep_freed_memory
from melmask.train.distributed import World
from melmask.train.loop import Trainer
from melmask.train.recipe import Recipe

NUM_STEPS, QUICK_STEPS = {"tiny": 5, "base": 2}, {"tiny": 1, "base": 1}
# What PyTorch calls its operations -> what they are. Times are of an operation without those it calls.
KINDS = {
    "products": ("mm", "addmm", "bmm", "baddbmm", "linear", "convolution", "mkldnn", "matmul", "dot"),
    "softmax": ("softmax",),
    "GELU": ("gelu",),
    "norms": ("layer_norm", "layernorm"),
    "casts and copies": ("copy_", "to", "clone", "contiguous", "cat", "index", "gather", "scatter", "stack"),
    "sums and products by element": ("add", "mul", "sub", "div", "sum", "mean", "neg", "pow", "rsqrt", "sqrt", "var"),
    "optimiser": ("adam", "foreach", "norm"),
}
OTHER, OUTSIDE = "other operations", "between operations"

ABOUT = (
    "The shares of a training step's time, by torch.profiler, at the settings of the section on training. An operation "
    "counts by its own time, without what it calls. What the step takes beyond all operations is Python's and the "
    "profiler's, which makes steps of many small operations seem slower than they are."
)
COLUMNS = {"framework": "", "size": "", "dtype": "", "ms": "of a step", **dict.fromkeys((*KINDS, OTHER, OUTSIDE), "")}


def main(arguments: list[str] | None = None) -> None:
    options = options_of(__doc__, arguments, "one step each: under 55 s on two cores")
    measured_on = machine()
    print(measured_on)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        rows = list(measure(noise_store(Path(folder), [CLIP_S] * NUM_CLIPS), options.quick))
    about = f"{ABOUT} Measured on {measured_on}."
    publish("profile_step", "What a step's time is spent on", about, [table_of(rows)], rows, options)


def measure(store: Store, quick: bool) -> Iterator[dict[str, Any]]:
    """A row for every framework, size and dtype."""
    for name in SETTINGS:
        for dtype in DTYPES:
            recipe = dataclasses.replace(recipe_of(name), precision=dtype)
            yield row_of(recipe, store, (QUICK_STEPS if quick else NUM_STEPS)[recipe.size])


def row_of(recipe: Recipe, store: Store, num_steps: int) -> dict[str, Any]:
    """The shares of one recipe's steps."""
    cpu = torch.device("cpu")
    trainer = Trainer(recipe, recipe.make_loader(store), Path("unused"), World(0, 1, cpu), lambda entry: None)
    parts = trainer.parts(0)
    trainer.step(0, parts)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for number in range(1, num_steps + 1):
            with torch.profiler.record_function(OUTSIDE):
                trainer.step(number, parts)
    taken_us = dict.fromkeys((*KINDS, OTHER, OUTSIDE), 0.0)
    total_us = 0.0
    for event in profiler.key_averages():
        if event.key == OUTSIDE:
            total_us = event.cpu_time_total
        taken_us[OUTSIDE if event.key == OUTSIDE else kind_of(event.key)] += event.self_cpu_time_total
    return {
        "framework": recipe.framework,
        "size": recipe.size,
        "dtype": recipe.precision,
        "step_s": total_us / num_steps / 1e6,
        **{kind: taken / sum(taken_us.values()) for kind, taken in taken_us.items()},
    }


def kind_of(operation: str) -> str:
    """What an operation of PyTorch is, by its name.

    >>> kind_of("aten::_softmax_backward_data"), kind_of("aten::addmm")
    ('softmax', 'products')
    """
    name = operation.removeprefix("aten::").strip("_").lower()
    # The longest name that fits, since "add" is in "addmm", and "norm" in "native_layer_norm".
    fits = [(len(part), kind) for kind, parts in KINDS.items() for part in parts if part.strip("_") in name]
    return max(fits)[1] if fits else OTHER


def table_of(rows: list[dict[str, Any]]) -> Table:
    cells = [
        [
            row["framework"], row["size"], row["dtype"], f"{1e3 * row['step_s']:.0f}",
            *(f"{row[kind]:.0%}" for kind in (*KINDS, OTHER, OUTSIDE)),
        ]
        for row in rows
    ]  # fmt: skip
    return Table("Shares of a step's time", COLUMNS, cells, num_names=3)


if __name__ == "__main__":
    main()
