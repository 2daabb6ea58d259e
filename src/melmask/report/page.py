"""The elements of an HTML page: escaped text, figures inside the page, sections."""

import base64
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from melmask.files import write_bytes
from melmask.viz.style import Figure, png_of


def chip(colour: str) -> str:
    """A run's colour in the figures, as a small square."""
    return f'<span class="chip" style="background:{escape(colour)}"></span>'


def missing(text: str, command: str = "") -> str:
    """A note that something is missing, and the command that makes it."""
    remedy = f" <code>{escape(command)}</code>" if command else ""
    return f'<p class="missing">{escape(text)}{remedy}</p>'


def section(anchor: str, title: str, *parts: str) -> str:
    """A section of the page, with a heading that can be linked to."""
    return f'<section id="{anchor}">\n<h2>{escape(title)}</h2>\n' + "\n".join(parts) + "\n</section>"


class Figures:
    """Writes figures as PNG next to the page, and embeds them in it.

    Args:
        folder: of the page.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._names = folder, set[str]()

    def add(self, name: str, figure: Figure, caption: str, *, narrow: bool = False) -> str:
        """Write the figure as PNG and return it as HTML.

        Args:
            name: of the file, without .png.
            figure: what to write.
            caption: plain text; also the text for readers who do not see the figure.
            narrow: whether it is shown at less than the width of the page.
        """
        while name in self._names:
            name += "_"
        self._names.add(name)
        png = png_of(figure)
        write_bytes(self.folder / f"{name}.png", png)
        width, height = (round(side * figure.dpi) for side in figure.get_size_inches())
        source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        image = f'<img src="{source}" width="{width}" height="{height}" alt="{escape(caption)}">'
        kind = ' class="narrow"' if narrow else ""
        return f'<figure{kind}><div class="scroll">{image}</div><figcaption>{escape(caption)}</figcaption></figure>'


def fill(**parts: str) -> str:
    """The whole page; the parts are HTML."""
    return Template(files("melmask.report").joinpath("template.html").read_text(encoding="utf-8")).substitute(parts)
