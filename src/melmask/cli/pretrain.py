"""The command pretrain: an encoder trained on a store."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.markup import escape
from rich.progress import Progress, TaskID
from rich.table import Table
from tyro.conf import OmitArgPrefixes, Positional

from melmask.cli.console import answer, bar, console, named, print_next, print_path
from melmask.cli.main import EXIT_INTERRUPTED
from melmask.cli.options import DEFAULT_RECIPE, Init, Loggers, NewRun, OptionalStore, OptionalTable, Threads, Verify
from melmask.train.initial import STARTS
from melmask.train.paper import VARIANTS, named_recipe, settings_of
from melmask.train.recipe import RECIPES, Recipe, as_text

if TYPE_CHECKING:
    from melmask.train.callbacks import Callback

RANDOM = "random"  # in place of weights to start from
MENTIONED_SHARE = 0.01  # of the time, above which the cost of masks is shown


def pretrain(
    store: Positional[OptionalStore] = None,
    out: NewRun = None,
    settings: OmitArgPrefixes[Recipe] = RECIPES[DEFAULT_RECIPE],
    recipe: Literal[tuple(RECIPES)] = DEFAULT_RECIPE,  # type: ignore[valid-type]
    variant: Literal[tuple(VARIANTS)] | None = None,  # type: ignore[valid-type]
    resume: bool = False,
    init: Init = None,
    dry_run: bool = False,
    threads: Threads = None,
    online_probe: OptionalTable = None,
    probe_every: int = 500,
    log_to: Loggers = (),
    rank_timeout_s: float = 600.0,
    verify: Verify = "first",
) -> None:
    """Train an encoder on a store, by a recipe with any setting changed.

    Example: melmask pretrain store --out run --recipe quick-msm-mae

    Args:
        store: the folder that `melmask prepare` wrote; or procedural, for synthesised sound alone.
        out: the run's folder.
        settings: the recipe's settings, each of which can be changed.
        recipe: the named settings to start from; in paper-m2d and paper-msm-mae the strategy brings its schedule.
        variant: an ablation of these two: weights of dwm, or hints of dwm and sgim.
        resume: resume the run in that folder, with its own recipe; of a run with --schedule wsd, --steps or --epochs
            and --decay may be changed, to extend it or to end it early.
        probe_every: optimiser steps from one such score to the next.
        rank_timeout_s: seconds after which a process that does not answer ends the others, where torchrun starts
            several.
        dry_run: train nothing; print every setting with its source, and what the run would take on the store, or
            without one on AudioSet.
    """
    from melmask.demo.procedural.stream import open_data
    from melmask.plan.memory import check_memory
    from melmask.train import loop, run_folder

    named_recipe(recipe, settings.strategy, variant)  # so that a variant that is none of the recipe's is named
    if dry_run:
        show_dry_run(settings, recipe, variant, store)
        return
    if store is None or out is None:
        raise ValueError("pretrain needs a store and a folder for the run: melmask pretrain STORE --out RUN")
    if resume and settings == RECIPES[recipe]:
        settings = run_folder.own_recipe(out) or settings
    if init is None and not (out / run_folder.RECIPE).exists():
        init = STARTS.get(recipe)
    start = None if init == RANDOM else init
    data = open_data(store, verify)
    callbacks = make_callbacks(online_probe, probe_every, log_to)
    check_memory(settings.on(data), data.spec.num_mels, int(os.environ.get("WORLD_SIZE", "1")))
    with bar("training", lines=False) as (progress, task):
        callbacks = [steps_shown(progress, task), *callbacks]

        def show(line: run_folder.LogEntry) -> None:
            note = f"loss [bold]{line.loss:.4f}[/]  rank {line.effective_rank:.0f}  {line.samples_per_s:.0f} samples/s"
            if line.mask_share >= MENTIONED_SHARE:
                note += f"  {100 * line.mask_share:.0f} % for masks"
            for name, value in line.measured.items():
                note += f"  {named(name)} [bold]{value:.3f}[/]"
            progress.update(task, completed=line.step, total=line.num_steps, note=note)
            if not console.is_terminal:
                console.print(f"step {line.step}/{line.num_steps}  {note}  {line.elapsed_s:.0f} s")

        def tell(text: str) -> None:
            console.print(escape(text), soft_wrap=True)

        complete = loop.pretrain(
            settings,
            data,
            out,
            resume=resume,
            init=start,
            num_threads=threads,
            rank_timeout_s=rank_timeout_s,
            report=show,
            note=tell,
            callbacks=callbacks,
            failed=tell,
        )
    if not complete:
        command = shlex.join(["melmask", "pretrain", str(store), "--out", str(out), "--resume"])
        console.print(f"interrupted; the run was saved. Resume with:\n  {command}", soft_wrap=True)
        sys.exit(EXIT_INTERRUPTED)
    answer.update(steps=settings.steps, size=settings.size, framework=settings.framework, strategy=settings.strategy)
    print_path(out, after=f" is complete: {settings.size} {settings.framework}, {settings.strategy} masking")
    print_next("melmask", "evaluate", out, "--task", "TABLE")


def steps_shown(progress: Progress, task: TaskID) -> "Callback":
    """A callback that moves the bar at every step, so that the time left is known after the first ones."""
    from melmask.train.callbacks import Callback, Started

    class StepsShown(Callback):
        def on_start(self, started: Started) -> None:
            progress.update(task, completed=started.first_step, total=started.num_steps)

        def on_step(self, step: int) -> None:
            progress.update(task, completed=step)

    return StepsShown()


def make_callbacks(table: Path | None, every: int, loggers: Sequence[str]) -> "list[Callback]":
    """The online probe of a table, if one is named, and the loggers of these names.

    Raises:
        ValueError: the table is no task, or there is no such logger.
        ImportError: a logger's library is not installed.
    """
    if table is None and not loggers:
        return []
    from melmask.callbacks import OnlineProbe, make_logger

    probes: list[Callback] = [OnlineProbe(table, every)] if table else []
    return [*probes, *(make_logger(name) for name in loggers)]


def show_dry_run(settings: Recipe, recipe: str, variant: str | None, store: Path | None) -> None:
    """Print every setting with its source, and what the run would take on each known device."""
    from melmask.cli.plan import devices_table
    from melmask.demo.procedural.stream import open_data
    from melmask.plan.plan import AUDIOSET, Data

    data = AUDIOSET
    opened = None if store is None else open_data(store)
    settings = settings if opened is None else settings.on(opened)
    if opened is not None and not len(opened):
        data = Data(settings.steps * settings.batch_size, settings.crop_frames / opened.spec.frames_per_s, opened.spec)
    elif opened is not None:
        clip_s = opened.info["duration_s"] / len(opened.clips)
        data = Data(len(settings.make_loader(opened).rows), clip_s, opened.spec)
    console.print(settings_table(settings, recipe, variant))
    console.print(devices_table(settings, data))


def settings_table(settings: Recipe, recipe: str, variant: str | None) -> Table:
    """Every setting of a recipe: its value, who states it, and where or why."""
    named = f"{recipe}, {settings.strategy} masking" + (f", variant {variant}" if variant else "")
    caption = (
        "paper: arXiv 2603.23810; published default: the code or the papers that it builds on (melmask docs paper); "
        "ours: melmask's choice; yours: changed in this call"
    )
    table = Table(title=named, caption=caption, title_justify="left", caption_justify="left")
    for column in ("setting", "value", "source", "note"):
        table.add_column(column, overflow="fold")
    for one in settings_of(settings, recipe, variant):
        style = "bold" if one.source == "yours" else None
        table.add_row(one.name, escape(as_text(one.value)), one.source, escape(one.note), style=style)
    return table
