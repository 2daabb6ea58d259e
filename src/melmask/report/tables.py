"""The table of evaluations as HTML, Markdown and CSV."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields

from markupsafe import Markup

from melmask.evaluation.results import Result
from melmask.report import page
from melmask.report.formats import csv_table, markdown_table
from melmask.report.verdicts import Evidence, percent
from melmask.study.others import OtherEncoder
from melmask.study.runs import Run
from melmask.study.table import Column, Row, Table


def interval(cell: Result) -> str:
    """The 95 % interval in percent."""
    return f"{percent(cell.low)} to {percent(cell.high)}"


def as_html(table: Table, colours: Mapping[str, str], evidence: Evidence) -> Markup:
    """The table in HTML, a row for each run: scores with intervals, and marks.

    Marked are the highest score of each column and all that are equal to it, what a paired test cannot tell from it,
    and trained encoders below one of their baselines.

    Args:
        table: what to show.
        colours: of the runs, by name.
        evidence: the paired comparisons.
    """
    rows = []
    for own in grouped(table):
        first = own[0]
        cells = [
            [_entry(row, column, table, evidence, own) for row in own if column in row.cells]
            for column in table.columns
        ]
        name = page.chip(colours[first.run]) + first.run if first.is_run else first.label
        rows.append({"kind": "run" if first.is_run else "baseline", "name": name, "cells": cells})
    return page.part("scores", table.columns, rows)


def grouped(table: Table) -> list[list[Row]]:
    """The rows of each run together, one for each of its feature settings; every baseline on its own."""
    groups: dict[object, list[Row]] = {}
    for number, row in enumerate(table.rows):
        groups.setdefault(row.run if row.is_run else number, []).append(row)
    return list(groups.values())


def top_rows(table: Table, column: Column) -> list[Row]:
    """The rows with the highest score of a column: several where their scores are equal."""
    highest = table.best(column).cells[column].score
    return [row for row in table.rows if column in row.cells and row.cells[column].score == highest]


def _entry(row: Row, column: Column, table: Table, evidence: Evidence, own: Sequence[Row]) -> dict[str, str]:
    """A score as the template takes it."""
    cell, top = row.cells[column], top_rows(table, column)
    gaps = [evidence.difference(row, one, column) for one in top] if row not in top else []
    near = any(gap is not None and gap.includes_zero for gap in gaps)
    beside = sum(column in one.cells for one in own)
    seeds = f", {cell.num_seeds} seeds" if cell.num_seeds > 1 else ""
    above = [one for one in table.baselines(row, column) if one.cells[column].score > cell.score] if row.is_run else []
    return {
        "score": percent(cell.score),
        "interval": interval(cell),
        "more": seeds + (f"; {row.settings}" if beside > 1 else ""),
        "marks": "best" if row in top else "near" if near else "",
        "floor": f"below the {above[0].label}" if above else "",
    }


def as_markdown(table: Table) -> str:
    """The table in Markdown, a row for each run: scores and intervals in percent, the highest of a column in bold."""
    header = ["encoder", *(f"{column.title} ({column.metric}, %)" for column in table.columns)]
    groups = grouped(table)
    rows = [
        [own[0].run if own[0].is_run else own[0].label, *(_text_cell(own, column) for column in table.columns)]
        for own in groups
    ]
    best = {
        (number, place)
        for place, column in enumerate(table.columns, start=1)
        for number, own in enumerate(groups)
        if any(row is one for row in own for one in top_rows(table, column))
    }
    return markdown_table(header, rows, numeric=True, bold=best)


def _text_cell(own: Sequence[Row], column: Column) -> str:
    found = [row for row in own if column in row.cells]
    settings = {id(row): f" ({row.settings})" if len(found) > 1 else "" for row in found}
    cells = [f"{percent(row.cells[column].score)} [{interval(row.cells[column])}]{settings[id(row)]}" for row in found]
    return "; ".join(cells) or "–"


def as_csv(runs: Sequence[Run | OtherEncoder]) -> str:
    """Every evaluation of every encoder, unrounded, one a line; folds and notes are separated by semicolons."""
    rows = []
    for run in runs:
        for result in run.results:
            joined = {"test_folds": ";".join(result.test_folds), "notes": "; ".join(result.notes)}
            joined["baseline_of"] = "; ".join(result.baseline_of)
            rows.append([run.name, *(asdict(result) | joined).values()])
    return csv_table(["run", *(field.name for field in fields(Result))], rows)
