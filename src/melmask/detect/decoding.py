"""From probabilities of time steps to active or not: median filters and thresholds, chosen on validation recordings."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import median_filter

MEDIANS_S = (0.0, 0.3, 0.6, 1.2)


@dataclass(frozen=True)
class Decoder:
    """A class is active in a time step where the median of its probabilities around the step exceeds a threshold.

    Args:
        thresholds: of each class; infinity: never active.
        windows: length of each class's median filter in time steps, odd.
    """

    thresholds: tuple[float, ...]
    windows: tuple[int, ...]

    def __call__(self, probabilities: Float[np.ndarray, "time class"]) -> Bool[np.ndarray, "time class"]:
        """Which class is active in which time step of a recording."""
        columns = [smooth(column, window) for column, window in zip(probabilities.T, self.windows, strict=True)]
        return np.stack(columns, axis=1) > np.array(self.thresholds)


def choose_decoder(
    probabilities: Sequence[Float[np.ndarray, "_ class"]],
    truths: Sequence[Bool[np.ndarray, "_ class"]],
    step_s: float,
    medians_s: Sequence[float] = MEDIANS_S,
) -> Decoder:
    """Choose the window and threshold with the best F of time steps, for each class; of equals the shortest window.

    Every threshold that makes a difference is tried. A class that is never active in these recordings gets no median
    filter and the threshold 1/2.

    Args:
        probabilities: of validation recordings.
        truths: which classes are active in them.
        step_s: length of a time step, in seconds.
        medians_s: lengths of the windows to try, in seconds; rounded to odd numbers of time steps.
    """
    windows = sorted({1 + 2 * round(median_s / step_s / 2) for median_s in medians_s})
    truth = np.concatenate(truths)
    chosen = []
    for column in range(truth.shape[1]):
        if not truth[:, column].any():
            chosen.append((0.0, 0.5, 1))
            continue
        candidates = []
        for window in windows:
            smoothed = np.concatenate([smooth(of_clip[:, column], window) for of_clip in probabilities])
            candidates.append((*best_threshold(smoothed, truth[:, column]), window))
        chosen.append(max(candidates, key=lambda candidate: candidate[0]))
    return Decoder(tuple(threshold for _, threshold, _ in chosen), tuple(window for *_, window in chosen))


def best_threshold(scores: Float[np.ndarray, " step"], truth: Bool[np.ndarray, " step"]) -> tuple[float, float]:
    """Find the best F of any threshold, and that threshold: it lies halfway between two scores.

    >>> best_threshold(np.array([0.9, 0.1, 0.7, 0.3]), np.array([True, False, True, False]))
    (1.0, 0.5)
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order].astype(np.float64)
    f_score = 2 * np.cumsum(truth[order]) / (np.arange(1, len(ranked) + 1) + truth.sum())
    f_score[:-1][ranked[:-1] == ranked[1:]] = 0  # no threshold lies between equal scores
    best = int(f_score.argmax())
    below = ranked[best + 1] if best + 1 < len(ranked) else -np.finfo(np.float64).eps  # so that 0 exceeds it too
    return float(f_score[best]), float((ranked[best] + below) / 2)


def smooth(scores: Float[np.ndarray, " time"], window: int) -> Float[np.ndarray, " time"]:
    """Median filter over time steps; at both ends the outermost score is repeated.

    A threshold on the result decides as a median filter on thresholded scores does.
    """
    return median_filter(scores, size=window, mode="nearest")
