"""Options and steps that several commands share."""

import os
from collections.abc import Sequence
from pathlib import Path

from melmask.cli.console import bar, console, rejections_table
from melmask.data.prepare import prepare as prepare_store
from melmask.data.store import Store
from melmask.evaluate.run import task_store_folder
from melmask.logmel import LogMelSpec

DEFAULT_SPEC = LogMelSpec()
NUM_CORES = os.cpu_count() or 1


def prepare_shown(sources: Sequence[Path], out: Path, workers: int, spec: LogMelSpec = DEFAULT_SPEC) -> Store:
    """Prepare with a progress bar, and say what was rejected."""
    with bar("preparing") as (progress, task):

        def show(done: int, total: int, audio_s: float, num_rejected: int) -> None:
            rejected = f", [red]{num_rejected} rejected[/]" if num_rejected else ""
            progress.update(task, completed=done, total=total, note=f"{audio_s / 3600:.2f} h of audio{rejected}")

        store = prepare_store(sources, out, spec=spec, num_workers=workers, progress=show)
    if store.rejected:
        console.print(rejections_table(store, out / "rejected.csv"))
    return store


def prepare_task(table: Path, spec: LogMelSpec, workers: int) -> Store:
    """A task's recordings, prepared where they are kept for the next time."""
    return prepare_shown([table], task_store_folder(table, spec), workers, spec)


EXIT_INTERRUPTED = 130
DEFAULT_RECIPE = "tiny-msm-mae"


def named_recipe(arguments: Sequence[str]) -> str:
    """The recipe that the arguments name, found before they are parsed, so that --help shows its settings."""
    for i, argument in enumerate(arguments):
        if argument.startswith("--recipe="):
            return argument.removeprefix("--recipe=")
        if argument == "--recipe" and i + 1 < len(arguments):
            return arguments[i + 1]
    return DEFAULT_RECIPE
