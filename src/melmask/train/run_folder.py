"""A run's folder: the names of its files, how it is made or checked, and its log.

======================  ====================================================================================
recipe.json             every setting of the run
data.json               the store: its path (or "procedural"), fingerprint, mean and standard deviation
checkpoint.safetensors  the training's state after the last saved step, to resume from
stable.safetensors      of the schedule "wsd": the state at the last step before the learning rate falls
                        (`melmask.train.extension`)
init.json               the weights that the run started from, if not from random ones (`melmask.train.initial`)
encoder.safetensors     the encoder with its front end (`melmask.nn.encoder_file`)
encoders/N.safetensors  the encoder after step N, every `keep_every` steps
log.jsonl               a `LogEntry` a line; the same numbers are in TensorBoard's events.out.tfevents.*
======================  ====================================================================================
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melmask.data.store import Store
from melmask.files import remove_temporaries, write_json
from melmask.train.recipe import Recipe

KEPT = "encoders"  # folder of the encoders that are kept along a run
RECIPE, DATA, CHECKPOINT, LOG = "recipe.json", "data.json", "checkpoint.safetensors", "log.jsonl"
STABLE = "stable.safetensors"  # of a run that can be extended
INIT = "init.json"  # of a run that started from other weights: which
SUFFIX = ".safetensors"
MASKING = "masking."  # prefix of the masking strategy's state in a checkpoint


@dataclass(frozen=True)
class LogEntry:
    """One line of a run's log.

    Args:
        step: optimiser steps done.
        num_steps: optimiser steps of the run.
        loss: of the last step.
        learning_rate: of the last step.
        grad_norm: of the last step, before clipping.
        effective_rank: of the online encoder's features (`melmask.train.monitors`).
        feature_deviation: of the same features.
        hint_ratio: h in [0, 1]; None for a strategy that takes no hints.
        guidance: λ in [0, 1]; None likewise.
        exponent: of the strategy's weights; None where it is not annealed.
        mask_share: share of the time since the last entry that guides and masks took.
        samples_per_s: crops a second since the last entry, over all processes.
        elapsed_s: seconds since the run was started or resumed.
        num_threads: that the last step, or the next, computes on.
    """

    step: int
    num_steps: int
    loss: float
    learning_rate: float
    grad_norm: float
    effective_rank: float
    feature_deviation: float
    hint_ratio: float | None
    guidance: float | None
    exponent: float | None
    mask_share: float
    samples_per_s: float
    elapsed_s: float
    num_threads: int


def open_run(run: Path, recipe: Recipe, store: Store, resume: bool, initial: Mapping[str, str] | None = None) -> None:
    """Make a run's folder, or check that an existing one can be resumed.

    Args:
        run: the folder.
        recipe, store: of the run.
        resume: whether it may hold a run.
        initial: what init.json says of the weights that the run starts from; None for random ones.

    Raises:
        ValueError: the folder holds a run and ``resume`` is False, or its recipe or data are others.
    """
    if (run / RECIPE).exists():
        if not resume:
            raise ValueError(f"{run} already holds a run: resume it, or choose another folder")
        if Recipe.load(run / RECIPE) != recipe:
            own = f"resume it with its own, in {run / RECIPE}"
            raise ValueError(f"{run} was started with another recipe: {own}, or choose another folder")
        if read_data(run)["fingerprint"] != store.fingerprint:
            raise ValueError(f"{run} was trained on other data than {store.place}: resume it with its own store")
        remove_temporaries(run)
        remove_temporaries(run / KEPT)
        if initial:  # the same weights, perhaps in another place
            write_json(run / INIT, dict(initial))
        return
    run.mkdir(parents=True, exist_ok=True)
    data = {"store": store.place, "fingerprint": store.fingerprint}
    write_json(run / DATA, data | {"mean": store.mean, "std": store.std})
    if initial:
        write_json(run / INIT, dict(initial))
    else:
        (run / INIT).unlink(missing_ok=True)  # of a start that was cut off
    recipe.save(run / RECIPE)  # last, as it says that the folder holds a run


def own_recipe(run: Path) -> Recipe | None:
    """The recipe of the run in a folder; None if it holds none.

    Raises:
        ValueError: its file is damaged.
    """
    return Recipe.load(run / RECIPE) if (run / RECIPE).exists() else None


def kept_encoder(run: Path, step: int) -> Path:
    """The file of the encoder that a run keeps of that step."""
    return run / KEPT / f"{step}{SUFFIX}"


def kept_steps(run: Path) -> list[int]:
    """The steps whose encoders a run keeps, in ascending order."""
    return sorted(int(file.stem) for file in (run / KEPT).glob(f"*{SUFFIX}") if file.stem.isdigit())


def split_step(path: Path) -> tuple[Path, int | None]:
    """A run's folder and the step, of RUN@STEP; any other path, and one that exists, with None.

    Raises:
        ValueError: the run keeps no encoder of that step.

    >>> split_step(Path("run")), split_step(Path("a@b"))
    ((PosixPath('run'), None), (PosixPath('a@b'), None))
    """
    name, at, step = path.name.rpartition("@")
    run = path.with_name(name) if name else path
    if not at or not step.isdigit() or path.exists() or not run.is_dir():
        return path, None
    steps = kept_steps(run)
    if int(step) not in steps:
        kept = f"it keeps: {', '.join(map(str, steps))}" if steps else "it keeps none: pretrain with --keep-every"
        raise ValueError(f"{run} keeps no encoder of step {step}; {kept}")
    return run, int(step)


def read_data(run: Path) -> dict[str, Any]:
    """What data.json says of the store: store, fingerprint, mean and std; empty if the run has none."""
    path = run / DATA
    return json.loads(path.read_text()) if path.exists() else {}


def read_log(run: Path) -> list[dict[str, Any]]:
    """The fields of every `LogEntry` of a run, oldest first; a last line that a kill cut off is left out."""
    path, entries = run / LOG, []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return entries
