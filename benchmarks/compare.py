"""What a change did to speed: `make bench-compare BASE=rev`, or `python benchmarks/compare.py --help`.

The other revision is checked out beside this one, and the quick benchmarks of both run in alternation, each with its
own code and benchmarks. Rows of the same name are compared, round by round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from page import Table
from rich.console import Console
from timing import machine

HERE = Path(__file__).resolve().parents[1]
BENCHMARKS = ("train", "prepare", "embed", "masking")
NAMES = ("framework", "size", "dtype", "strategy", "batch")  # what tells rows apart
FIGURES = {"samples_per_s": 1, "ms": -1}  # what is compared, and whether more of it is quicker
COLUMNS = {
    "benchmark": "",
    "row": "",
    "base": "samples a second, or milliseconds",
    "now": "",
    "times as quick": "",
    "rounds": "the least and the most of a round",
}

Row = dict[str, Any]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", help="the revision to compare with")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS), help="benchmarks to run")
    parser.add_argument("--rounds", type=int, default=2, help="how often each runs in each revision")
    options = parser.parse_args(arguments)
    print(machine())
    lines = []
    with worktree(options.base) as base:
        for name in options.only:
            missing = [str(root) for root in (base, HERE) if not (root / "benchmarks" / f"{name}.py").exists()]
            if missing:
                print(f"{name} is not compared: {options.base} has no such benchmark")
                continue
            lines += compare(name, base, options.rounds)
    Console(highlight=False).print(Table(f"Now against {options.base}", COLUMNS, lines, num_names=2).rich())


@contextmanager
def worktree(revision: str) -> Iterator[Path]:
    """A revision checked out in a folder of its own, until it is no longer needed.

    Raises:
        ValueError: git knows no such revision.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "base"
        git = ["git", "-C", str(HERE), "worktree"]
        added = subprocess.run(
            [*git, "add", "--detach", path, f"{revision}^{{commit}}"], capture_output=True, text=True, check=False
        )
        if added.returncode:
            raise ValueError(f"cannot check out {revision!r}: {added.stderr.strip()}: name a revision git knows")
        try:
            yield path
        finally:
            subprocess.run([*git, "remove", "--force", path], check=True)


def compare(name: str, base: Path, rounds: int) -> list[list[str]]:
    """The lines of one benchmark: it runs in the base, here, here, in the base and so on."""
    runs: dict[Path, list[dict[str, Row]]] = {base: [], HERE: []}
    for turn in range(rounds):
        for root in (base, HERE) if turn % 2 == 0 else (HERE, base):
            runs[root].append(run(name, root))
    shared = [row for row in runs[HERE][0] if row in runs[base][0]]
    return [line_of(name, row, [one[row] for one in runs[base]], [one[row] for one in runs[HERE]]) for row in shared]


def run(name: str, root: Path) -> dict[str, Row]:
    """The rows of one quick run, by name."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.json"
        subprocess.run(
            [sys.executable, root / "benchmarks" / f"{name}.py", "--quick", "--json", rows],
            env=os.environ | {"PYTHONPATH": str(root / "src")},  # before the installed package, which is this one
            stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        return {name_of(row): row for row in json.loads(rows.read_text())}


def name_of(row: Row) -> str:
    """What a row is about, in words."""
    return " ".join(str(row[key]) for key in NAMES if key in row)


def line_of(name: str, row: str, base: list[Row], now: list[Row]) -> list[str]:
    """How both did, and the ratio of each round."""
    key = next(key for key in FIGURES if key in now[0])
    before, after = [one[key] for one in base], [one[key] for one in now]
    quicker = [(b / a) ** FIGURES[key] for a, b in zip(before, after, strict=True)]
    return [
        name, row, f"{statistics.median(before):.3g}", f"{statistics.median(after):.3g}",
        f"{statistics.median(quicker):.2f}", f"{min(quicker):.2f} to {max(quicker):.2f}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
