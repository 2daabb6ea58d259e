"""Details of a score: every class on its own, confusions, and the calibration of the probabilities."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from melmask.evaluation.bootstrap import Statistic, bootstrap, interval, num_drawn
from melmask.evaluation.metrics import (
    Score,
    d_prime,
    mean_over_classes,
    weighted_average_precision,
    weighted_by_class,
    weighted_macro_accuracy,
    weighted_roc_auc,
)
from melmask.evaluation.run import ProbeResult
from melmask.evaluation.task import Task, group_numbers

NUM_BINS = 15
NUM_RESAMPLES = 1000


@dataclass(frozen=True)
class ClassDetails:
    """One class against the rest, over all test clips; the mean over seeds.

    Args:
        name: of the class.
        num_clips: test clips that have it.
        recall: share of its clips that are predicted as it.
        precision: share of the clips predicted as it that have it; NaN if none is.
        f1: their harmonic mean.
        average_precision: the mean over folds, as probabilities of different trainings cannot be compared.
        roc_auc: likewise; NaN if all test clips have it.

    The predicted class is the one with the highest probability; where clips have several labels, every class with a
    probability of at least 0.5 is predicted.
    """

    name: str
    num_clips: int
    recall: Score
    precision: float
    f1: float
    average_precision: Score
    roc_auc: Score


@dataclass(frozen=True, eq=False)
class Calibration:
    """Calibration: whether of the predictions with probability p a share p is right.

    One label a clip: the probability of the predicted class. Several: of every class, against its flag.

    Args:
        error: expected calibration error, 0..1: the gap between probability and share of right predictions, averaged
            over bins by the number of predictions in them, of all seeds together. Resampling adds noise to every bin,
            which raises the error; so its interval is that of the resamples shifted to the value as their mean, and not
            below 0.
        sampling_error: the error that perfectly calibrated probabilities would show on as many independent predictions;
            an error near it is no sign of bad calibration.
        edges: of the bins of equal width, 0..1.
        num_predictions: in each bin, of all seeds together.
        confidence: their mean probability; NaN in empty bins.
        right: share of right predictions; NaN in empty bins.
        low, high: the 95 % interval of ``right``, by `bootstrap`.

    Source: Guo et al. (2017), arXiv 1706.04599, with 15 bins of equal width. Deviates: where clips have several labels,
    the probabilities of all classes count.
    """

    error: Score
    sampling_error: float
    edges: Float[np.ndarray, " edge"]
    num_predictions: Int[np.ndarray, " bin"]
    confidence: Float[np.ndarray, " bin"]
    right: Float[np.ndarray, " bin"]
    low: Float[np.ndarray, " bin"]
    high: Float[np.ndarray, " bin"]


@dataclass(frozen=True, eq=False)
class Details:
    """Scores of a probe on a task by class, with confusions and calibration.

    Args:
        probe, task: their names.
        figures: scores by name, the task's own first: accuracy, macro accuracy (one label a clip only), mAP, ROC AUC
            and d', each with its interval.
        classes: those that any test clip has, in the task's order.
        class_names: all classes of the task.
        confusion: number of test clips of each class (row) that are predicted as each class (column), averaged over
            seeds, in the order of ``class_names``; None where clips have several labels.
        calibration: of the probabilities.
        notes: what a reader of the scores has to know.
    """

    probe: str
    task: str
    figures: dict[str, Score]
    classes: tuple[ClassDetails, ...]
    class_names: tuple[str, ...]
    confusion: Float[np.ndarray, "true predicted"] | None
    calibration: Calibration
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Tested:
    """The test clips of a result, with all that their scores are computed from."""

    flags: Bool[np.ndarray, "clip num_classes"]
    scores: Float[np.ndarray, "seed clip num_classes"]
    predicted: Bool[np.ndarray, "seed clip num_classes"]
    folds: Int[np.ndarray, " clip"]
    groups: Int[np.ndarray, " clip"]

    def resampled(self, statistic: Statistic, *, by_fold: bool) -> tuple[np.ndarray, np.ndarray]:
        """Values and their resamples, as `bootstrap` gives them."""
        folds = self.folds if by_fold else None
        num_seeds, num_clips, _ = self.scores.shape
        return bootstrap(statistic, num_clips, num_seeds, folds=folds, groups=self.groups, num_resamples=NUM_RESAMPLES)

    def scored(
        self, statistic: Statistic, of: Bool[np.ndarray, "clip figure"], *, by_fold: bool, are_shares: bool = False
    ) -> list[Score]:
        """Values with their intervals.

        Args:
            statistic: as of `bootstrap`, of several figures.
            of: the clips that each figure rests on.
            by_fold: whether each fold is scored on its own.
            are_shares: whether the figures are shares of these clips.
        """
        values, resampled = self.resampled(statistic, by_fold=by_fold)
        single = num_drawn(self.groups) is None
        found = []
        for value, drawn, own in zip(values, resampled, of.T, strict=True):
            num_groups = None if single else len(np.unique(self.groups[own]))
            ends = interval(drawn, float(value), int(own.sum()), num_groups, is_share=are_shares)
            found.append(Score(float(value), *ends, *self.scores.shape[:2]))
        return found


def details_of(result: ProbeResult, task: Task) -> Details:
    """Compute the details of a probe's score.

    Args:
        result: of `run_probe`.
        task: the task that was given to it.

    Raises:
        ValueError: the result is of another task.
    """
    if result.task != task.name or result.per_training.shape[1:] != task.flags.shape:
        raise ValueError(f"a result on {result.task} has no details on {task.name}: give the task it was made with")
    rows = np.flatnonzero(result.fold_of >= 0)
    scores = result.per_training[:, rows]
    highest = scores.argmax(axis=2)[:, :, None] == np.arange(len(task.classes))
    predicted = scores >= 0.5 if task.is_multilabel else highest
    tested = _Tested(task.flags[rows], scores, predicted, result.fold_of[rows], group_numbers(task)[rows])
    figures, precision, areas = _ranked(tested, task.is_multilabel)
    return Details(
        probe=result.probe,
        task=task.name,
        figures={task.metric: result.score, **figures},
        classes=_classes(tested, task.classes, precision, areas),
        class_names=task.classes,
        confusion=None if task.is_multilabel else _confusion(tested),
        calibration=_calibration(tested, task.is_multilabel),
        notes=result.notes,
    )


def _ranked(tested: _Tested, multilabel: bool) -> tuple[dict[str, Score], list[Score], list[Score]]:
    """Scores that are averaged over folds: of all classes together, and each class's average precision and ROC AUC."""
    flags, scores, targets = tested.flags, tested.scores, tested.flags.argmax(axis=1)

    def count(clips: Int[np.ndarray, " _"], weight: Float[np.ndarray, "_ resample"]) -> np.ndarray:
        precision, area = (
            weighted_by_class(of_class, flags[clips], scores[:, clips], weight)
            for of_class in (weighted_average_precision, weighted_roc_auc)
        )
        means = [mean_over_classes(precision), mean_over_classes(area)]
        if not multilabel:
            means.append(weighted_macro_accuracy(targets[clips], scores[:, clips], weight))
        return np.concatenate([np.stack(means, axis=1), precision, area], axis=1)

    num_classes, num_means = flags.shape[1], 2 if multilabel else 3
    all_clips = np.ones((len(flags), num_means), bool)
    found = tested.scored(count, np.concatenate([all_clips, flags, flags], axis=1), by_fold=True)
    mean_precision, area, *macro = found[:num_means]
    figures = {} if multilabel else {"macro accuracy": macro[0], "mAP": mean_precision}
    figures["ROC AUC"] = area
    figures["d'"] = Score(d_prime(area.value), d_prime(area.low), d_prime(area.high), area.num_seeds, area.num_clips)
    return figures, found[num_means : num_means + num_classes], found[num_means + num_classes :]


def _classes(
    tested: _Tested, names: tuple[str, ...], precision: list[Score], areas: list[Score]
) -> tuple[ClassDetails, ...]:
    flags, predicted = tested.flags, tested.predicted
    hit = predicted & flags

    def recall(clips: Int[np.ndarray, " _"], weight: Float[np.ndarray, "_ resample"]) -> np.ndarray:
        num_hits = hit[:, clips].transpose(0, 2, 1).astype(np.float32) @ weight
        with np.errstate(invalid="ignore"):
            return num_hits / (flags[clips].T.astype(np.float32) @ weight)

    recalls = tested.scored(recall, flags, by_fold=False, are_shares=True)
    num_clips, num_hits, num_predicted = flags.sum(axis=0), hit.sum(axis=1), predicted.sum(axis=1)
    with np.errstate(invalid="ignore"):
        shares = mean_over_classes((num_hits / num_predicted)[None])[0]  # over the seeds that predict it at all
    f1 = (2 * num_hits / np.maximum(num_clips + num_predicted, 1)).mean(axis=0)
    return tuple(
        ClassDetails(names[i], int(num_clips[i]), recalls[i], float(shares[i]), float(f1[i]), precision[i], areas[i])
        for i in np.flatnonzero(num_clips)
    )


def _confusion(tested: _Tested) -> Float[np.ndarray, "true predicted"]:
    return np.mean([tested.flags.T.astype(np.float64) @ predicted for predicted in tested.predicted], axis=0)


def _calibration(tested: _Tested, multilabel: bool) -> Calibration:
    confidence = tested.scores.clip(0, 1)  # estimates of the ridge probe may leave 0..1
    right = np.broadcast_to(tested.flags, confidence.shape)
    if not multilabel:
        right = (tested.predicted & tested.flags).any(axis=2, keepdims=True)
        confidence = confidence.max(axis=2, keepdims=True)
    bin_of = np.clip(np.ceil(confidence * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)  # (low, high], as in the source
    bins = range(NUM_BINS)
    num_right = np.stack([((bin_of == i) & right).sum(axis=2) for i in bins], axis=1)  # [seed bin clip]
    num_all = np.stack([(bin_of == i).sum(axis=2) for i in bins], axis=1)
    total = np.stack([np.where(bin_of == i, confidence, 0).sum(axis=2, dtype=np.float64) for i in bins], axis=1)
    sums = np.concatenate([num_right, num_all, total], axis=1).astype(np.float32)
    _, resampled = tested.resampled(lambda clips, weight: sums[:, :, clips] @ weight, by_fold=False)
    drawn_right, drawn, drawn_total = np.split(resampled, 3)
    count = num_all.sum(axis=(0, 2))
    filled = count > 0
    with np.errstate(invalid="ignore"):
        mean, share = total.sum(axis=(0, 2)) / count, num_right.sum(axis=(0, 2)) / count
        clips = (count // len(tested.scores)).tolist()  # those of different seeds are the same
        bins_drawn = zip(drawn_right / drawn, share.tolist(), clips, strict=True)
        ends = np.array([interval(*of_bin) for of_bin in bins_drawn])
    # The share of n predictions has the standard deviation s = sqrt(p (1 - p) / n); the mean absolute deviation of a
    # normal law is sqrt(2 / pi) s. Predictions of different seeds for one clip are nearly the same and count as one.
    noise = np.sqrt(2 / np.pi * (mean * (1 - mean))[filled] * len(tested.scores) / count[filled])
    part = count[filled] / count.sum()
    error = float((part * np.abs(share - mean)[filled]).sum())
    errors = np.abs(drawn_right - drawn_total).sum(axis=0) / drawn.sum(axis=0)
    low, high = interval(np.maximum(errors - errors.mean() + error, 0))
    return Calibration(
        error=Score(error, low, high, *tested.scores.shape[:2]),
        sampling_error=float((part * noise).sum()),
        edges=np.linspace(0, 1, NUM_BINS + 1),
        num_predictions=count,
        confidence=mean,
        right=share,
        low=ends[:, 0],
        high=ends[:, 1],
    )
