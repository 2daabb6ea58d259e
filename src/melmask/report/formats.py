"""A table of text as HTML, Markdown and CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from html import escape


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


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], numeric: bool = False) -> str:
    """The lines of a Markdown table; a vertical bar inside a cell is escaped.

    Args:
        header: names of the columns.
        rows: their cells.
        numeric: align all but the first column to the right.

    >>> print(markdown_table(["class", "clips"], [["a|b", "7"]]), end="")
    | class | clips |
    |---|---|
    | a\\|b | 7 |
    """
    rule = "|---|" + ("---:|" if numeric else "---|") * (len(header) - 1)
    lines = ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (header, *rows))
    head, *body = lines
    return "\n".join([head, rule, *body]) + "\n"


def csv_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The lines of a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
