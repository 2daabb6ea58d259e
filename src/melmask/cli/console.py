"""What the commands print: progress bars, notes, which files were written, what to do next, and an answer for programs.

Nothing here imports torch, so that the light commands answer at once.
"""

import json
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.text import Text

from melmask.escaping import on_terminal

LINE_EVERY_S = 60.0  # where no terminal shows progress


class SafeConsole(Console):
    """A console on which no text, such as the name of a file, can hold an escape sequence that the terminal obeys."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """As of rich, with control characters of texts made visible."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=on_terminal(segment.text))

    def on_broken_pipe(self) -> None:
        """Stay silent from now on, and raise as `print` does, where rich would end the process and lose a training."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise BrokenPipeError


# Of the processes that torchrun starts, only the first prints.
console = SafeConsole(highlight=False, quiet=os.environ.get("RANK", "0") != "0")
# What --json prints when the command has ended: notes, files written, the next command, and what the command adds.
answer: dict[str, Any] = {}


def start_answer() -> None:
    """From now on tables and progress go to the standard error, so that the standard output holds the answer alone."""
    answer.clear()
    console.stderr = True


def print_answer(status: int, error: str = "") -> None:
    """Print the answer as one JSON object; paths as text, dataclasses as objects, numbers that are not finite as null.

    Args:
        status: the exit status.
        error: what went wrong, if anything did.
    """
    whole = {"command": command_line(), "status": status} | ({"error": error} if error else {}) | answer
    text = json.dumps(whole, default=lambda value: asdict(value) if is_dataclass(value) else _plain(value))  # type: ignore[arg-type]
    finite = json.loads(text, parse_constant=lambda _: None)
    console.stderr = False
    if not console.quiet:
        print(json.dumps(finite, indent=2, ensure_ascii=False))


def _plain(value: Any) -> Any:
    """A number or an array of NumPy's as Python's own; anything else as text."""
    return value.tolist() if type(value).__module__ == "numpy" else str(value)


class NotedProgress(Progress):
    """Progress bars, each with a note on the line below it, where it is cut at no width.

    Without a terminal, as in the log file of a job, a line is printed every minute instead.

    Args:
        columns: of a bar.
        lines: whether to print such lines; without, whoever updates the bars prints some of its own.
    """

    def __init__(self, *columns: ProgressColumn, lines: bool = True) -> None:
        super().__init__(*columns, console=console)
        self.has_counts = any(isinstance(column, MofNCompleteColumn) for column in columns)
        self.next_line_s = self.get_time() + LINE_EVERY_S if lines and not console.is_terminal else math.inf

    def update(self, task_id: TaskID, *arguments: Any, **values: Any) -> None:
        """As of rich, and print the line that is due."""
        super().update(task_id, *arguments, **values)
        if self.get_time() < self.next_line_s:
            return
        self.next_line_s = self.get_time() + LINE_EVERY_S
        task = self._task(task_id)
        of = "" if task.total is None else f"/{task.total:.0f}"
        counts = f" {task.completed:.0f}{of}" if self.has_counts else ""
        note = f"  {task.fields['note']}" if task.fields["note"] else ""
        after = timedelta(seconds=round(task.elapsed or 0.0))
        console.print(f"{named(task.description)}{counts} after {after}{note}", soft_wrap=True)

    def end(self, task_id: TaskID) -> None:
        """The work is done: how much it was is known now, and where there was none, no bar is left."""
        task = self._task(task_id)
        if task.total is None:
            super().update(task_id, total=task.completed, visible=task.completed > 0)

    def _task(self, task_id: TaskID) -> Task:
        return next(one for one in self.tasks if one.id == task_id)

    def get_renderables(self) -> Iterator[RenderableType]:
        """The bars and their notes."""
        for task in self.tasks:
            yield self.make_tasks_table([task])
            if task.fields["note"]:
                yield Text.from_markup(f"  {task.fields['note']}")


@contextmanager
def bar(what: str, lines: bool = True) -> Iterator[tuple[Progress, TaskID]]:
    """A progress bar, and the task behind it: update it by its task, with ``completed``, ``total`` and ``note``.

    Args:
        what: is being done.
        lines: whether, without a terminal, a line is printed every minute.
    """
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),  # a name in it is no markup and no format
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with NotedProgress(*columns, lines=lines) as progress:
        task = progress.add_task(what, total=None, note="")
        yield progress, task
        progress.end(task)


@contextmanager
def starting(name: str) -> Iterator[None]:
    """On a terminal say at once what starts, until its libraries are read, which takes some seconds."""
    if console.is_terminal:
        with console.status(f"melmask {name} starts"):
            yield
    else:
        yield


@contextmanager
def counted_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar as a function: called with how much is done, and of how much."""
    with bar(what) as (progress, task):
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def noted_bar(what: str) -> Iterator[Callable[[str, int, int | None], None]]:
    """A progress bar as a function: called with what is being done, how much of it is done, and of how much."""
    with bar(what) as (progress, task):
        yield lambda note, done, total: progress.update(task, completed=done, total=total, note=escape(note))


def print_notes(notes: Iterable[str]) -> None:
    """Each different note once, on a line of its own."""
    for note in dict.fromkeys(notes):
        answer.setdefault("notes", []).append(note)
        console.print(f"[dim]note: {named(note)}[/]", soft_wrap=True)


def named(name: object) -> str:
    """The name of a file, class or run within a line of markup: it has neither markup nor line breaks of its own."""
    return escape(on_terminal(str(name), keep=""))


def print_line(text: str, style: str = "") -> None:
    """A line of text with names in it, which are no markup."""
    console.print(named(text), style=style or None, soft_wrap=True)


def print_path(path: Path, before: str = "", after: str = "") -> None:
    """A path that was written, in bold, between words about it."""
    answer.setdefault("written", []).append(str(path))
    console.print(f"{before}[bold]{named(path)}[/]{after}", soft_wrap=True)


def print_next(*words: str | Path) -> None:
    """The command that is sensible next: the last line of a command that did its work."""
    answer["next"] = " ".join(str(word) if str(word).isupper() else shlex.quote(str(word)) for word in words)
    console.print(f"[dim]next:[/] {named(answer['next'])}", soft_wrap=True)


def command_line() -> str:
    """What was typed, as recorded with results."""
    return f"melmask {shlex.join(sys.argv[1:])}"
