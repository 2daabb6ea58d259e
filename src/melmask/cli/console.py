"""What the command line shows: progress bars and tables."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from melmask.data.store import Store
from melmask.evaluate.results import Result

# Of the processes that torchrun starts, only the first speaks.
console = Console(highlight=False, quiet=os.environ.get("RANK", "0") != "0")
PROBE_WIDTH = 20


@contextmanager
def bar(what: str) -> Iterator[tuple[Progress, TaskID]]:
    """A progress bar on the terminal, with room for a note."""
    columns = (
        SpinnerColumn(),
        TextColumn(what),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console) as progress:
        yield progress, progress.add_task(what, total=None, note="")


@contextmanager
def noted_bar(what: str) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar as a call: what is being done, how much of it is, and of how much."""
    with bar(what) as (progress, line):
        yield lambda note, done, total: progress.update(line, completed=done, total=total, note=note)


def rejections_table(store: Store, listed_in: Path) -> Table:
    """How many files were rejected for which reason."""
    reasons = [rejected.reason for rejected in store.rejected]
    table = Table(title=f"{len(reasons)} rejected, listed in {listed_in}", title_justify="left")
    table.add_column("reason")
    table.add_column("files", justify="right")
    table.add_column("for example", overflow="fold")
    for reason in sorted(set(reasons), key=lambda reason: (-reasons.count(reason), reason)):
        example = store.rejected[reasons.index(reason)].path
        table.add_row(reason, f"{reasons.count(reason):,}", escape(example.name))
    return table


def results_table(results: Sequence[Result]) -> Table:
    """A row for every encoder and probe, its score with the 95 % interval."""
    first = results[0]
    judged = f"test folds {', '.join(first.test_folds)}" if first.test_folds else "all folds"
    caption = (
        f"{first.metric} in %, 95 % interval; {first.num_clips:,} test clips, {first.num_classes} classes, {judged}"
    )
    if first.rejected:
        caption += f"; {first.rejected} clips rejected"
    table = Table(title=first.task, caption=caption, title_justify="left", caption_justify="left")
    probes = [probe_shown(result) for result in results]
    table.add_column("encoder", overflow="fold")  # long names go over several lines, so that all figures can be read
    table.add_column("probe", overflow="fold", min_width=min(PROBE_WIDTH, max(map(len, probes))))
    for column in ("dims", first.metric, "95 % interval"):
        table.add_column(column, justify="right", no_wrap=True)
    for before, result, probe in zip([None, *results], results, probes, strict=False):
        is_next = before is not None and before.encoder != result.encoder
        if is_next:
            table.add_section()
        table.add_row(
            escape(result.encoder) if before is None or is_next else "",
            escape(probe),
            f"{result.num_dims:,}",
            f"[bold]{100 * result.score:.1f}[/]",
            f"{100 * result.low:.1f} to {100 * result.high:.1f}",
        )
    return table


def probe_shown(result: Result) -> str:
    """A probe's name, and how many trainings its score is the mean of."""
    return result.probe + (f" ({result.num_seeds} seeds)" if result.num_seeds > 1 else "")
