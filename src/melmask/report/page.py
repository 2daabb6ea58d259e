"""The pieces of an HTML page: escaped text, tables, pictures inside the page, sections."""

import base64
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from matplotlib.figure import Figure

from melmask.viz.style import png_of


def table(header: Sequence[str], rows: Sequence[Sequence[str]], numeric: bool = False) -> str:
    """A table of plain text, its first column as row headers.

    Args:
        header: names of the columns.
        rows: their cells.
        numeric: set all but the first column to the right.
    """
    kind = ' class="number"' if numeric else ""
    head = "".join(f"<th{kind if i else ''}>{escape(name)}</th>" for i, name in enumerate(header))
    body = [
        f"<tr><th>{escape(row[0])}</th>" + "".join(f"<td{kind}>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    ]
    return raw_table(f"<tr>{head}</tr>", body)


def raw_table(head: str, body: Sequence[str]) -> str:
    """A table of rows in HTML that scrolls sideways where the window is narrow."""
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{"".join(body)}</tbody></table></div>'


def chip(colour: str) -> str:
    """The colour a run has in the figures."""
    return f'<span class="chip" style="background:{escape(colour)}"></span>'


def missing(text: str, command: str = "") -> str:
    """A note that something is not there, and the command that makes it."""
    remedy = f" <code>{escape(command)}</code>" if command else ""
    return f'<p class="missing">{escape(text)}{remedy}</p>'


def section(anchor: str, title: str, *parts: str) -> str:
    """A chapter of the page, with a heading that can be linked to."""
    return f'<section id="{anchor}">\n<h2>{escape(title)}</h2>\n' + "\n".join(parts) + "\n</section>"


class Pictures:
    """Writes figures next to the page and puts them into it.

    Args:
        folder: where the page lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._names = folder, set[str]()

    def add(self, name: str, figure: Figure, caption: str, *, narrow: bool = False) -> str:
        """Write the figure as PNG and return it as HTML; the caption says what to see, as plain text."""
        while name in self._names:
            name += "_"
        self._names.add(name)
        png = png_of(figure)
        (self.folder / f"{name}.png").write_bytes(png)
        width, height = (round(side * figure.dpi) for side in figure.get_size_inches())
        source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        image = f'<img src="{source}" width="{width}" height="{height}" alt="{escape(caption)}">'
        kind = ' class="narrow"' if narrow else ""
        return f'<figure{kind}><div class="scroll">{image}</div><figcaption>{escape(caption)}</figcaption></figure>'


def fill(**parts: str) -> str:
    """The whole page; the parts are HTML."""
    return Template(files("melmask.study").joinpath("template.html").read_text(encoding="utf-8")).substitute(parts)
