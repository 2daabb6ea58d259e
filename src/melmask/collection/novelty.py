"""Novelty: how far recordings lie from known good ones, with a threshold of a stated false-alarm rate."""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Float64, Int

from melmask.escaping import in_csv
from melmask.files import atomic_write

NUM_NEIGHBOURS = 2


@dataclass(frozen=True, eq=False)
class Novelty:
    """Distances to known good recordings.

    Args:
        distance: of each recording to its nearest good ones.
        nearest: the row of the nearest good one.
        p_value: the share of good recordings, held out, that lie as far away; the recording itself counts as one.
        threshold: of the distance, above which a recording is novel.
    """

    distance: Float64[np.ndarray, " test"]
    nearest: Int[np.ndarray, " test"]
    p_value: Float64[np.ndarray, " test"]
    threshold: float

    @property
    def is_novel(self) -> np.ndarray:
        """Whether each recording lies beyond the threshold."""
        return self.distance > self.threshold


def novelty(
    good: Float32[np.ndarray, "good dim"],
    groups: Sequence[object],
    test: Float32[np.ndarray, "test dim"],
    false_alarms: float = 0.05,
    num_neighbours: int = NUM_NEIGHBOURS,
) -> Novelty:
    """Mean cosine distance to the nearest good recordings, and what is beyond the good ones among themselves.

    Each good recording is held out in turn, with all of its group, and its distance to the others taken. The threshold
    is the smallest of these distances that at most the wanted share of new good recordings exceeds, if they are as
    exchangeable with the known ones as these are among each other.

    Args:
        good: embeddings of known good recordings, as they are in normal operation.
        groups: of each, such as its machine or day; recordings of one group are held out together.
        test: embeddings to judge.
        false_alarms: the share of good recordings that may be called novel.
        num_neighbours: whose mean distance is taken.

    Raises:
        ValueError: a share not in (0, 1), or too few good recordings for it.

    Source: Laxhammar and Falkman (2010), conformal anomaly detection; Angiulli and Pizzuti (2002), mean distance to the
    k nearest. Deviates: leave-one-out in place of one held-out set.
    """
    if not 0 < false_alarms < 1:
        raise ValueError(f"false_alarms is a share between 0 and 1, got {false_alarms}")
    needed = math.ceil(1 / false_alarms - 1e-9) - 1
    if len(good) < max(needed, num_neighbours + 1):
        raise ValueError(
            f"{len(good)} good recordings are too few for a false-alarm rate of {false_alarms:g}: "
            f"give at least {max(needed, num_neighbours + 1)}, or a larger rate"
        )
    codes = np.unique(np.array([str(group) for group in groups]), return_inverse=True)[1]
    units, tested = _units(good), _units(test)
    among = 1 - units @ units.T
    among[codes[:, None] == codes] = np.inf
    if (np.isfinite(among).sum(axis=1) < num_neighbours).any():
        raise ValueError("a good recording has too few others outside of its group: give more groups")
    held_out = np.sort(among, axis=1)[:, :num_neighbours].mean(axis=1)
    distances = 1 - tested @ units.T
    distance = np.sort(distances, axis=1)[:, :num_neighbours].mean(axis=1)
    rank = math.ceil((len(good) + 1) * (1 - false_alarms) - 1e-9)
    p_value = (1 + (held_out[None] >= distance[:, None]).sum(axis=1)) / (len(good) + 1)
    return Novelty(distance, distances.argmin(axis=1), p_value, float(np.sort(held_out)[rank - 1]))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV, atomically, in which no text is a formula."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([in_csv(value) if isinstance(value, str) else value for value in row] for row in rows)


def _units(features: Float32[np.ndarray, "row dim"]) -> Float[np.ndarray, "row dim"]:
    length = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    return features / np.maximum(length, 1e-30)
