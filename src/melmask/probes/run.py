"""Probes: how well simple classifiers read a task's classes from frozen features.

`run_probe` owns what must not differ between probes: which clips train, validate and test, the scaler, classes that the
training clips lack, seeds and the score. A classifier only fits and predicts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int

from melmask.encoders.timesteps import TimeSteps, standardise
from melmask.evaluate.metrics import Metric, Score, score_of, score_with_interval
from melmask.evaluate.task import Split, Task, group_numbers, splits_of
from melmask.probes import label_of, make_probe
from melmask.probes.attentive import AttentiveProbe
from melmask.probes.base import Probe
from melmask.probes.fewshot import FewShotProbe

FEW_GROUPS = 10


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """What a probe found on a task.

    Args:
        probe: its name, with the settings that are not the usual ones.
        task: its name.
        metric: what the scores are.
        score: over all test clips.
        per_fold: the mean over seeds, by test fold.
        per_training: probabilities by every seed's training; NaN for clips that no fold asked for tested.
        fold_of: number of the test fold of each clip, in the order of ``per_fold``; -1 for clips that were not tested.
        notes: what a reader of the score has to know, for people.
    """

    probe: str
    task: str
    metric: Metric
    score: Score
    per_fold: dict[str, float]
    per_training: Float32[np.ndarray, "training clip num_classes"]
    fold_of: Int[np.ndarray, " clip"]
    notes: tuple[str, ...]

    @property
    def predictions(self) -> Float32[np.ndarray, "clip num_classes"]:
        """Probabilities, averaged over seeds."""
        return self.per_training.mean(axis=0)


def run_probe(
    name: str | Probe,
    features: Float[np.ndarray, "clip dim"] | TimeSteps,
    task: Task,
    *,
    test_folds: Sequence[str] | None = None,
    num_seeds: int = 3,
    seed: int = 0,
) -> ProbeResult:
    """Train and test a probe on each of the task's splits.

    Args:
        name: what `make_probe` takes, or a probe with settings of its own.
        features: row i is clip i of the task; the attentive probe reads time steps as well.
        task: labels, folds and groups.
        test_folds: only these as test; None for all.
        num_seeds: trainings per split, with the seeds seed, seed + 1, ...; a probe without chance is trained once, and
            one that draws its clips as often as it says itself.
        seed: also of drawn folds, drawn validation splits and the interval.

    Raises:
        ValueError: an unknown probe or setting, no seeds, features that do not fit the task or the probe or are not
            finite, or the task cannot be split.
    """
    probe = make_probe(name) if isinstance(name, str) else name
    if num_seeds < 1:
        raise ValueError(f"{num_seeds} seeds: at least one training is needed")
    if isinstance(features, TimeSteps) and not isinstance(probe, AttentiveProbe):
        raise ValueError(
            f"probe {label_of(probe)} reads one vector a clip, not time steps: pool them, or use attentive"
        )
    _check_features(features, task)
    trainings = range(seed, seed + _num_trainings(probe, num_seeds))
    scores = np.full((len(trainings), *task.flags.shape), np.nan, np.float32)
    fold_of, per_fold, notes = np.full(len(features), -1), {}, []
    for number, split in enumerate(splits_of(task, test_folds=test_folds, seed=seed)):
        scores[:, split.test], split_notes = _predict(probe, features, task, split, trainings)
        fold_of[split.test] = number
        per_fold[split.name] = float(np.mean([score_of(task.targets[split.test], s[split.test]) for s in scores]))
        notes += [*split.notes, *split_notes]

    tested = np.flatnonzero(fold_of >= 0)
    groups = group_numbers(task)[tested]
    notes += group_notes(groups)
    score = score_with_interval(
        task.targets[tested], scores[:, tested], folds=fold_of[tested], groups=groups, seed=seed
    )
    unique_notes = tuple(dict.fromkeys(notes))
    return ProbeResult(label_of(probe), task.name, task.metric, score, per_fold, scores, fold_of, unique_notes)


def group_notes(groups: Int[np.ndarray, " test"]) -> list[str]:
    """What the groups of the test clips make of an interval, if it has to be said."""
    num_groups = len(np.unique(groups))
    if num_groups == 1:
        return ["all test clips are of one group: the interval is over clips, and says nothing of other groups"]
    return [f"the interval rests on {num_groups} groups only"] if num_groups < FEW_GROUPS else []


def _num_trainings(probe: Probe, num_seeds: int) -> int:
    if isinstance(probe, FewShotProbe):
        return probe.num_draws
    return num_seeds if probe.is_seeded else 1


def _predict(
    probe: Probe, features: Float[np.ndarray, "clip dim"] | TimeSteps, task: Task, split: Split, seeds: Sequence[int]
) -> tuple[Float32[np.ndarray, "seed test num_classes"], list[str]]:
    """Probabilities of the split's test clips; 0 for classes that its training clips lack."""
    notes = []
    trained = np.flatnonzero(task.flags[split.train].any(axis=0))
    lacks = np.setdiff1d(np.flatnonzero(task.flags.any(axis=0)), trained)
    valid = split.valid
    if len(lacks):
        names = ", ".join(task.classes[label] for label in lacks[:5]) + (", ..." if len(lacks) > 5 else "")
        num_test = int(task.flags[split.test][:, lacks].any(axis=1).sum())
        notes.append(f"fold {split.name}: no training clips of {names}; never predicted, in {num_test} test clips")
        valid = valid[task.flags[valid][:, trained].any(axis=1)]
    if not len(valid):
        raise ValueError(f"fold {split.name}: no validation clip has a class of the training clips: check the splits")

    num_each = task.flags[split.train][:, trained].sum(axis=0)
    if isinstance(probe, FewShotProbe) and num_each.min() < probe.num_per_class:
        names = ", ".join(task.classes[trained[i]] for i in np.flatnonzero(num_each < probe.num_per_class)[:5])
        notes.append(f"fold {split.name}: fewer than {probe.num_per_class} training clips of {names}: all are taken")

    def targets(clips: Int[np.ndarray, " _"]) -> np.ndarray:
        flags = task.flags[clips][:, trained]
        return flags if task.is_multilabel else flags.argmax(axis=1)

    parts = (split.train, valid, split.test)
    train_x, valid_x, test_x = _standardise(*(features[part] for part in parts))
    scores = np.zeros((len(seeds), len(split.test), len(task.classes)), np.float32)
    for row, seed in enumerate(seeds):
        scores[row][:, trained] = probe.fit_predict(
            train_x, targets(split.train), valid_x, targets(valid), test_x,
            num_classes=len(trained), multilabel=task.is_multilabel, seed=seed,
        )  # fmt: skip
    return scores, notes


def _standardise(train: np.ndarray | TimeSteps, *others: Any) -> list[Any]:
    """Zero mean and unit deviation on the training clips; features that are constant there become 0 everywhere."""
    if isinstance(train, TimeSteps):
        return standardise(train, *others)
    mean, deviation = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64)
    varies = deviation > np.finfo(np.float32).eps * np.abs(mean)  # below this, float32 features vary by rounding only
    scale = np.where(varies, 1 / np.where(varies, deviation, 1), 0)
    return [((x - mean) * scale).astype(np.float32) for x in (train, *others)]


def _check_features(features: Float[np.ndarray, "clip dim"] | TimeSteps, task: Task) -> None:
    if len(features) != len(task.paths):
        raise ValueError(f"{len(features)} rows of features, {len(task.paths)} clips in {task.name}: embed it again")
    if isinstance(features, TimeSteps):
        return  # finite, or they would not have been made
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise ValueError(
            f"features of clip {bad[0]} ({task.paths[bad[0]]}) are not finite, and of {len(bad) - 1} more: check the "
            "recording and the encoder's weights, or leave the clip out of the table"
        )
