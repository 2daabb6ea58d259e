"""Evaluation: probes over the splits of a task, and encoders on the same clips, splits and probes."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int

from melmask.data.store import Store
from melmask.encoders.cache import Reads, cache_folder, cached_features
from melmask.encoders.fixed_length import ClipLength, at_clip_length
from melmask.encoders.registry import NamedEncoder
from melmask.encoders.timesteps import TimeSteps
from melmask.evaluate.metrics import Metric, Score, score_of, score_with_interval
from melmask.evaluate.results import Result, result_of
from melmask.evaluate.task import Task, group_notes, group_numbers, make_task, splits_of
from melmask.logmel import LogMelSpec
from melmask.probes import label_of, make_probe
from melmask.probes.base import Probe
from melmask.probes.run import LabelledFeatures, predict_split

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """The predictions and the score of a probe on a task.

    Args:
        probe: its name, with the settings that differ from the defaults.
        task: its name.
        metric: what the scores are.
        score: over all test clips.
        per_fold: the mean over seeds, by test fold.
        per_training: probabilities by each seed's training; NaN for clips that were not tested.
        fold_of: number of the test fold of each clip, in the order of ``per_fold``; -1 for clips that were not tested.
        notes: what a reader of the score has to know.
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
        name: what `make_probe` takes, or a probe.
        features: row i is clip i of the task; `TimeSteps` only for a probe that reads them.
        task: labels, folds and groups.
        test_folds: test on these folds only; None for all.
        num_seeds: trainings per split, with the seeds seed, seed + 1, ...; a deterministic probe is trained once, and
            a few-shot probe once for each of its draws.
        seed: also of the interval, and of folds and validation splits that are drawn.

    Raises:
        ValueError: an unknown probe or setting, no seeds, features that do not fit the task or the probe or are not
            finite, or the task cannot be split.
    """
    probe = make_probe(name) if isinstance(name, str) else name
    if num_seeds < 1:
        raise ValueError(f"{num_seeds} seeds: at least one training is needed")
    if isinstance(features, TimeSteps) and probe.reads != "time steps":
        raise ValueError(
            f"probe {label_of(probe)} reads one vector a clip, not time steps: pool them, or use attentive"
        )
    _check_features(features, task)
    data = LabelledFeatures(features, task.flags, task.classes, task.is_multilabel)
    trainings = range(seed, seed + probe.num_trainings(num_seeds))
    scores = np.full((len(trainings), *task.flags.shape), np.nan, np.float32)
    fold_of, per_fold, notes = np.full(len(features), -1), {}, []
    for number, split in enumerate(splits_of(task, test_folds=test_folds, seed=seed)):
        try:
            predicted = predict_split(
                probe, data, split.train, split.valid, split.test, seeds=trainings, score=score_of
            )
        except ValueError as error:
            raise ValueError(f"fold {split.name}: {error}") from error
        scores[:, split.test], split_notes = predicted
        fold_of[split.test] = number
        per_fold[split.name] = float(np.mean([score_of(task.targets[split.test], s[split.test]) for s in scores]))
        notes += [*split.notes, *(f"fold {split.name}: {note}" for note in split_notes)]

    tested = np.flatnonzero(fold_of >= 0)
    groups = group_numbers(task)[tested]
    notes += group_notes(groups)
    score = score_with_interval(
        task.targets[tested], scores[:, tested], folds=fold_of[tested], groups=groups, seed=seed
    )
    unique_notes = tuple(dict.fromkeys(notes))
    return ProbeResult(label_of(probe), task.name, task.metric, score, per_fold, scores, fold_of, unique_notes)


def _check_features(features: Float[np.ndarray, "clip dim"] | TimeSteps, task: Task) -> None:
    if len(features) != len(task.paths):
        raise ValueError(f"{len(features)} rows of features, {len(task.paths)} clips in {task.name}: embed it again")
    if isinstance(features, TimeSteps):
        return  # finite: `half` has checked them
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise ValueError(
            f"features of clip {bad[0]} ({task.paths[bad[0]]}) are not finite, and of {len(bad) - 1} more: check the "
            "recording and the encoder's weights, or leave the clip out of the table"
        )


def task_store_folder(table: Path, spec: LogMelSpec) -> Path:
    """Where the prepared log-mels of a task are kept for the next time."""
    key = hashlib.sha256(f"{table.resolve()} {spec}".encode()).hexdigest()[:12]
    return cache_folder() / "tasks" / f"{table.stem}-{key}"


def evaluate(
    entrants: Sequence[NamedEncoder],
    table: Path,
    stores: Sequence[Store],
    *,
    probes: Sequence[str] = ("logistic",),
    clip_length: ClipLength = "task",
    test_folds: Sequence[str] = (),
    num_seeds: int = 3,
    command: str = "",
    progress: Progress = lambda what, done, total: None,
    found_one: Callable[[NamedEncoder, Task, ProbeResult], None] = lambda entrant, task, found: None,
) -> list[Result]:
    """Probe encoders on a task, all on the same clips.

    Args:
        entrants: the encoders; embeddings are cached.
        table: the task's CSV, for its name and its clip length.
        stores: the table, prepared with each of the log-mel settings in `specs_of`.
        probes: names of probes, with settings of their own if need be.
        clip_length: see `FixedLength`: in seconds, 0 for whole clips, or "task" for what the record beside the table
            says, and whole clips where there is none.
        test_folds: judge on these folds only; empty for all in turn.
        num_seeds: of probes that depend on a seed.
        command: recorded with the results.
        progress: called with what is being done and how far it is.
        found_one: called with all that a probe found, of which the line keeps little.

    Returns:
        A line for every encoder and probe, in their order.

    Raises:
        ValueError: the table is no task, its record is damaged, a fold does not exist, or an encoder fails on it.
    """
    chosen = [make_probe(probe) for probe in probes]  # before anything long is begun
    stores, clip_s = at_clip_length(stores, table, clip_length)
    by_spec = {store.spec: store for store in stores}
    rows = _shared_rows(stores)
    task = make_task(table.stem, [stores[0].clips[row].clip for row in rows[0]])
    rejected = len(stores[0]) + len(stores[0].rejected) - len(task.paths)
    same: dict[str, Any] = {"task_path": str(table), "num_classes": len(task.classes), "rejected": rejected}
    same |= {"test_folds": tuple(test_folds), "command": command, "clip_s": clip_s}
    cut = (f"clips of {clip_s:g} s: the middle of longer ones; shorter ones zero-padded on both sides",)
    results = []
    for entrant in entrants:
        store = by_spec[entrant.encoder.spec or stores[0].spec]

        def show(done: int, total: int, name: str = entrant.name) -> None:
            progress(f"{name}: embedding", done, total)

        made: dict[Reads, np.ndarray | TimeSteps] = {}  # by what probes read
        for done, probe in enumerate(chosen):
            if probe.reads not in made:
                read = cached_features(probe.reads, entrant.encoder, store, progress=show)
                made[probe.reads] = read[rows[stores.index(store)]]
            features = made[probe.reads]
            progress(f"{entrant.name}: {label_of(probe)}", done, len(chosen))
            found = run_probe(probe, features, task, test_folds=tuple(test_folds) or None, num_seeds=num_seeds)
            if clip_s:
                found = replace(found, notes=cut + found.notes)
            found_one(entrant, task, found)
            num_dims = features.num_dims if isinstance(features, TimeSteps) else features.shape[1]
            results.append(_line(entrant, found, num_dims=num_dims, **same))
    progress("", 1, 1)
    return results


def _shared_rows(stores: Sequence[Store]) -> list[np.ndarray]:
    """Of each store the rows of the recordings that all of them hold, in the order of the first."""
    row_of = [{stored.clip.path: row for row, stored in enumerate(store.clips)} for store in stores]
    shared = [stored.clip.path for stored in stores[0].clips if all(stored.clip.path in rows for rows in row_of)]
    if not shared:
        raise ValueError(
            "no recording is long enough for the log-mel settings of all encoders: evaluate them on longer ones"
        )
    return [np.array([rows[path] for path in shared]) for rows in row_of]


def _line(entrant: NamedEncoder, found: ProbeResult, **given: Any) -> Result:
    """What a probe found, as a line; ``given`` is what it does not know itself."""
    return result_of(
        found.score,
        task=found.task,
        probe=found.probe,
        features=entrant.features,
        metric=found.metric,
        notes=found.notes,
        encoder=entrant.name,
        identity=entrant.encoder.identity,
        settings=entrant.settings,
        **given,
    )
