"""The look of every figure: colours, type, headlines and scales, and how a figure becomes a PNG."""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import Collection
from matplotlib.colors import Colormap, LinearSegmentedColormap, ListedColormap, hsv_to_rgb, to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

INK, MUTED, LINE, COVER = "#1d2733", "#66717f", "#d5dae1", "#dde3ea"
BASELINE_COLOUR, GRID = "#c3cad2", "#e9ecf0"
# The same on a dark page; what shows data keeps its colours.
DARK = {
    INK: "#e6ebf0", MUTED: "#a3afbb", LINE: "#3a4652", COVER: "#2c3742", BASELINE_COLOUR: "#5a6672", GRID: "#26303a",
    "#ffffff": "#12181f", "#000000": "#e6ebf0",
}  # fmt: skip
# Okabe and Ito's palette, told apart by colour-blind readers, without its yellow and black; then darker ones.
RUN_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
    "#5b4a8a",
    "#7f8c3f",
    "#8c4a2f",
    "#444c56",
)
# Magma without its darkest end, which would dominate a light page.
SPECTROGRAM = ListedColormap(matplotlib.colormaps["magma"](np.linspace(0.07, 0.99, 256)), "magma")
# Masked less often than at random: teal; as often: off-white; more often: orange. Safe for colour-blind readers.
PREFERENCE = LinearSegmentedColormap.from_list("preference", ["#0b4f5c", "#5fa8ad", "#f4f2ee", "#eda35c", "#a8480b"])
ERROR = "viridis"
GOLDEN_ANGLE = 137.5  # in degrees: hues so far apart in turn stay apart, however many there are
WIDTH_IN, DPI = 10.0, 160
SMALL = 7.5


def label_colours(count: int) -> list[str]:
    """Colours of so many labels: those of runs, and for more than these, hues all around the circle.

    >>> label_colours(2), len(set(label_colours(50)))
    (['#0072b2', '#d55e00'], 50)
    """
    if count <= len(RUN_COLOURS):
        return list(RUN_COLOURS[:count])
    shades = ((0.72, 0.62), (0.95, 0.42), (0.5, 0.8))  # saturation and value, in turn
    hues = ((i * GOLDEN_ANGLE / 360) % 1 for i in range(count))
    return [to_hex(tuple(hsv_to_rgb((hue, *shades[i % len(shades)])).tolist())) for i, hue in enumerate(hues)]


_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.titlepad": 4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "text.parse_math": False,  # names of files and classes may hold dollar signs
    "figure.dpi": DPI,
    "savefig.dpi": "figure",
    "figure.constrained_layout.h_pad": 0.025,
    "figure.constrained_layout.w_pad": 0.06,
    "image.interpolation": "nearest",
}

P = ParamSpec("P")


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib's defaults with melmask's look on top, whatever the user's own settings are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def in_style(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run a function that draws a figure with melmask's look."""

    @wraps(draw)
    def styled_draw(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with styled():
            return draw(*args, **kwargs)

    return styled_draw


def new_figure(height_in: float, width_in: float = WIDTH_IN) -> Figure:
    """An empty figure with its own Agg canvas: no global state, nothing to close."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(rect=(0.006, 0.008, 0.988, 0.984))  # type: ignore[union-attr, call-arg]
    return figure


def png_of(figure: Figure) -> bytes:
    """The figure as PNG, the same bytes for the same figure; characters that the font lacks are drawn as boxes."""
    buffer = io.BytesIO()
    with styled(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def svg_of(figure: Figure) -> str:
    """The figure as SVG, the same text for the same figure; letters are outlines, which need no font."""
    buffer = io.StringIO()
    with styled(), matplotlib.rc_context({"svg.hashsalt": "melmask"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def in_dark(figure: Figure) -> Figure:
    """The same figure, recoloured for a dark page: text, lines and grounds; what shows data keeps its colours."""
    figure.set_layout_engine("none")  # it stays as it was laid out
    for text in figure.findobj(Text):
        text.set_color(_dark(text.get_color()))
    for line in figure.findobj(Line2D):
        line.set_color(_dark(line.get_color()))
        line.set_markerfacecolor(_dark(line.get_markerfacecolor()))
        line.set_markeredgecolor(_dark(line.get_markeredgecolor()))
    for patch in figure.findobj(Patch):
        face, edge = patch.get_facecolor(), patch.get_edgecolor()
        patch.set_facecolor(_dark(face))
        patch.set_edgecolor(_dark(edge))
    for drawn in figure.findobj(Collection):
        if drawn.get_array() is None:
            drawn.set_facecolor([_dark(colour) for colour in drawn.get_facecolor()])
            drawn.set_edgecolor([_dark(colour) for colour in drawn.get_edgecolor()])
    return figure


def _dark(colour: Any) -> Any:
    """A colour's counterpart on a dark page, of the same opacity; colours without one stay."""
    if isinstance(colour, str) and colour in ("none", "auto"):
        return colour
    *_, opacity = to_rgba(colour)
    return to_rgba(DARK.get(to_hex(colour), colour), opacity)


def head(axes: Axes, name: str, note: str) -> None:
    """A headline that fills an axes of its own: a bold name and a note."""
    axes.set_axis_off()
    bold = axes.text(0, 0, name, fontsize=10, fontweight="bold", va="baseline", in_layout=False)
    axes.annotate(
        note, (1, 0), (7, 2), xycoords=bold, textcoords="offset points", va="baseline", color=MUTED, in_layout=False
    )


def scale_above(axes: Axes, image: ScalarMappable) -> None:
    """A small colour scale over the right end of a panel, on the line of its title."""
    bar = axes.inset_axes((0.66, 1.075, 0.34, 0.045))
    scale = axes.figure.colorbar(image, cax=bar, orientation="horizontal", ticks=MaxNLocator(nbins=3))
    scale.outline.set_visible(False)
    bar.tick_params(labeltop=True, labelbottom=False, top=False, bottom=False, pad=0)


def few_ticks() -> MaxNLocator:
    """Ticks for a narrow panel."""
    return MaxNLocator(nbins=4)


def error_colours() -> Colormap:
    """Colours of errors; NaN is drawn like a masked patch."""
    return matplotlib.colormaps[ERROR].with_extremes(bad=COVER)


def shortened(name: str, num_letters: int = 24) -> str:
    """A name cut to fit a panel.

    >>> shortened("dog: 1-100032-A-0.opus", 12)
    'dog: 1-1000…'
    """
    return name if len(name) <= num_letters else name[: num_letters - 1] + "…"
