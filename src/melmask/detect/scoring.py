"""Scores of detected events, computed by the library sed_eval."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from melmask.detect.events import Event

SEGMENT_S = 1.0
COLLAR_S = 0.2


@dataclass(frozen=True, eq=False)
class Counts:
    """The counts that precision and recall are computed from.

    Args:
        correct: segments or events that are both in the reference and detected.
        reference: those in the reference.
        detected: those detected.
    """

    correct: Int[np.ndarray, "file class"]
    reference: Int[np.ndarray, "file class"]
    detected: Int[np.ndarray, "file class"]

    def __getitem__(self, files: Int[np.ndarray, " some"]) -> "Counts":
        """Of some files."""
        return Counts(self.correct[files], self.reference[files], self.detected[files])

    def f_score(self, weight: Float[np.ndarray, "file resample"] | None = None) -> Float[np.ndarray, "class1 resample"]:
        """F of all classes together and then of each class, from the counts of all files, each weighted.

        That is the harmonic mean of precision and recall; NaN where there is nothing to detect.
        """
        weight = np.ones((len(self.correct), 1)) if weight is None else weight
        correct, reference, detected = (
            _with_sum(counts).T @ weight for counts in (self.correct, self.reference, self.detected)
        )
        return np.where(reference > 0, 2 * correct / np.maximum(reference + detected, 1), np.nan)


def segment_counts(
    reference: Sequence[Sequence[Event]],
    detected: Sequence[Sequence[Event]],
    durations_s: Sequence[float],
    classes: Sequence[str],
) -> Counts:
    """Count the segments of 1 s in which each class is active, in the reference, by the detector, and in both.

    Args:
        reference, detected: the events of each file.
        durations_s: of each file, in seconds; segments begin before its end.
        classes: names.

    Raises:
        ImportError: sed_eval is not installed.

    Source: Mesaros, Heittola & Virtanen (2016), "Metrics for polyphonic sound event detection", by its authors'
    library. Deviates: not at all.
    """
    sed_eval = _sed_eval()
    rows = []
    for wanted, found, duration_s in zip(reference, detected, durations_s, strict=True):
        metric = sed_eval.sound_event.SegmentBasedMetrics(_names(classes), time_resolution=SEGMENT_S)
        metric.evaluate(_listed(wanted, classes), _listed(found, classes), evaluated_length_seconds=duration_s)
        rows.append(metric.class_wise)
    return _counts(rows, classes)


def onset_counts(
    reference: Sequence[Sequence[Event]], detected: Sequence[Sequence[Event]], classes: Sequence[str]
) -> Counts:
    """Count the events that begin within 200 ms of one of the reference, each matched with at most one other.

    Args:
        reference, detected: the events of each file.
        classes: names.

    Raises:
        ImportError: sed_eval is not installed.

    Source: as `segment_counts`, the event-based metric with onsets only and optimal matching. Deviates: not at all.
    """
    sed_eval = _sed_eval()
    rows = []
    for wanted, found in zip(reference, detected, strict=True):
        metric = sed_eval.sound_event.EventBasedMetrics(_names(classes), t_collar=COLLAR_S, evaluate_offset=False)
        metric.evaluate(_listed(wanted, classes), _listed(found, classes))
        rows.append(metric.class_wise)
    return _counts(rows, classes)


def _counts(rows: Sequence[dict[str, dict[str, float]]], classes: Sequence[str]) -> Counts:
    def table(key: str) -> np.ndarray:
        return np.array([[row[name][key] for name in _names(classes)] for row in rows]).round().astype(np.int64)

    return Counts(table("Ntp"), table("Nref"), table("Nsys"))


def _names(classes: Sequence[str]) -> list[str]:
    """Classes by number, as sed_eval strips blanks from labels and takes "none" for no label."""
    return [f"class {number}" for number in range(len(classes))]


def _listed(events: Sequence[Event], classes: Sequence[str]) -> list[dict[str, Any]]:
    name = dict(zip(classes, _names(classes), strict=True))
    return [
        {"event_onset": event.onset_s, "event_offset": event.offset_s, "event_label": name[event.label]}
        for event in events
    ]


def _with_sum(counts: Int[np.ndarray, "file class"]) -> Int[np.ndarray, "file class1"]:
    return np.concatenate([counts.sum(axis=1, keepdims=True), counts], axis=1)


def _sed_eval() -> ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it imports pkg_resources, which warns that it will go
            import sed_eval
    except ImportError as error:
        raise ImportError(
            f"events are scored by sed_eval, which cannot be imported ({error}): pip install 'melmask[events]'"
        ) from error
    return sed_eval
