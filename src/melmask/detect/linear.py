"""A linear event detector on features of time steps."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor
from torch.nn import functional as F

from melmask.detect.decoding import Decoder, choose_decoder
from melmask.detect.events import Event, EventTask, activity, merge
from melmask.detect.scoring import Counts, onset_counts, segment_counts
from melmask.encoders.timesteps import TimeSteps, standardise
from melmask.evaluation.bootstrap import bootstrap, interval, num_drawn
from melmask.evaluation.metrics import Score, mean_average_precision
from melmask.evaluation.splits import Split, splits_of
from melmask.evaluation.task import group_numbers
from melmask.probes.base import loss_of
from melmask.probes.fit import AdamSettings, fit
from melmask.train.ranges import check_num_seeds

PIECE_STEPS = 32  # a batch is of pieces of recordings, so that a long recording does not dominate it


@dataclass(frozen=True)
class Detector:
    """A logistic regression for each class on the features of one time step, and a decoder.

    Weights start at 0. The epoch with the best mean average precision of validation steps is kept; each class's
    threshold and median filter are chosen on the same recordings.

    Args:
        training: how the regression is trained; a batch is of pieces of `PIECE_STEPS` steps.
        max_gap_s: gaps of up to so many seconds within a class are closed.
    """

    training: AdamSettings = field(default_factory=lambda: AdamSettings(batch_size=16))
    max_gap_s: float = 0.2

    def fit(
        self,
        train: TimeSteps,
        train_y: Sequence[Bool[np.ndarray, "_ class"]],
        valid: TimeSteps,
        valid_y: Sequence[Bool[np.ndarray, "_ class"]],
        step_s: float,
        seed: int,
    ) -> tuple[Float[Tensor, "dim1 class"], Decoder]:
        """Train on training recordings, and choose the decoder on validation recordings.

        Args:
            train, valid: standardised features.
            train_y, valid_y: which classes are active in the time steps of each recording.
            step_s: from one time step to the next, in seconds.
            seed: of the order of the pieces.

        Returns:
            Weights, of which the last row is the bias; and the decoder, which never detects a class that is not in
            ``train_y``.
        """
        weight = self._train(train, np.concatenate(train_y), valid, np.concatenate(valid_y), seed)
        decoder = choose_decoder(predict(weight, valid), valid_y, step_s)
        is_trained = np.any([of_clip.any(axis=0) for of_clip in train_y], axis=0)
        thresholds = np.where(is_trained, decoder.thresholds, np.inf)
        return weight, replace(decoder, thresholds=tuple(thresholds.tolist()))

    def _train(
        self, train: TimeSteps, train_y: Bool[np.ndarray, "step class"],
        valid: TimeSteps, valid_y: Bool[np.ndarray, "step2 class"], seed: int,
    ) -> Float[Tensor, "dim1 class"]:  # fmt: skip
        rng = np.random.default_rng(seed)
        pieces = train.cut(PIECE_STEPS)
        first = np.cumsum(pieces.length) - pieces.length
        weight = torch.zeros(train.num_dims + 1, train_y.shape[1], requires_grad=True)

        def epoch() -> Iterator[Tensor]:
            for batch in pieces.batches(rng.permutation(len(pieces)), self.training.batch_size):
                x = torch.cat([_with_one(pieces, piece) for piece in batch.tolist()])
                y = np.concatenate([train_y[first[piece] : first[piece] + pieces.length[piece]] for piece in batch])
                yield loss_of(x @ weight, torch.from_numpy(y).float())

        def score() -> float:
            return mean_average_precision(valid_y, np.concatenate(predict(weight, valid)))

        fit(
            self.training.optimiser([weight], train.num_dims),
            [weight],
            epoch,
            score,
            max_epochs=self.training.max_epochs,
            patience=self.training.patience,
        )
        return weight.detach()


DEFAULT_DETECTOR = Detector()


@dataclass(frozen=True, eq=False)
class Detection:
    """The scores of a detector on a task, and the events that it detected.

    Args:
        segment_f1: F of segments of 1 s, of all classes together.
        onset_f: F of events that begin within 200 ms, of all classes together.
        by_class: both, for each class.
        events: detected in each tested recording, by the first training.
        notes: what a reader of the scores has to know.
    """

    segment_f1: Score
    onset_f: Score
    by_class: dict[str, tuple[Score, Score]]
    events: dict[Path, tuple[Event, ...]]
    notes: tuple[str, ...]


def detect(
    steps: TimeSteps,
    centres_s: Float[np.ndarray, " time"],
    step_s: float,
    task: EventTask,
    *,
    detector: Detector = DEFAULT_DETECTOR,
    test_folds: Sequence[str] = (),
    num_seeds: int = 3,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Detection:
    """Train and test a detector on each of the task's splits.

    Args:
        steps: features of the time steps of each of the task's recordings.
        centres_s: of the time steps in seconds, of the longest recording or more.
        step_s: from one time step to the next, in seconds.
        task: strong labels.
        detector: its settings.
        test_folds: test on these folds only; empty for each in turn.
        num_seeds: trainings per split.
        seed: of the first training, of random splits and of intervals.
        progress: called with the number of trainings done and in total.

    Raises:
        ValueError: the task cannot be split, or a split has no events to train or to validate on.
        ImportError: sed_eval is not installed.
    """
    classes = task.task.classes
    active = [
        activity(events, classes, centres_s[:length], step_s)
        for events, length in zip(task.events, steps.length, strict=True)
    ]
    splits = splits_of(task.task, test_folds=test_folds, seed=seed)
    check_num_seeds(num_seeds)
    found: list[dict[int, tuple[Event, ...]]] = [{} for _ in range(num_seeds)]
    notes: list[str] = []
    for number, split in enumerate(splits):
        notes += [*split.notes, *_check(split, active, classes)]
        train, valid, test = standardise(*(steps[part] for part in (split.train, split.valid, split.test)))
        train_y, valid_y = ([active[i] for i in part] for part in (split.train, split.valid))
        for training in range(num_seeds):
            weight, decoder = detector.fit(train, train_y, valid, valid_y, step_s, seed + training)
            for i, probabilities in zip(split.test.tolist(), predict(weight, test), strict=True):
                found[training][i] = merge(
                    decoder(probabilities),
                    classes,
                    centres_s[: len(probabilities)],
                    step_s,
                    max_gap_s=detector.max_gap_s,
                    duration_s=task.durations_s[i],
                )
            progress(number * num_seeds + training + 1, len(splits) * num_seeds)
    return _scored(task, found, tuple(dict.fromkeys(notes)), seed)


def predict(weight: Float[Tensor, "dim1 class"], clips: TimeSteps) -> list[Float32[np.ndarray, "_ class"]]:
    """Probabilities of each class in each time step of each clip."""
    with torch.no_grad():
        return [(_with_one(clips, number) @ weight).sigmoid().numpy() for number in range(len(clips))]


def _with_one(clips: TimeSteps, number: int) -> Float32[Tensor, "time dim1"]:
    return F.pad(torch.from_numpy(clips.clip(number)), (0, 1), value=1.0)


def _check(split: Split, active: Sequence[Bool[np.ndarray, "_ class"]], classes: Sequence[str]) -> list[str]:
    """Notes on classes without events in a split; ValueError if there are no events to train or to validate on."""
    notes = []
    for part, clips, effect in (
        ("training", split.train, "never detected"),
        ("validation", split.valid, "its threshold is 1/2"),
    ):
        has = np.any([active[i].any(axis=0) for i in clips], axis=0)
        if not has.any():
            raise ValueError(f"fold {split.name}: no events in {part} recordings: check the folds")
        names = [label for label, is_there in zip(classes, has, strict=True) if not is_there]
        if names:
            notes.append(f"fold {split.name}: no {part} events of {', '.join(names)}: {effect}")
    return notes


def _scored(
    task: EventTask, found: Sequence[dict[int, tuple[Event, ...]]], notes: tuple[str, ...], seed: int
) -> Detection:
    tested = sorted(found[0])
    wanted, classes = [task.events[i] for i in tested], task.task.classes
    durations_s = [task.durations_s[i] for i in tested]
    detected = [[of_seed[i] for i in tested] for of_seed in found]
    groups = group_numbers(task.task)[tested]
    segments = [segment_counts(wanted, of_seed, durations_s, classes) for of_seed in detected]
    onsets = [onset_counts(wanted, of_seed, classes) for of_seed in detected]
    segment_scores, onset_scores = (_scores(counts, groups, seed) for counts in (segments, onsets))
    return Detection(
        segment_f1=segment_scores[0],
        onset_f=onset_scores[0],
        by_class=dict(zip(classes, zip(segment_scores[1:], onset_scores[1:], strict=True), strict=True)),
        events={task.task.paths[i]: found[0][i] for i in tested},
        notes=notes,
    )


def _scores(counts: Sequence[Counts], groups: Int[np.ndarray, " file"], seed: int) -> list[Score]:
    """F of all classes together and of each, with intervals over groups of recordings and over trainings.

    Decisions of all folds are counted together; probabilities would compare within a training only.
    """

    def statistic(files: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return np.stack([of_seed[files].f_score(weight) for of_seed in counts])

    num_files = len(groups)
    values, resampled = bootstrap(statistic, num_files, len(counts), groups=groups, seed=seed)
    return [
        Score(
            float(value),
            *interval(of_class, float(value), num_files, num_drawn(groups)),
            num_seeds=len(counts),
            num_clips=num_files,
        )
        for value, of_class in zip(values, resampled, strict=True)
    ]
