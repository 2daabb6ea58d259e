"""The elements of an HTML page: text that is always escaped, tables, and figures inside the page.

Every element is a macro of templates/parts.html, in jinja2 with autoescape: what is not `Markup` is text.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from markupsafe import Markup

from melmask.files import write_bytes, write_text
from melmask.viz.style import Figure, in_dark, png_of, svg_of


@cache
def _templates() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # here, as it is needed by reports and maps only

    return Environment(
        loader=PackageLoader("melmask.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )


def part(name: str, *values: Any) -> Markup:
    """An element of a page: the macro of that name in templates/parts.html, called with these values."""
    return getattr(_templates().get_template("parts.html").module, name)(*values)


def chip(colour: str) -> Markup:
    """A run's colour in the figures, as a small square."""
    return part("chip", colour)


def paragraph(text: str, kind: str = "") -> Markup:
    """A paragraph; its kind is "note", "lead", or "" for plain ones."""
    return part("paragraph", text, kind)


def heading(text: str) -> Markup:
    """The heading of a part of a section."""
    return part("heading", text)


def missing(text: str, command: str = "") -> Markup:
    """A note that something is missing, and the command that makes it."""
    return part("missing", text, command)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], numeric: bool = False) -> Markup:
    """A table whose first column names its rows; on a phone each row is a card.

    Args:
        header: names of the columns.
        rows: their cells.
        numeric: align all but the first column to the right.
    """
    return part("table", header, list(rows), numeric)


def cell(value: str, lines: Sequence[str]) -> Markup:
    """A cell of a table: a value, and lines in smaller letters below it."""
    return part("cell", value, list(lines))


class Figures:
    """Writes figures as PNG next to the page, and embeds them in it, once for a light page and once for a dark one.

    Args:
        folder: of the page.
        svg: whether to write them as SVG too.
    """

    def __init__(self, folder: Path, svg: bool = False) -> None:
        self.folder, self.svg, self._names = folder, svg, set[str]()

    def add(self, name: str, figure: Figure, caption: str, *, narrow: bool = False) -> Markup:
        """Write the figure as PNG and return it as HTML.

        Args:
            name: of the file, without .png.
            figure: what to write; it is left in the colours of a dark page.
            caption: plain text; also the text for readers who do not see the figure.
            narrow: whether it is shown at less than the width of the page.
        """
        while name in self._names:
            name += "_"
        self._names.add(name)
        light = png_of(figure)
        write_bytes(self.folder / f"{name}.png", light)
        if self.svg:
            write_text(self.folder / f"{name}.svg", svg_of(figure))
        width, height = (round(side * figure.dpi) for side in figure.get_size_inches())
        forms = (base64.b64encode(png).decode() for png in (light, png_of(in_dark(figure))))
        return part("figure", *forms, width, height, caption, narrow)


def write(
    path: Path, title: str, chapters: Mapping[str, Sequence[str]], summary: str = "", kicker: str = "melmask report"
) -> Path:
    """Write a whole page, which needs nothing else.

    Args:
        path: the file.
        title: of the page.
        chapters: the parts of each section as HTML (`Markup`), by the section's title.
        summary: HTML above the sections.
        kicker: what kind of page it is.
    """
    page = _templates().get_template("page.html")
    html = page.render(title=title, kicker=kicker, chapters=chapters, summary=summary, version=version("melmask"))
    write_text(path, html, errors="replace")
    return path
