"""The table of evaluations as sentences, HTML, Markdown and CSV."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, fields
from html import escape

from melmask.evaluation.results import Result
from melmask.report.formats import csv_table, markdown_table, raw_html_table
from melmask.report.page import chip
from melmask.study.others import OtherEncoder
from melmask.study.runs import Run
from melmask.study.table import Column, Row, Table, overlap


def percent(share: float) -> str:
    """
    >>> percent(0.5123)
    '51.2'
    """
    return f"{100 * share:.1f}"


def interval(cell: Result) -> str:
    """The 95 % interval in percent."""
    return f"{percent(cell.low)} to {percent(cell.high)}"


def verdict(table: Table, others: Collection[str] = ()) -> str:
    """The whole table in a sentence for each encoder that is no run's, beside its baselines, and one for the runs.

    Args:
        table: the evaluations.
        others: names of the encoders that are no runs.
    """
    sentences = [_beside_baselines(table, row) for row in table.rows if row.is_run and row.run in others]
    if not others or any(row.is_run and row.run not in others for row in table.rows):
        sentences.append(_of_runs(table, "encoder" if others else "run"))
    return " ".join(sentence for sentence in sentences if sentence)


def _beside_baselines(table: Table, row: Row) -> str:
    """How often an encoder scores above all its baselines; empty if it has none."""
    beside = {column: found for column in row.cells if (found := table.baselines(row, column))}
    if not beside:
        return ""
    above = [c for c, found in beside.items() if all(row.cells[c].score > one.cells[c].score for one in found)]
    clear = sum(all(row.is_above(one, column) for one in beside[column]) for column in above)
    names = " and ".join(dict.fromkeys(one.label for found in beside.values() for one in found))
    sure = f", in {clear or 'none'} of these with an interval above theirs" if above else ""
    return f"{row.label} scores above its baselines, {names}, in {len(above)} of {_evaluations(len(beside))}{sure}."


def _of_runs(table: Table, kind: str) -> str:
    """Which run leads, in one sentence; ``kind`` is what it is compared with: runs, or encoders of any kind."""
    trained = [row for row in table.rows if row.is_run]
    if not trained:
        return "No trained encoder has been evaluated yet."
    if len(trained) == 1:
        (own,) = trained
        clear = sum(all(own.is_above(other, column) for other in table.baselines(own, column)) for column in own.cells)
        return f"{own.label} has an interval above those of its baselines in {clear} of {_evaluations(len(own.cells))}."
    ahead = {row.label: [column for column in row.cells if table.ranked_runs(column)[0] is row] for row in trained}
    leader = max(trained, key=lambda row: len(ahead[row.label]))
    led = ahead[leader.label]
    clear = sum(all(leader.is_above(other, column) for other in table.ranked_runs(column)[1:]) for column in led)
    sure = f"in {clear} of these" if clear else "in none of them"
    return (
        f"{leader.label} scores highest in {len(led)} of {_evaluations(len(table.columns))}, "
        f"{sure} with an interval above every other {kind}'s."
    )


def _evaluations(count: int) -> str:
    return "1 evaluation" if count == 1 else f"{count} evaluations"


def sentence(table: Table, column: Column) -> str:
    """The run with the highest score in a column, and its distance to the next run and to its baselines."""
    ranked = table.ranked_runs(column)
    if not ranked:
        return "only baselines have been evaluated."
    first = ranked[0].cells[column]
    words = f"{ranked[0].label} reaches {percent(first.score)} % {column.metric} (95 % interval {interval(first)})"
    if len(ranked) > 1:
        words += _ahead_of(first, ranked[1], column)
    baselines = [_against(first, baseline, column) for baseline in table.baselines(ranked[0], column)]
    return f"{words}. That is {' and '.join(baselines)}." if baselines else f"{words}."


def _ahead_of(first: Result, second: Row, column: Column) -> str:
    """The distance of the highest score to the next run's."""
    cell = second.cells[column]
    if cell.score == first.score:
        return f", the same as {second.label}"
    sure = ", but the intervals overlap" if overlap(first, cell) else ", and the intervals do not overlap"
    return f", {percent(first.score - cell.score)} points ahead of {second.label}{sure}"


def _against(first: Result, baseline: Row, column: Column) -> str:
    """The distance of a score to a baseline's."""
    cell = baseline.cells[column]
    gap = first.score - cell.score
    side = "above" if gap >= 0 else "below"
    sure = ", intervals overlap" if overlap(first, cell) else ""
    return f"{percent(abs(gap))} points {side} the {baseline.label} ({percent(cell.score)} %{sure})"


def as_html(table: Table, colours: Mapping[str, str]) -> str:
    """The table in HTML: scores with intervals, the best of each column and those that overlap with it marked.

    Args:
        table: what to show.
        colours: of the runs, by name.
    """
    heads = [
        f'<th class="number">{escape(c.task)}<small>{escape(c.probe)} probe, {escape(c.metric)}</small>'
        f"<small>{escape(c.note)}</small></th>"
        for c in table.columns
    ]
    body = []
    for row in table.rows:
        cells = "".join(_html_cell(row, column, table) for column in table.columns)
        name = chip(colours[row.run]) if row.is_run else ""
        body.append(f'<tr class="{"run" if row.is_run else "baseline"}"><th>{name}{escape(row.label)}</th>{cells}</tr>')
    return raw_html_table(f"<tr><th></th>{''.join(heads)}</tr>", body)


def _html_cell(row: Row, column: Column, table: Table) -> str:
    if column not in row.cells:
        return '<td class="number muted">–</td>'
    cell, best = row.cells[column], table.best(column)
    mark = " best" if row is best else " near" if overlap(cell, best.cells[column]) else ""
    seeds = f", {cell.num_seeds} seeds" if cell.num_seeds > 1 else ""
    return f'<td class="number{mark}"><b>{percent(cell.score)}</b><small>{interval(cell)}{seeds}</small></td>'


def as_markdown(table: Table) -> str:
    """The table in Markdown: scores and intervals in percent, the best of each column in bold."""
    header = ["encoder", *(f"{column.title} ({column.metric}, %)" for column in table.columns)]
    rows = [[row.label, *(_text_cell(row, column) for column in table.columns)] for row in table.rows]
    best = {
        (number, place)
        for place, column in enumerate(table.columns, start=1)
        for number, row in enumerate(table.rows)
        if row is table.best(column)
    }
    return markdown_table(header, rows, numeric=True, bold=best)


def _text_cell(row: Row, column: Column) -> str:
    if column not in row.cells:
        return "–"
    cell = row.cells[column]
    return f"{percent(cell.score)} [{interval(cell)}]"


def as_csv(runs: Sequence[Run | OtherEncoder]) -> str:
    """Every evaluation of every encoder, unrounded, one a line; folds and notes are separated by semicolons."""
    rows = []
    for run in runs:
        for result in run.results:
            joined = {"test_folds": ";".join(result.test_folds), "notes": "; ".join(result.notes)}
            rows.append([run.name, *(asdict(result) | joined).values()])
    return csv_table(["run", *(field.name for field in fields(Result))], rows)
