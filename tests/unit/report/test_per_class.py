"""The page and tables of per-class results."""

import csv
from pathlib import Path

from evaluations import details
from melmask.report.per_class import confusions, save_per_class


def _rows(path: Path) -> list[list[str]]:
    return list(csv.reader(path.read_text(encoding="utf-8").splitlines()))


def test_everything_is_written(tmp_path) -> None:
    page = save_per_class(details(), tmp_path / "new")
    assert page == tmp_path / "new" / "per_class.md"
    assert sorted(path.name for path in page.parent.iterdir()) == [
        "calibration.csv", "classes.csv", "confusion.csv", "confusion.png", "per_class.md", "reliability.png",
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
    page = save_per_class(details(several=True), tmp_path)
    assert not (tmp_path / "confusion.png").exists()
    assert "confusion" not in page.read_text()
    assert confusions(details(several=True)) == []


def test_confusions_are_listed_most_frequent_first() -> None:
    found = confusions(details())
    assert found == [
        ("class | 3", "class | 0", 3, 0.3), ("class | 2", "class | 3", 2, 0.2), ("class | 1", "class | 2", 1, 0.1),
    ]  # fmt: skip


def test_same_details_same_bytes(tmp_path) -> None:
    first, second = (save_per_class(details(), tmp_path / name).parent for name in "ab")
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()
