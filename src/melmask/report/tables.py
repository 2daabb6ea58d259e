"""Evaluations of several runs as one table: who leads where, by how much, and how sure that is."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from melmask.encoders.features import FeatureSettings
from melmask.encoders.registry import ENCODER, UNTRAINED
from melmask.study.runs import Run

FLOOR_LABELS = {UNTRAINED: "untrained encoder"}
USUAL = str(FeatureSettings())

Cell = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One task read by one probe on the same test clips: only figures of one column may be compared."""

    task: str
    probe: str
    metric: str
    test_folds: tuple[str, ...]
    num_clips: int
    num_classes: int
    clip_s: float = 0.0  # how long each clip is heard; 0 for whole clips, as in lines of earlier versions

    @property
    def title(self) -> str:
        return f"{self.task}, {self.probe}"

    @property
    def note(self) -> str:
        folds = f"fold {', '.join(self.test_folds)}; " if self.test_folds else ""
        heard = f" of {self.clip_s:g} s" if self.clip_s else ""
        return f"{folds}{self.num_clips:,} test clips{heard}, {self.num_classes} classes"


@dataclass(frozen=True)
class Row:
    """One run, or one floor of one or several runs.

    Args:
        label: for tables.
        runs: names of the runs it belongs to.
        is_run: whether this is a trained encoder.
        cells: the lines of results.jsonl.
        settings: layers and pooling of a melmask encoder.
    """

    label: str
    runs: list[str]
    is_run: bool
    cells: dict[Column, Cell]
    settings: str = ""

    @property
    def run(self) -> str:
        return self.runs[0]


def tabulate(runs: Sequence[Run]) -> tuple[list[Column], list[Row]]:
    """The table of all evaluations: a row for every run, then the baselines, those with equal figures only once."""
    rows = []
    for run in runs:
        for settings in dict.fromkeys(_settings(result) for result in run.results if result["features"] == ENCODER):
            rows.append(Row(_label(run.name, settings), [run.name], True, _cells(run, ENCODER, settings), settings))
    kinds = ((str(result["features"]), _settings(result)) for run in runs for result in run.results)
    for features, settings in dict.fromkeys(kinds):
        if features != ENCODER:
            rows += _baseline_rows(runs, features, settings)
    columns = sorted(
        {column for row in rows for column in row.cells},
        key=lambda c: (c.task, c.probe, c.test_folds, c.num_clips, c.clip_s),
    )
    return columns, rows


def _settings(result: Cell) -> str:
    """Layers and pooling of a melmask encoder, which lines of earlier versions do not name; empty for others."""
    return result.get("settings") or USUAL if result["features"] in (ENCODER, UNTRAINED) else ""


def _label(name: str, settings: str) -> str:
    return name if settings in ("", USUAL) else f"{name} ({settings})"


def _cells(run: Run, features: str, settings: str) -> dict[Column, Cell]:
    """The lines of one kind, by column."""
    kept = [one for one in run.results if one["features"] == features and _settings(one) == settings]
    return {_column(result): result for result in kept}


def _column(result: Cell) -> Column:
    return Column(
        result["task"],
        result["probe"],
        result["metric"],
        tuple(result["test_folds"]),
        result["num_clips"],
        result["num_classes"],
        result.get("clip_s", 0.0),
    )


def _baseline_rows(runs: Sequence[Run], features: str, settings: str) -> list[Row]:
    """The baselines of all runs; a floor joins a row with which it agrees wherever both have a figure."""
    label = _label(FLOOR_LABELS.get(features, features), settings)
    rows: list[Row] = []
    for run in runs:
        cells = _cells(run, features, settings)
        for row in rows:
            shared = cells.keys() & row.cells.keys()
            if shared and all(cells[column]["score"] == row.cells[column]["score"] for column in shared):
                row.cells.update(cells | row.cells)
                row.runs.append(run.name)
                break
        else:
            if cells:
                rows.append(Row(label, [run.name], False, cells, settings))
    if len(rows) == 1:
        return rows
    return [Row(f"{label} ({', '.join(row.runs)})", row.runs, False, row.cells, settings) for row in rows]


def best_of(column: Column, rows: Sequence[Row]) -> Row:
    """The row with the highest score; the first of equal ones."""
    return max((row for row in rows if column in row.cells), key=lambda row: row.cells[column]["score"])


def overlap(one: Cell, other: Cell) -> bool:
    """Whether the two 95 % intervals have a point in common."""
    return one["low"] <= other["high"] and other["low"] <= one["high"]


def percent(share: float) -> str:
    """
    >>> percent(0.5123)
    '51.2'
    """
    return f"{100 * share:.1f}"


def interval(cell: Cell) -> str:
    """The 95 % interval in percent."""
    return f"{percent(cell['low'])} to {percent(cell['high'])}"


def verdict(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """The whole table in one sentence."""
    trained = [row for row in rows if row.is_run]
    if not trained:
        return "No trained encoder has been evaluated yet."
    if len(trained) == 1:
        own = trained[0]
        clear = sum(
            all(_is_clear(own, floor, column) for floor in _baselines(own, rows, column)) for column in own.cells
        )
        return f"{own.label} stands clear of its baselines in {clear} of {_evaluations(len(own.cells))}."
    ahead = {row.label: [column for column in row.cells if _ranked(column, rows)[0] is row] for row in trained}
    leader = max(trained, key=lambda row: len(ahead[row.label]))
    led = ahead[leader.label]
    clear = sum(all(_is_clear(leader, row, column) for row in _ranked(column, rows)[1:]) for column in led)
    sure = f"in {clear} of these" if clear else "in none of them"
    return (
        f"{leader.label} leads in {len(led)} of {_evaluations(len(columns))}, "
        f"{sure} with an interval clear of every other run's."
    )


def _evaluations(count: int) -> str:
    return "1 evaluation" if count == 1 else f"{count} evaluations"


def _ranked(column: Column, rows: Sequence[Row]) -> list[Row]:
    """The runs that have a figure in the column, the best first."""
    return sorted(
        (row for row in rows if row.is_run and column in row.cells), key=lambda row: -row.cells[column]["score"]
    )


def _baselines(lead: Row, rows: Sequence[Row], column: Column) -> list[Row]:
    """The baselines of the column that are the run's own or shared with it, with its settings or without any."""
    baselines = [row for row in rows if not row.is_run and column in row.cells and row.settings in ("", lead.settings)]
    return [row for row in baselines if lead.run in row.runs]


def _is_clear(row: Row, other: Row, column: Column) -> bool:
    """Whether the whole interval lies above the other's."""
    return row.cells[column]["low"] > other.cells[column]["high"]


def sentence(column: Column, rows: Sequence[Row]) -> str:
    """What one column says, in plain words."""
    ranked = _ranked(column, rows)
    if not ranked:
        return "only baselines have been evaluated."
    lead = ranked[0].cells[column]
    words = f"{ranked[0].label} reaches {percent(lead['score'])} % {column.metric} (95 % interval {interval(lead)})"
    if len(ranked) > 1:
        words += _ahead_of(lead, ranked[1], column)
    baselines = [_against(lead, floor, column) for floor in _baselines(ranked[0], rows, column)]
    return f"{words}. That is {' and '.join(baselines)}." if baselines else f"{words}."


def _ahead_of(lead: Cell, second: Row, column: Column) -> str:
    """How far the leading run is ahead of the next."""
    cell = second.cells[column]
    if cell["score"] == lead["score"]:
        return f", exactly as {second.label}"
    sure = ", but the intervals overlap: the order may be chance" if overlap(lead, cell) else ", with intervals apart"
    return f", {percent(lead['score'] - cell['score'])} points ahead of {second.label}{sure}"


def _against(lead: Cell, floor: Row, column: Column) -> str:
    """How a score stands to a floor."""
    cell = floor.cells[column]
    gap = lead["score"] - cell["score"]
    side = "above" if gap >= 0 else "below"
    sure = ", intervals overlapping" if overlap(lead, cell) else ""
    return f"{percent(abs(gap))} points {side} the {floor.label} ({percent(cell['score'])} %{sure})"


def markdown(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """The table in Markdown: score and interval in percent, the best of a column in bold."""
    lines = ["| | " + " | ".join(f"{_cell_text(column.title)} ({column.metric}, %)" for column in columns) + " |"]
    lines.append("|---|" + "---:|" * len(columns))
    for row in rows:
        cells = []
        for column in columns:
            cell = row.cells.get(column)
            best = cell is not None and row is best_of(column, rows)
            score = percent(cell["score"]) if cell else ""
            cells.append(f"{f'**{score}**' if best else score} [{interval(cell)}]" if cell else "–")
        lines.append(f"| {_cell_text(row.label)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell_text(text: str) -> str:
    """Text that does not end a Markdown cell."""
    return text.replace("|", "\\|")


def as_csv(runs: Sequence[Run]) -> str:
    """Every evaluation of every run, unrounded, one a line."""
    names = ["run", *dict.fromkeys(name for run in runs for result in run.results for name in result)]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    for run in runs:
        for result in run.results:
            folds = ";".join(result.get("test_folds", []))
            writer.writerow({**result, "run": run.name, "test_folds": folds})
    return text.getvalue()
