"""Tables and pictures of what stands behind a score."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread

from melmask.evaluate.metrics import Score
from melmask.evaluate.per_class import Calibration, ClassDetails, Details
from melmask.viz.per_class import MAX_CLASSES, confusion_figure, confusions, save_judgement, shown_classes
from melmask.viz.style import png_of


def _details(num_classes: int = 4, several: bool = False) -> Details:
    """Ten test clips a class, some of them taken for the next one."""
    names = tuple(f"class | {i}" for i in range(num_classes))
    wrong = np.arange(num_classes) % 4.0
    confusion = np.diag(10 - wrong) + np.roll(np.diag(wrong), 1, axis=1)
    score = Score(0.75, 0.7, 0.8, 3, 10 * num_classes)
    nothing = Score(float("nan"), float("nan"), float("nan"), 3, 10 * num_classes)
    right = np.linspace(0, 1, 15)
    counts = np.arange(15)
    gaps = np.where(counts > 0, right, np.nan)
    error = Score(0.1, 0.08, 0.13, 3, 10 * num_classes)
    calibration = Calibration(error, 0.02, np.linspace(0, 1, 16), counts, gaps, gaps, gaps - 0.1, gaps + 0.1)
    return Details(
        probe="linear:learning_rate=3e-05",
        task="toy $x$",
        figures={"accuracy": score, "d'": replace(score, value=float("inf"))},
        classes=tuple(ClassDetails(name, 10, score, float("nan"), 0.5, score, nothing) for name in names),
        class_names=names,
        confusion=None if several else confusion,
        calibration=calibration,
        notes=("a note",),
    )


def _rows(path) -> list[list[str]]:
    return list(csv.reader(path.read_text(encoding="utf-8").splitlines()))


def test_everything_is_written(tmp_path) -> None:
    page = save_judgement(_details(), tmp_path / "new")
    assert page == tmp_path / "new" / "judgement.md"
    assert sorted(path.name for path in page.parent.iterdir()) == [
        "calibration.csv", "classes.csv", "confusion.csv", "confusion.png", "judgement.md", "reliability.png",
    ]  # fmt: skip
    text = page.read_text()
    for words in (
        "| accuracy | 0.750 | 0.700 to 0.800 |",
        "| class \\| 3 | class \\| 0 | 3.0 | 30 % |",
        "- a note",
        "error 0.100 (0.080 to 0.130)",
    ):
        assert words in text
    for name in ("confusion.png", "reliability.png"):
        assert f"({name})" in text
    classes = _rows(page.parent / "classes.csv")
    assert classes[1][:6] == ["class | 0", "10", "0.75", "0.7", "0.8", ""]
    assert {len(row) for row in classes} == {len(classes[0])}
    matrix = _rows(page.parent / "confusion.csv")
    assert matrix[0][1:] == [row[0] for row in matrix[1:]]
    assert [float(cell) for cell in matrix[4][1:]] == [3, 0, 0, 7]
    assert _rows(page.parent / "calibration.csv")[1][2:] == ["0", "", "", "", ""]


def test_several_labels_have_no_confusion(tmp_path) -> None:
    page = save_judgement(_details(several=True), tmp_path)
    assert not (tmp_path / "confusion.png").exists()
    assert "confusion" not in page.read_text()
    assert confusions(_details(several=True)) == []
    with pytest.raises(ValueError, match="several labels"):
        confusion_figure(_details(several=True))


def test_confusions_are_listed_most_frequent_first() -> None:
    found = confusions(_details())
    assert found == [
        ("class | 3", "class | 0", 3, 0.3), ("class | 2", "class | 3", 2, 0.2), ("class | 1", "class | 2", 1, 0.1),
    ]  # fmt: skip


def test_of_many_classes_the_most_misread_are_shown() -> None:
    many = _details(200).confusion
    shown = shown_classes(many)
    assert len(shown) == MAX_CLASSES
    assert shown == sorted(shown)
    assert {label % 4 for label in shown} == {3, 2}
    none_taken = np.zeros((3, 3))
    none_taken[0, 0] = 1
    assert shown_classes(none_taken) == [0]


@pytest.mark.parametrize("num_classes", [2, 50, 200])
def test_the_picture_has_room_for_its_classes(num_classes: int) -> None:
    figure = confusion_figure(_details(num_classes))
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


def test_same_details_same_bytes(tmp_path) -> None:
    first, second = (save_judgement(_details(), tmp_path / name).parent for name in "ab")
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()
