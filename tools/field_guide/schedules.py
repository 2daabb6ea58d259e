"""The picture of the schedules of hints, guidance and exponents."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from melmask.masking import ExponentSchedule, GuidanceSchedule, HintSchedule
from melmask.masking.base import num_masked_of
from melmask.masking.laws import guidance
from melmask.masking.schedule import Schedule
from melmask.viz import style

HINTS = {
    "k = 1": HintSchedule(power=1.0),
    "k = 2, the default": HintSchedule(),
    "k = 4": HintSchedule(power=4.0),
    "k = 8": HintSchedule(power=8.0),
    "cosine": HintSchedule(shape="cosine"),
    "constant 0.5": HintSchedule(constant=0.5),
}
EXPONENTS = {
    "to 1, k = 1": ExponentSchedule(),
    "to 1, k = 2": ExponentSchedule(power=2.0),
    "to 2, k = 1": ExponentSchedule(final=2.0),
}
ASKED = ((1 / 6, 0.0), (1.0, 1.0))  # λ that rises linearly after a start with random masks
PROGRESS = np.linspace(0, 1, 301)


@style.in_style
def schedules_figure(num_patches: int = 190, mask_ratio: float = 0.7) -> Figure:
    """Hint ratios over a run, the guidance that remains under them, scheduled guidance, and exponents.

    Args:
        num_patches: of the input.
        mask_ratio: share of them that is masked.
    """
    num_masked = num_masked_of(num_patches, mask_ratio)
    asked = GuidanceSchedule(ASKED, num_patches, num_masked)

    def left_by(hints: Schedule) -> Schedule:
        return lambda progress: guidance(num_patches, num_masked, hints(progress))

    figure = style.new_figure(2.8, 9.2)
    rows = figure.add_gridspec(2, 4, height_ratios=(1, 0.3))
    panels = [figure.add_subplot(rows[0, column]) for column in range(4)]
    lines = _draw(panels[0], "hint ratio h", HINTS)
    _draw(panels[1], f"λ that h leaves, r = {mask_ratio:g}", {name: left_by(h) for name, h in HINTS.items()})
    solved = _draw(panels[2], "λ scheduled, h solved", {"λ, as asked for": asked.guidance, "h": asked}, first=6)
    raised = _draw(panels[3], "exponent α", EXPONENTS)
    for place, handles, columns in ((rows[1, :2], lines, 3), (rows[1, 2], solved, 1), (rows[1, 3], raised, 1)):
        key = figure.add_subplot(place)
        key.set_axis_off()
        key.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, 1.1), ncols=columns, borderaxespad=0)
    return figure


def _draw(axes: Axes, title: str, schedules: Mapping[str, Schedule], first: int = 0) -> list[Line2D]:
    """A line for every schedule."""
    lines: list[Line2D] = []
    for i, (name, schedule) in enumerate(schedules.items(), start=first):
        values = [schedule(progress) for progress in PROGRESS]
        lines += axes.plot(PROGRESS, values, color=style.RUN_COLOURS[i], label=name)
    axes.set_title(title, fontweight="bold")
    axes.set(xlim=(0, 1), ylim=(-0.03, max(1.0, *axes.get_ylim()) * 1.02))
    axes.set_xticks([0, 0.5, 1], ["start", "middle", "end"])
    axes.grid()
    return lines
