"""Commands about named tasks: list them, describe one, and make one's table from its data set's folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from rich import box
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from tyro.conf import OmitArgPrefixes, Positional, subcommand

from melmask.cli.console import console
from melmask.data.download import download
from melmask.datasets import NAMED_TASKS
from melmask.datasets.base import NamedTask
from melmask.datasets.build import Built, build, write


@dataclass(frozen=True)
class Listing:
    """List all named tasks."""


@dataclass(frozen=True)
class Description:
    """Say what a task's folder must hold, what of its splits is official, and where it is to be had.

    Args:
        name: the task.
    """

    name: Positional[Literal[tuple(NAMED_TASKS)]]  # type: ignore[valid-type]


@dataclass(frozen=True)
class Making:
    """Make a task's table from its data set's folder; count everything, and say exactly what is missing or too much.

    Args:
        name: the task.
        folder: the data set's folder, as released; with --download it need not exist yet.
        out: the table to write, a .csv; a record of what it was made of goes beside it.
        lists: a list, or the folder of lists, that is not part of the release; see `melmask tasks show`.
        allow_missing: take what is there if clips are missing, and record what is missing.
        download: fetch the data set's archives into the folder first, where its documentation names plain ones.
    """

    name: Positional[Literal[tuple(NAMED_TASKS)]]  # type: ignore[valid-type]
    folder: Positional[Path]
    out: Path
    lists: Path | None = None
    allow_missing: bool = False
    download: bool = False


Do = (
    Annotated[Listing, subcommand("list", prefix_name=False)]
    | Annotated[Description, subcommand("show", prefix_name=False)]
    | Annotated[Making, subcommand("make", prefix_name=False)]
)


def tasks(do: OmitArgPrefixes[Do] = Listing()) -> None:
    """Named tasks: which public data sets there are, and how to make one's table from its folder."""
    if isinstance(do, Listing):
        console.print(tasks_table())
        console.print("[dim]melmask tasks show NAME: what it is, its folder, its splits, its page[/]")
    elif isinstance(do, Description):
        console.print(_description(NAMED_TASKS[do.name]))
    else:
        _make(do)


def tasks_table() -> Table:
    """All named tasks, one a line."""
    table = Table(title="Named tasks", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("task")
    table.add_column("clips", justify="right")
    table.add_column("classes", justify="right")
    table.add_column("splits")
    table.add_column("unit, s", justify="right")
    table.add_column("metric")
    table.add_column("DOI or page", overflow="fold")
    for task in NAMED_TASKS.values():
        clips = f"{sum(task.expected.clips.values()):,}" if task.expected.clips else "?"
        unit, where = f"{task.clip_s:g}", task.doi or task.home
        table.add_row(task.name, clips, f"{task.expected.classes:,}", task.splits, unit, task.metric, where)
    return table


def _description(task: NamedTask) -> Table:
    """What a user has to know about one task, as a table without lines."""
    table = Table(box=None, show_header=False, title=f"{task.title}: {task.what}", title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    counts = ", ".join(f"{split} {count:,}" for split, count in task.expected.clips.items()) or "not published"
    lines = {
        "folder": task.layout,
        "lists": task.lists,
        "splits": task.protocol,
        "groups": task.groups or "none",
        "clips": counts,
        "classes": f"{task.expected.classes:,}",
        "unit length": f"{task.clip_s:g} s",
        "metric": task.metric,
        "doi": task.doi,
        "page": task.home,
        "--download": "\n".join(archive.url for archive in task.archives) or f"no: {task.no_download}",
    }
    for name, text in lines.items():
        if text:
            table.add_row(name, escape(text))
    return table


def _make(do: Making) -> None:
    task = NAMED_TASKS[do.name]
    if do.download:
        if not task.archives:
            raise ValueError(f"nothing to download for {task.where}: {task.no_download}")
        _download(task, do.folder)
    elif not do.folder.exists() and task.archives:
        raise ValueError(
            f"{do.folder} does not exist: get {task.where}, or add --download to fetch it into that folder"
        )
    built = build(task, do.folder, lists=do.lists, allow_missing=do.allow_missing)
    record = write(built, do.out)
    console.print(_counts_table(built))
    for shortage in built.shortages:
        console.print(f"[yellow]missing:[/] {escape(shortage)}", soft_wrap=True)
    for note in built.notes:
        console.print(f"[dim]note: {escape(note)}[/]", soft_wrap=True)
    console.print(f"[bold]{do.out}[/]: {len(built.rows):,} clips; what it is made of is in {record}", soft_wrap=True)


def _counts_table(built: Built) -> Table:
    """Clips by fold or split, beside what was released."""
    table = Table(title=built.task.title, title_justify="left")
    table.add_column(built.task.column)
    table.add_column("clips", justify="right")
    table.add_column("of", justify="right")
    for split, count in built.num_clips.items():
        released = built.task.expected.clips.get(split)
        table.add_row(split, f"{count:,}", "" if released is None else f"{released:,}")
    return table


def _download(task: NamedTask, folder: Path) -> None:
    """Fetch and unpack with a bar for each step."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console) as progress:
        lines: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in lines:
                lines[what] = progress.add_task(what, total=None, note="")
            scale, unit = (1, "members") if what.startswith("unpacking") else (10**6, "MB")
            of = f" of {total // scale:,}" if total else ""
            progress.update(lines[what], completed=done, total=total or None, note=f"{done // scale:,}{of} {unit}")

        download(task.archives, folder, show)
