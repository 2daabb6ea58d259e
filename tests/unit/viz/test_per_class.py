"""The figures of per-class results: which classes they show, and that these can be read."""

import io

import numpy as np
import pytest
from matplotlib.image import imread

from evaluations import details
from melmask.viz.per_class import MAX_CLASSES, confusion_figure, shown_classes
from melmask.viz.style import png_of


def test_several_labels_have_no_confusion_matrix() -> None:
    with pytest.raises(ValueError, match="several labels"):
        confusion_figure(details(several=True))


def test_of_many_classes_the_most_misread_are_shown() -> None:
    many = details(200).confusion
    shown = shown_classes(many)
    assert len(shown) == MAX_CLASSES
    assert shown == sorted(shown)
    assert {label % 4 for label in shown} == {3, 2}
    none_taken = np.zeros((3, 3))
    none_taken[0, 0] = 1
    assert shown_classes(none_taken) == [0]


@pytest.mark.parametrize("num_classes", [2, 50, 200])
def test_the_picture_has_room_for_its_classes(num_classes: int) -> None:
    figure = confusion_figure(details(num_classes))
    figure.draw_without_rendering()
    axes = figure.axes[0]
    labels = [label.get_window_extent() for label in axes.get_yticklabels()]
    tops = sorted(box.y0 for box in labels)
    height = max(box.height for box in labels)
    assert min(np.diff(tops)) > 0.9 * height  # names do not run into each other
    assert min(box.x0 for box in labels) >= 0
    pixels = imread(io.BytesIO(png_of(figure)))
    assert pixels.shape[0] < 2600 and pixels.shape[1] < 2600
    assert pixels.std() > 0.02
