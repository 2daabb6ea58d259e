"""A table of text as HTML, Markdown and CSV."""

import csv
import io
from collections.abc import Container, Iterable, Sequence
from html import escape

from melmask.escaping import in_csv, in_markdown


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], numeric: bool = False) -> str:
    """A table of plain text, its first column as row headers.

    Args:
        header: names of the columns.
        rows: their cells.
        numeric: align all but the first column to the right.
    """
    kind = ' class="number"' if numeric else ""
    head = "".join(f"<th{kind if i else ''}>{escape(name)}</th>" for i, name in enumerate(header))
    body = [
        f"<tr><th>{escape(row[0])}</th>" + "".join(f"<td{kind}>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    ]
    return raw_html_table(f"<tr>{head}</tr>", body)


def raw_html_table(head: str, body: Sequence[str]) -> str:
    """A table of rows in HTML that scrolls sideways where the window is narrow."""
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{"".join(body)}</tbody></table></div>'


def markdown_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], numeric: bool = False, bold: Container[tuple[int, int]] = ()
) -> str:
    """The lines of a Markdown table of plain text.

    Args:
        header: names of the columns.
        rows: their cells.
        numeric: align all but the first column to the right.
        bold: rows and columns of the cells whose first word is bold.

    >>> print(markdown_table(["class", "clips"], [["a|b", "7"]], bold={(0, 1)}), end="")
    | class | clips |
    |---|---|
    | a\\|b | **7** |
    """
    rule = "|---|" + ("---:|" if numeric else "---|") * (len(header) - 1)
    lines = [[in_markdown(cell) for cell in row] for row in (header, *rows)]
    for number, row in enumerate(lines[1:]):
        row[:] = [_bold(cell) if (number, column) in bold else cell for column, cell in enumerate(row)]
    head, *body = (f"| {' | '.join(row)} |" for row in lines)
    return "\n".join([head, rule, *body]) + "\n"


def _bold(cell: str) -> str:
    word, space, rest = cell.partition(" ")
    return f"**{word}**{space}{rest}"


def csv_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The lines of a CSV file; no cell is a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([in_csv(cell) for cell in row] for row in (header, *rows))
    return text.getvalue()
