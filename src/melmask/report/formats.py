"""A table of text as Markdown, LaTeX and CSV."""

import csv
import io
from collections.abc import Container, Iterable, Mapping, Sequence

from melmask.escaping import in_csv, in_latex, in_markdown


def duration(seconds: float) -> str:
    """A time in its largest unit.

    >>> duration(7200.0), duration(90.0), duration(12.3)
    ('2.0 h', '1.5 min', '12 s')
    """
    return next(
        (f"{seconds / size:.1f} {unit}" for size, unit in ((3600, "h"), (60, "min")) if seconds >= size),
        f"{seconds:.0f} s",
    )


def markdown_table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    numeric: bool = False,
    bold: Container[tuple[int, int]] = (),
    links: Mapping[tuple[int, int], str] | None = None,
) -> str:
    """The lines of a Markdown table of plain text.

    Args:
        header: names of the columns.
        rows: their cells.
        numeric: align all but the first column to the right.
        bold: rows and columns of the cells whose first word is bold.
        links: addresses of the cells that are links, by row and column.

    >>> print(markdown_table(["class", "clips"], [["a|b", "7"]], bold={(0, 1)}, links={(0, 0): "#a"}), end="")
    | class | clips |
    |---|---|
    | [a\\|b](#a) | **7** |
    """
    rule = "|---|" + ("---:|" if numeric else "---|") * (len(header) - 1)
    lines = [[in_markdown(cell) for cell in row] for row in (header, *rows)]
    for number, row in enumerate(lines[1:]):
        row[:] = [_bold(cell) if (number, column) in bold else cell for column, cell in enumerate(row)]
    for (number, column), address in (links or {}).items():
        lines[1 + number][column] = f"[{lines[1 + number][column]}]({address})"
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


def latex_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The lines of a LaTeX tabular of plain text, with the rules of booktabs; all but the first column to the right.

    >>> print(latex_table(["arm", "points"], [["freq_profile", "-0.1"]]), end="")
    \\begin{tabular}{lr}
    \\toprule
    arm & points \\\\
    \\midrule
    freq\\_profile & $-$0.1 \\\\
    \\bottomrule
    \\end{tabular}
    """
    head, *body = (f"{' & '.join(in_latex(cell) for cell in row)} \\\\" for row in (header, *rows))
    columns = "l" + "r" * (len(header) - 1)
    lines = [f"\\begin{{tabular}}{{{columns}}}", "\\toprule", head, "\\midrule", *body, "\\bottomrule"]
    return "\n".join([*lines, "\\end{tabular}"]) + "\n"
