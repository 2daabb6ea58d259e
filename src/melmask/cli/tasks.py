"""The command tasks: list the tasks of public data sets, describe one, make its table from the data set's folder."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from rich import box
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from tyro.conf import OmitArgPrefixes, Positional, arg, subcommand

from melmask.cli.console import NotedProgress, answer, console, named, print_next, print_notes, print_path
from melmask.cli.options import File, Folder, OptionalFolder
from melmask.data.download import download
from melmask.datasets import DATASETS, find_dataset
from melmask.datasets.base import Dataset

NO_ARCHIVE = "no archive is known"
WIDE = 100  # columns of a terminal, from which on the list has pages; `melmask tasks show` always has


@dataclass(frozen=True)
class Listing:
    """List all tasks.

    Example: melmask tasks list
    """


@dataclass(frozen=True)
class Description:
    """Describe a task: the layout of its folder, which of its splits are official, and where it is available.

    Example: melmask tasks show esc50

    Args:
        name: of the task, or package.module:DATASET for a data set of your own.
    """

    name: Positional[Annotated[str, arg(metavar="TASK")]]


@dataclass(frozen=True)
class Making:
    """Make a task's table from its data set's folder, and report what is missing.

    Example: melmask tasks make esc50 ESC-50-master --out esc50.csv

    Args:
        name: of the task, or package.module:DATASET for a data set of your own.
        folder: the data set's folder, as released; with --download it need not exist yet.
        out: the table to write, a .csv; a record of what it was made from is written beside it.
        lists: a list, or the folder of lists, that is not part of the release; see `melmask tasks show`.
        split: default, the official split or, where there is none, melmask's; evar, that of M2D's evaluation package,
            whose split file is given by --lists where the release has no split.
        allow_missing: accept missing clips, and record them.
        download: fetch the data set's archives into the folder first, if its documentation links to plain ones.
    """

    name: Positional[Annotated[str, arg(metavar="TASK")]]
    folder: Positional[Folder]
    out: File
    lists: OptionalFolder = None
    split: Literal["default", "evar"] = "default"
    allow_missing: bool = False
    download: bool = False


Do = (
    Annotated[Listing, subcommand("list", prefix_name=False)]
    | Annotated[Description, subcommand("show", prefix_name=False)]
    | Annotated[Making, subcommand("make", prefix_name=False)]
)


def tasks(do: OmitArgPrefixes[Do] = Listing()) -> None:
    """List public evaluation tasks, and make their tables.

    Example: melmask tasks
    """
    if isinstance(do, Listing):
        console.print(tasks_table())
        answer.update(tasks=[facts_of(dataset) for dataset in DATASETS.values()])
        print_next("melmask", "tasks", "show", "esc50")
    elif isinstance(do, Description):
        dataset = find_dataset(do.name)
        answer.update(facts_of(dataset))
        console.print(_description(dataset))
        print_next("melmask", "tasks", "make", do.name, "FOLDER", "--out", f"{dataset.name}.csv")
    else:
        _make(do)


def tasks_table() -> Table:
    """All tasks, one per line."""
    table = Table(title="Tasks", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("task", no_wrap=True)
    table.add_column("clips", justify="right")
    table.add_column("classes", justify="right")
    table.add_column("splits", no_wrap=True)
    table.add_column("clip, s", justify="right")
    table.add_column("metric")
    if console.width >= WIDE:
        table.add_column("DOI or page", overflow="fold")
    for dataset in DATASETS.values():
        expected, length, page = dataset.expected, f"{dataset.clip_s:g}", dataset.doi or dataset.home
        clips = f"{sum(expected.clips.values()):,}" if expected.clips else "?"
        facts = (dataset.name, clips, f"{expected.classes:,}", dataset.splits, length, dataset.metric)
        table.add_row(*facts, *([page] if console.width >= WIDE else []))
    return table


def facts_of(dataset: Dataset) -> dict[str, Any]:
    """What is known of a data set, without the functions that read it."""
    return {name: value for name, value in asdict(dataset).items() if not callable(value)}


def _description(dataset: Dataset) -> Table:
    """One data set, as a table without lines."""
    title = f"{dataset.title}: {dataset.target}" if dataset.target else dataset.title
    table = Table(box=None, show_header=False, title=title, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    counts = ", ".join(f"{split} {count:,}" for split, count in dataset.expected.clips.items())
    lines = {
        "folder": dataset.layout,
        "lists": dataset.lists,
        "splits": f"{dataset.split_name}: {dataset.protocol}" if dataset.split_name else dataset.protocol,
        "groups": dataset.groups or "none",
        "clips": counts or "not published",
        "classes": f"{dataset.expected.classes:,}" if dataset.expected.classes else "not published",
        "clip length": f"{dataset.clip_s:g} s" if dataset.clip_s else "whole clips",
        "metric": dataset.metric,
        "doi": dataset.doi,
        "page": dataset.home,
        "--download": "\n".join(archive.url for archive in dataset.archives)
        or f"no: {dataset.no_download or NO_ARCHIVE}",
    }
    for name, text in lines.items():
        if text:
            table.add_row(name, escape(text))
    return table


def _make(do: Making) -> None:
    from melmask.datasets.build import build_table, write_table

    dataset = find_dataset(do.name)
    if do.download:
        if not dataset.archives:
            raise ValueError(f"nothing to download for {dataset.reference}: {dataset.no_download or NO_ARCHIVE}")
        _download(dataset, do.folder)
    elif not do.folder.exists() and dataset.archives:
        raise ValueError(
            f"{do.folder} does not exist: get {dataset.reference}, or add --download to fetch it into that folder"
        )
    with console.status(f"reading {named(do.folder)}"):
        table = build_table(dataset, do.folder, lists=do.lists, split=do.split, allow_missing=do.allow_missing)
        record = write_table(table, do.out)
    console.print(_counts_table(dataset, table.num_clips))
    if table.split_name:
        console.print(f"split: {escape(table.split_name)}", soft_wrap=True)
    for shortage in table.shortages:
        console.print(f"[yellow]missing:[/] {escape(shortage)}", soft_wrap=True)
    print_notes(table.notes)
    print_path(do.out, after=f": {len(table.rows):,} clips; what it is made from is in {named(record)}")
    answer.update(clips=table.num_clips)
    print_next("melmask", "evaluate", "tiny", "--task", do.out)


def _counts_table(dataset: Dataset, num_clips: Mapping[str, int]) -> Table:
    """Clips by fold or split, beside what was released."""
    table = Table(title=dataset.title, title_justify="left")
    table.add_column(dataset.split_column)
    table.add_column("clips", justify="right")
    table.add_column("of", justify="right")
    for split, count in num_clips.items():
        released = dataset.expected.clips.get(split)
        table.add_row(split, f"{count:,}", "" if released is None else f"{released:,}")
    return table


def _download(dataset: Dataset, folder: Path) -> None:
    """Fetch and unpack, with a progress bar for each step."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with NotedProgress(*columns) as progress:
        lines: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in lines:
                lines[what] = progress.add_task(what, total=None, note="")
            scale, unit = (1, "members") if what.startswith("unpacking") else (10**6, "MB")
            of = f" of {total // scale:,}" if total else ""
            progress.update(lines[what], completed=done, total=total or None, note=f"{done // scale:,}{of} {unit}")

        download(dataset.archives, folder, show)
