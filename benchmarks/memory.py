"""How much memory training needs, by a few steps in a process of their own: `benchmarks/memory.py --help`.

The target is base M2D with 8 crops a step in less than 3 GiB; what takes it is estimated beside what is measured.
"""

import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import torch
from page import Table, options_of, publish
from timing import machine

from melmask.logmel import LogMelSpec
from melmask.plan.memory import Footprint, Setting, footprint
from melmask.plan.trial import peak_memory, try_steps
from melmask.runtime import computes_in_bf16
from melmask.train.recipe import RECIPES, Recipe

CPU, GIB, SPEC = torch.device("cpu"), 2**30, LogMelSpec()
CLIP_S = 10.0
CASES: dict[str, dict[str, Any]] = {
    "base-m2d": {"batch_size": 8},
    "base-m2d, float32": {"batch_size": 8, "precision": "float32"},
    "base-m2d, recomputed": {"batch_size": 8, "checkpoint_activations": True},
    "base-msm-mae": {"batch_size": 8},
    "tiny-m2d": {},
    "tiny-msm-mae": {},
}
QUICK = ("base-m2d",)
SHORT = {
    "untrained_weights": "others",
    "half_weights": "bf16",
    "activations": "kept",
    "temporaries": "passing",
    "gradients": "grads",
}

ABOUT = (
    "Three steps of each recipe on noise, on a CPU, in a process of its own. recomputed: with checkpoint_activations. "
    "The interpreter with torch and all libraries is counted in the peak; the model's part is what came on top of it."
)
COLUMNS = {
    "recipe": "",
    "batch": "crops in a step",
    "peak": "the most that the process ever held, in GiB",
    "libraries": "of it, before the model was made",
    "model": "of it, since then",
    "estimated": "the same as `melmask plan` estimates it",
    "ratio": "estimated to measured",
}


@dataclass(frozen=True)
class Row:
    """One recipe's memory in bytes, with the names it has in JSON."""

    recipe: str
    dtype: str
    batch: int
    peak_bytes: int
    model_bytes: int
    estimated_bytes: int
    parts: dict[str, int]


def main(arguments: list[str] | None = None) -> None:
    options = options_of(__doc__, arguments, "only the recipe that has a target")
    about = f"{ABOUT} Measured on {machine()}."
    rows = [measured(name) for name in (QUICK if options.quick else CASES)]
    tables = [measured_table(rows), parts_table(rows)]
    publish(
        "memory", "What training needs in memory", about, tables, [dataclasses.asdict(row) for row in rows], options
    )


def recipe_of(case: str) -> Recipe:
    return dataclasses.replace(RECIPES[case.split(",")[0]], **CASES[case])


def measured(case: str) -> Row:
    """The case's memory, from a process that does nothing else."""
    recipe = recipe_of(case)
    done = subprocess.run([sys.executable, __file__, "--steps-of", case], check=True, capture_output=True, text=True)
    peak, model = json.loads(done.stdout.splitlines()[-1])
    in_bf16 = recipe.precision != "float32" and computes_in_bf16(CPU)
    expected = footprint(recipe, SPEC.num_mels, Setting(1, in_bf16, on_gpu=False))
    dtype = "bf16" if in_bf16 else "float32"
    return Row(case, dtype, recipe.batch_size, peak, model, expected.peak, held_by(expected))


def held_by(expected: Footprint) -> dict[str, int]:
    """What the memory holds, but for the sum of it."""
    return {name: size for name, size in dataclasses.asdict(expected).items() if name not in ("peak", "buckets")}


def train(case: str) -> None:
    """The steps themselves; prints the process's peak and the model's part of it, in bytes."""
    recipe = recipe_of(case)
    trial = try_steps(recipe, SPEC, CLIP_S, budget_s=0.0)
    print(json.dumps([peak_memory(CPU), trial.peak_bytes]))


def measured_table(rows: list[Row]) -> Table:
    lines = [
        [
            f"{row.recipe} ({row.dtype})",
            str(row.batch),
            *(f"{size / GIB:.2f}" for size in (row.peak_bytes, row.peak_bytes - row.model_bytes, row.model_bytes)),
            f"{row.estimated_bytes / GIB:.2f}",
            f"{row.estimated_bytes / row.model_bytes:.2f}",
        ]
        for row in rows
    ]
    return Table("Peak memory in GiB", COLUMNS, lines)


def parts_table(rows: list[Row]) -> Table:
    names = list(rows[0].parts)
    lines = [[row.recipe, *(f"{row.parts[name] / GIB:.2f}" for name in names)] for row in rows]
    return Table(
        "What takes it, as estimated, in GiB (gradients come as activations and bf16 weights go)",
        {"recipe": "", **{SHORT.get(name, name): "" for name in names}},
        lines,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--steps-of"]:
        train(sys.argv[2])
    else:
        main()
