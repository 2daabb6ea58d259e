"""How benchmarks show what they measured: one table for the terminal and for Markdown, a section of one page each."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from targets import targets_of, verdict

INTRO = """# Performance

Every section is written by a benchmark, whose command stands at its head; `make bench PAGE=docs/performance.md` runs
them all. What is compared is timed in one process and in turns, and a ratio is the median of the ratios within a turn:
it holds while the machine's speed drifts. Where there was something to be reached, a section ends with whether it was.
"""
COMMAND = "python benchmarks/{name}.py --markdown docs/{page}"


@dataclass(frozen=True)
class Table:
    """Figures as text, for people.

    Args:
        title: above it.
        columns: name -> what it means, "" where the name says it.
        rows: a cell for every column; the first columns, up to ``num_names``, are names.
        num_names: columns aligned to the left.
    """

    title: str
    columns: Mapping[str, str]
    rows: Sequence[Sequence[str]]
    num_names: int = 1

    def rich(self) -> RichTable:
        table = RichTable(title=self.title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for i, column in enumerate(self.columns):
            table.add_column(column, justify="left" if i < self.num_names else "right", overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        rules = ["---"] * self.num_names + ["--:"] * (len(self.columns) - self.num_names)
        lines = [f"| {' | '.join(row)} |" for row in (list(self.columns), *self.rows)]
        lines.insert(1, f"|{'|'.join(rules)}|")
        legend = [f"- *{column}*: {meaning}." for column, meaning in self.columns.items() if meaning]
        return "\n".join([f"### {self.title}", "", *lines, *([""] if legend else []), *legend])


def options_of(description: str | None, arguments: list[str] | None, quick: str) -> argparse.Namespace:
    """What every benchmark may be told on its command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one row of figures for every line")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the tables into their section of a page")
    return parser.parse_args(arguments)


def publish(
    name: str,
    title: str,
    about: str,
    tables: Sequence[Table],
    rows: list[dict[str, Any]],
    options: argparse.Namespace,
    command: str = COMMAND,
) -> None:
    """Print the tables, and write rows and section where the options ask for them.

    Args:
        name: of the benchmark's file and section.
        title: of the section.
        about: on what and how it was measured.
        tables: what is shown.
        rows: what is written as JSON, and what the targets are held against.
        options: of `options_of`.
        command: that stands at the section's head.
    """
    tables = [*tables, *([targets_table(name, rows)] if targets_of(name) else [])]
    console = Console(highlight=False)
    for table in tables:
        console.print(table.rich())
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    if options.markdown:
        head = [f"## {title}", "", "```", command.format(name=name, page=options.markdown.name), "```", "", about, ""]
        write_section(options.markdown, name, "\n".join([*head, "\n\n".join(table.markdown() for table in tables)]))


def targets_table(name: str, rows: list[dict[str, Any]]) -> Table:
    """What was to be reached, what was measured, and whether that is enough."""
    lines = [verdict(target, rows) for target in targets_of(name)]
    return Table("Targets", {"target": "", "wanted": "", "measured": "", "": "", "why": ""}, lines, num_names=5)


def write_section(page: Path, name: str, text: str) -> None:
    """Put a section in the place of the one with that name, or at the page's end; what else is there stays.

    Args:
        page: in Markdown; made if it is not there.
        name: of the benchmark.
        text: of the section.
    """
    begin, end = f"<!-- {name}: written by benchmarks/{name}.py -->", f"<!-- end of {name} -->"
    section = f"{begin}\n{text.strip()}\n{end}\n"
    old = page.read_text() if page.exists() else INTRO
    if begin in old:
        before, rest = old.split(begin, 1)
        page.write_text(before + section + rest.split(f"{end}\n", 1)[1])
    else:
        page.write_text(f"{old.rstrip()}\n\n{section}")
