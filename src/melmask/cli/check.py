"""The command check: the health of what melmask wrote."""

import sys
from pathlib import Path
from typing import Annotated

from rich.markup import escape
from tyro.conf import Positional, arg

from melmask.cli.console import answer, console, named, print_next

EXIT_NOT_WHOLE = 1
STYLES = {"damaged": "bold red", "stale": "yellow", "leftover": "dim"}
NEXT = {  # the command for one that is whole, and what follows its path
    "store": ("pretrain", "--out", "RUN"),
    "run": ("report",),
    "model": ("predict", "FILES", "--out", "predictions.csv"),
    "index": ("search", "QUERY.wav"),
    "encoder file": ("evaluate", "--task", "TABLE.csv"),
}

Checked = Annotated[
    tuple[Path, ...],
    arg(
        metavar="PATH [PATH ...]",
        help="stores, runs, trained models, studies, indexes, caches, and files of encoders, embeddings and results.",
        help_behavior_hint="(required)",
    ),
]


def check(paths: Positional[Checked]) -> None:
    """Check the health of stores, runs, models, studies and indexes.

    Example: melmask check store runs/mine results.jsonl

    It says what each path is, and which parts are damaged, stale or left over, with the remedy.

    All of it is read and compared with its checksums; nothing is changed.

    Exit status: 0 if all is whole; 1 if anything is damaged or stale.
    """
    from melmask.health.check import health_of

    found = [health_of(path) for path in paths]
    answer["checked"] = found
    for health in found:
        counts = {state: sum(part.state == state for part in health.parts) for state in ("whole", *STYLES)}
        summary = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
        console.print(f"[bold]{named(health.path)}[/]: {health.kind}; {summary or 'empty'}", soft_wrap=True)
        for part in health.parts:
            if part.state in STYLES:
                state = f"[{STYLES[part.state]}]{part.state}[/]"
                console.print(f"  {state} {named(part.name)}: {escape(part.detail)}", soft_wrap=True)
    if not all(health.is_sound for health in found):
        sys.exit(EXIT_NOT_WHOLE)
    if found and found[0].kind in NEXT:
        command, *rest = NEXT[found[0].kind]
        print_next("melmask", command, found[0].path, *rest)
