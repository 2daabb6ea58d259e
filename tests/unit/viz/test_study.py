"""The figures of a study: an interval that is far wider than the others hides none of them."""

import pytest

from melmask.study.findings import Difference
from melmask.viz.study import effects_figure, looks_of

WIDE = {"sgim": (-0.01, -0.38, 0.37)}  # of two seeds that disagree
NARROW = {"dwm": (-0.02, -0.03, -0.01), "ibm": (0.01, -0.02, 0.04)}


def difference(arm: str, value: float, low: float, high: float) -> Difference:
    numbers = {"p_value": 1.0, "p_holm": 1.0, "p_not_worse": 1.0, "p_equivalent": 1.0, "margin": 0.01, "smallest": 0.1}
    counts = {"num_seeds": 2, "num_tasks": 6, "num_groups": 6}
    return Difference("m2d", arm, "random", "ridge", "all tasks", value, low, high, **numbers, **counts)


@pytest.mark.parametrize(("shown", "arrows"), [(NARROW, []), (NARROW | WIDE, ["<", ">"])])
def test_an_interval_that_goes_on_is_cut_at_the_frame_with_an_arrow(shown, arrows):
    found = [difference(arm, *numbers) for arm, numbers in shown.items()]
    figure = effects_figure(found, ["all tasks"], looks_of(["random", *shown], "random"))
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    assert high == -low == pytest.approx(1.05 * (8 if arrows else 4))  # 4 times the farthest value; or the farthest end
    drawn = [line for line in axes.lines if line.get_marker() in ("<", ">")]
    assert [line.get_marker() for line in drawn] == arrows
    assert [abs(line.get_xdata()[0]) for line in drawn] == [high] * len(arrows)
