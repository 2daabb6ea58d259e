"""A folder of per-class results: classes, confusions and calibration, as CSV, PNG and one Markdown page."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from melmask.escaping import in_markdown
from melmask.evaluation.metrics import Score
from melmask.evaluation.per_class import Calibration, ClassDetails, Details
from melmask.files import write_bytes, write_text
from melmask.report.formats import csv_table, markdown_table
from melmask.viz.per_class import confusion_figure, reliability_figure
from melmask.viz.style import png_of

NUM_CONFUSIONS = 15
PAGE, CLASSES, CONFUSION, CALIBRATION = "per_class.md", "classes.csv", "confusion.csv", "calibration.csv"
CLASS_COLUMNS = (
    "class", "clips", "recall", "recall low", "recall high", "precision", "F1",
    "AP", "AP low", "AP high", "ROC AUC", "ROC AUC low", "ROC AUC high",
)  # fmt: skip
CALIBRATION_COLUMNS = ("from", "to", "predictions", "mean probability", "correct", "correct low", "correct high")


def save_per_class(details: Details, folder: Path) -> Path:
    """Write per-class results as tables (CSV), figures (PNG) and a page that shows both (Markdown).

    Args:
        details: what `details_of` returns.
        folder: is created if missing; files of an earlier call are replaced.

    Returns:
        The page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "reliability.png", png_of(reliability_figure(details)))
    _write_csv(folder / CALIBRATION, CALIBRATION_COLUMNS, _calibration_rows(details.calibration))
    _write_csv(folder / CLASSES, CLASS_COLUMNS, map(_class_row, details.classes))
    if details.confusion is not None:
        write_bytes(folder / "confusion.png", png_of(confusion_figure(details)))
        rows = ([name, *map(_plain, row)] for name, row in zip(details.class_names, details.confusion, strict=True))
        _write_csv(folder / CONFUSION, ["true \\ predicted", *details.class_names], rows)
    page = folder / PAGE
    write_text(page, _markdown(details), errors="replace")
    return page


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    write_text(path, csv_table(header, rows), errors="surrogateescape")


def confusions(details: Details) -> list[tuple[str, str, float, float]]:
    """The most frequent confusions: true class, predicted class, clips, and their share of the true class."""
    if details.confusion is None:
        return []
    wrong = details.confusion - np.diag(details.confusion.diagonal())
    num_clips = details.confusion.sum(axis=1)
    order = np.argsort(-wrong, axis=None, kind="stable")[:NUM_CONFUSIONS]
    pairs = [divmod(int(place), len(wrong)) for place in order]
    return [
        (details.class_names[i], details.class_names[j], float(wrong[i, j]), float(wrong[i, j] / num_clips[i]))
        for i, j in pairs
        if wrong[i, j] > 0
    ]


def _class_row(one: ClassDetails) -> list[str]:
    scores = (one.recall, one.average_precision, one.roc_auc)
    recall, average_precision, roc_auc = ([_plain(s.value), _plain(s.low), _plain(s.high)] for s in scores)
    return [
        *(one.name, str(one.num_clips), *recall, _plain(one.precision), _plain(one.f1)),
        *(*average_precision, *roc_auc),
    ]


def _calibration_rows(found: Calibration) -> list[list[str]]:
    columns = (found.edges[:-1], found.edges[1:], found.num_predictions, found.confidence, found.right)
    return [[_plain(float(value)) for value in row] for row in zip(*columns, found.low, found.high, strict=True)]


def _plain(value: float) -> str:
    """A number with six digits; empty for NaN."""
    return "" if np.isnan(value) else f"{value:.6g}"


def _markdown(details: Details) -> str:
    first = next(iter(details.figures.values()))
    seeds = f", {first.num_seeds} trainings" if first.num_seeds > 1 else ""
    scores = [(name, *_with_interval(score)) for name, score in details.figures.items()]
    title = f"{details.task}, {details.probe}"
    parts = [
        f"# {in_markdown(title)}\n\n{first.num_clips:,} test clips{seeds}. 95 % intervals.\n",
        markdown_table(("score", "value", "interval"), scores),
        _calibration_sentence(details.calibration),
        "![Reliability of the probabilities](reliability.png)\n",
        "".join(f"- {in_markdown(note)}\n" for note in details.notes),
    ]
    if details.confusion is not None:
        parts += ["## Confusions\n", "![Confusion matrix](confusion.png)\n", _confusions_table(details)]
    parts += ["## Classes\n", _classes_table(details)]
    return "\n".join(part for part in parts if part)


def _with_interval(score: Score) -> tuple[str, str]:
    return f"{score.value:.3f}", f"{score.low:.3f} to {score.high:.3f}"


def _calibration_sentence(found: Calibration) -> str:
    value, interval = _with_interval(found.error)
    return (
        f"Expected calibration error {value} ({interval}); calibrated probabilities have about "
        f"{found.sampling_error:.3f} on as many clips.\n"
    )


def _confusions_table(details: Details) -> str:
    rows = [(a, b, f"{clips:.1f}", f"{100 * share:.0f} %") for a, b, clips, share in confusions(details)]
    return markdown_table(("true class", "predicted class", "clips", "of the class"), rows)


def _classes_table(details: Details) -> str:
    """The classes from the lowest recall to the highest."""
    columns = ("class", "clips", "recall", "interval", "precision", "F1", "AP", "interval", "ROC AUC")
    by_recall = sorted(details.classes, key=lambda one: (one.recall.value, one.average_precision.value))
    rows = [
        (
            *(one.name, str(one.num_clips), *_with_interval(one.recall), f"{one.precision:.3f}", f"{one.f1:.3f}"),
            *(*_with_interval(one.average_precision), f"{one.roc_auc.value:.3f}"),
        )
        for one in by_recall
    ]
    return markdown_table(columns, rows)
