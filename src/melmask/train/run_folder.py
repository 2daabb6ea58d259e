"""A run's folder: the names of its files, how it is made or checked, and its log.

======================  ====================================================================================
recipe.json             every setting of the run
data.json               the store: its path (or "procedural") and fingerprint; and the mean and standard deviation that
                        its log-mels are normalised by
checkpoint.safetensors  the training's state after the last saved step, to resume from
stable.safetensors      of the schedule "wsd": the state at the last step before the learning rate falls
                        (`melmask.train.extension`)
machine.json            what the run was last trained on
init.json               the weights that the run started from, if not from random ones (`melmask.train.initial`)
encoder.safetensors     the encoder with its front end (`melmask.nn.encoder_file`)
encoders/N.safetensors  the encoder after step N, every `keep_every` steps
log.jsonl               a `LogEntry` a line
======================  ====================================================================================
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from melmask.data.store import Store
from melmask.fields import check_fields
from melmask.files import good_lines, read_json, remove_temporaries, write_json
from melmask.locks import exclusive
from melmask.nn.encoder_file import ENCODER
from melmask.train.recipe import Recipe, as_text

DATA_REMEDY = "restore it from a copy; the store's store.json has the fingerprint, and the encoder file mean and std"
KEPT = "encoders"  # folder of the encoders that are kept along a run
RECIPE, DATA, CHECKPOINT, LOG = "recipe.json", "data.json", "checkpoint.safetensors", "log.jsonl"
STABLE = "stable.safetensors"  # of a run that can be extended
INIT = "init.json"  # of a run that started from other weights: which
MACHINE = "machine.json"
LOCK = ".lock"  # held while the run is trained
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
        measured: by callbacks (`melmask.train.callbacks`), by name.
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
    measured: Mapping[str, float] = field(default_factory=dict)

    def numbers(self) -> dict[str, float]:
        """All numbers that change along a run, by name: those that apply, and what was measured."""
        own = {name: value for name, value in vars(self).items() if isinstance(value, float)}
        return own | dict(self.measured)


def open_run(run: Path, recipe: Recipe, store: Store, resume: bool, initial: Mapping[str, str] | None = None) -> None:
    """Make a run's folder, or check that an existing one can be resumed.

    Args:
        run: the folder.
        recipe, store: of the run.
        resume: whether it may hold a run that has saved something.
        initial: what init.json says of the weights that the run starts from; None for random ones.

    Raises:
        ValueError: the folder holds a run that has saved something and ``resume`` is False, its recipe or data are
            others, or its recipe is lost.
    """
    check_recipe_kept(run)
    if (run / RECIPE).exists() and (resume or _has_saved(run)):
        if not resume:
            raise ValueError(f"{run} already holds a run: resume it, or choose another folder")
        own = Recipe.load(run / RECIPE)
        names = [each.name for each in fields(Recipe) if getattr(own, each.name) != getattr(recipe, each.name)]
        if names:
            was = ", ".join(
                f"{name} {as_text(getattr(own, name))}, not {as_text(getattr(recipe, name))}" for name in names
            )
            remedy = f"resume it with its own, in {run / RECIPE}, or choose another folder"
            raise ValueError(f"{run} was started with another recipe ({was}): {remedy}")
        data = read_data(run)
        if not data:
            raise ValueError(f"{run / DATA} is lost: {DATA_REMEDY}")
        if data["fingerprint"] != store.fingerprint:
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


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run, whose folder is made, against other processes that would train it.

    Raises:
        Locked: one does.
    """
    run.mkdir(parents=True, exist_ok=True)
    with exclusive(run / LOCK, f"{run} is being trained by another process: wait for it, or choose another folder"):
        yield


def _has_saved(run: Path) -> bool:
    """Whether a run has saved weights; one that has not, as its start failed, can be started anew."""
    return any((run / name).exists() for name in (CHECKPOINT, STABLE, ENCODER))


def check_is_run(run: Path) -> None:
    """Raise ValueError if a folder holds no run that could be resumed."""
    check_recipe_kept(run)
    if not (run / RECIPE).exists():
        raise ValueError(f"{run} holds no run to resume: check the name, or start one without --resume (resume=True)")


def check_recipe_kept(run: Path) -> None:
    """Raise ValueError if a folder holds a checkpoint and no recipe: another one must not be written beside it."""
    if (run / CHECKPOINT).exists() and not (run / RECIPE).exists():
        raise ValueError(
            f"{run} holds a checkpoint, and its {RECIPE} is lost: restore that file from a copy, or save a Recipe with "
            f"the run's settings, which its report lists, to {run / RECIPE}; or choose another folder"
        )


def own_recipe(run: Path) -> Recipe | None:
    """The recipe of the run in a folder; None if it holds none.

    Raises:
        ValueError: its file is damaged, or lost beside a checkpoint.
    """
    check_recipe_kept(run)
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
    """What data.json says: store, fingerprint, and the mean and std that normalise; empty if the run has none.

    Raises:
        ValueError: it is damaged.
    """
    path = run / DATA
    needed = {"store": str, "fingerprint": str, "mean": float, "std": float}
    return read_json(path, "description of a run's data", needed, DATA_REMEDY) if path.exists() else {}


def note_machine(run: Path, hardware: str, num_processes: int) -> None:
    """Write what a run is trained on, for reports."""
    write_json(run / MACHINE, {"hardware": f"{num_processes} x {hardware}" if num_processes > 1 else hardware})


def read_machine(run: Path) -> dict[str, Any]:
    """What machine.json says; empty where there is none, as of earlier versions.

    Raises:
        ValueError: it is damaged.
    """
    path = run / MACHINE
    return read_json(path, "note of a run's machine", {"hardware": str}, "delete it") if path.exists() else {}


def read_log(run: Path) -> list[dict[str, Any]]:
    """The fields of every `LogEntry` of a run, oldest first; damaged lines are left out and named in a warning."""
    return good_lines(run / LOG, log_values)


def log_values(values: dict[str, Any]) -> dict[str, Any]:
    """The fields of an entry of any version, of which all have the step.

    Raises:
        ValueError: it has none.
    """
    check_fields(values, {"step": int})
    return values
