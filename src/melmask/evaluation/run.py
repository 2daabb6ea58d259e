"""Evaluation: probes over the splits of a task, and encoders on the same clips, splits and probes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int

from melmask.data.checks import Verify
from melmask.data.manifest import source_names
from melmask.data.store import Store
from melmask.encoders.cache import Reads
from melmask.encoders.features import FeatureSettings, Layers, Pooling
from melmask.encoders.fixed_length import ClipLength
from melmask.encoders.registry import EncoderLike, NamedEncoder, specs_of, with_baselines
from melmask.encoders.timesteps import TimeSteps
from melmask.evaluation.metrics import Metric, Score, score_of, score_with_interval
from melmask.evaluation.prepared import PreparedTask, ShowProgress, prepare_task, show_nothing
from melmask.evaluation.protocol import ProtocolName, default_probes
from melmask.evaluation.results import Result, result_of
from melmask.evaluation.splits import splits_of
from melmask.evaluation.task import Task, group_notes, group_numbers
from melmask.probes import label_of, make_probe
from melmask.probes.base import Probe
from melmask.probes.run import LabelledFeatures, predict_split
from melmask.train.ranges import check_num_seeds


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
    test_features: Float[np.ndarray, "clip dim"] | TimeSteps | None = None,
    test_folds: Sequence[str] = (),
    num_seeds: int = 3,
    seed: int = 0,
) -> ProbeResult:
    """Train and test a probe on each of the task's splits.

    Args:
        name: what `make_probe` takes, or a probe.
        features: row i is clip i of the task; `TimeSteps` only for a probe that reads them.
        task: labels, folds and groups.
        test_features: of the clips as they are tested, if that is not as they are trained on.
        test_folds: test on these folds only; empty for each in turn.
        num_seeds: trainings per split, with the seeds seed, seed + 1, ...; a deterministic probe is trained once, and
            a few-shot probe once for each of its draws.
        seed: also of the interval, and of folds and validation splits that are drawn.

    Raises:
        ValueError: an unknown probe or setting, no seeds, features that do not fit the task or the probe or are not
            finite, or the task cannot be split.
    """
    probe = make_probe(name) if isinstance(name, str) else name
    check_num_seeds(num_seeds)
    if isinstance(features, TimeSteps) and probe.reads != "time steps":
        raise ValueError(
            f"probe {label_of(probe)} reads one vector a clip, not time steps: pool them, or use attentive"
        )
    for given in (features,) if test_features is None else (features, test_features):
        _check_features(given, task)
    data = LabelledFeatures(features, task.flags, task.classes, task.is_multilabel, test_features)
    trainings = range(seed, seed + probe.num_trainings(num_seeds))
    scores = np.full((len(trainings), *task.flags.shape), np.nan, np.float32)
    fold_of, per_fold, notes = np.full(len(features), -1), {}, []
    for number, split in enumerate(splits_of(task, test_folds=test_folds, seed=seed)):
        try:
            rows = (split.train, split.valid, split.test)
            predicted = predict_split(probe, data, *rows, parts=split.parts, seeds=trainings, score=score_of)
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


@dataclass(frozen=True)
class EvaluationSettings:
    """How encoders are evaluated on a task, the same for all of them.

    Args:
        probes: names as `make_probe` takes them, or probes; empty for those of the protocol.
        clip_length: in seconds, 0 for whole clips; longer clips are cut, and shorter ones zero-padded.
            "task": what the record beside the table says, and whole clips where there is none.
        test_folds: test on these folds only; empty for each in turn.
        num_seeds: trainings per split of a probe that depends on its seed.
        protocol: "melmask": the middle of longer clips, and logistic regression; "evar", after the evaluation package
            of M2D: a random crop in training and validation, the head in testing, and its linear layer.
        allow_duplicates: test on recordings that are in training too, under another name or as a copy, and note how
            many there are. Otherwise they are an error.
        verify: what of the prepared recordings is compared with checksums, see `melmask.data.prepare.prepare`.
    """

    probes: Sequence[str | Probe] = ("logistic",)
    clip_length: ClipLength = "task"
    test_folds: Sequence[str] = ()
    num_seeds: int = 3
    protocol: ProtocolName = "melmask"
    allow_duplicates: bool = False
    verify: Verify = "first"


DEFAULT_SETTINGS = EvaluationSettings()


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One encoder with one probe on one task.

    Args:
        encoder: with its name in tables.
        task: labels, folds and groups of the clips that all encoders can embed.
        found: predictions and score.
        result: the line of results.jsonl.
        probe: what predicted.
        features: of the clips as they are trained on, which the probe read.
    """

    encoder: NamedEncoder
    task: Task
    found: ProbeResult
    result: Result
    probe: Probe
    features: Float32[np.ndarray, "clip dim"] | TimeSteps


def evaluate(
    encoders: EncoderLike | Sequence[EncoderLike],
    tables: str | Path | Sequence[str | Path],
    *,
    probes: str | Probe | Sequence[str | Probe] = (),
    protocol: ProtocolName = "melmask",
    clip_length: ClipLength = "task",
    test_folds: Sequence[str] = (),
    num_seeds: int = 3,
    allow_duplicates: bool = False,
    layers: Layers = "auto",
    pooling: Pooling = "auto",
    baselines: bool = True,
    num_workers: int | None = None,
    progress: ShowProgress = show_nothing,
) -> list[Result]:
    """Evaluate frozen encoders on labelled tasks by probes, on the same clips and splits, beside baselines.

    Log-mels and embeddings are kept in the cache, so that a second call does not compute them again. Results are
    returned only; `melmask.evaluation.results.append_results` writes them to a file.

    Args:
        encoders: one or several: what `melmask.load` takes, what it returns, or Python objects with
            ``encode(batch, sample_rate)``.
        tables: one or several CSV files with path,label[,fold][,group].
        probes, protocol, clip_length, test_folds, num_seeds, allow_duplicates: see `EvaluationSettings`; one probe or
            several.
        layers, pooling: see `FeatureSettings`; of melmask encoders that are given by name.
        baselines: also evaluate each melmask encoder untrained, and log-mel statistics.
        num_workers: processes that decode; 0 decodes in this process; None: as of `prepare`.
        progress: called with (what is being done, number done, number in all).

    Returns:
        A result for each task, encoder and probe, in this order.

    Raises:
        ValueError: an encoder, probe, setting or fold does not exist, a table is no task, or an encoder fails on it.
        ImportError: the library that an encoder needs is not installed.
    """
    settings = EvaluationSettings(as_sequence(probes), clip_length, test_folds, num_seeds, protocol, allow_duplicates)
    named = with_baselines(as_sequence(encoders), FeatureSettings(layers, pooling), baselines=baselines)
    results = []
    paths = [Path(table) for table in as_sequence(tables)]
    for table, name in zip(paths, source_names(paths), strict=True):
        found = evaluate_table(named, table, settings, name=name, num_workers=num_workers, progress=progress)
        results += [evaluation.result for evaluation in found]
    return results


def evaluate_table(
    encoders: Sequence[NamedEncoder],
    table: Path,
    settings: EvaluationSettings = DEFAULT_SETTINGS,
    *,
    name: str = "",
    command: str = "",
    num_workers: int | None = None,
    progress: ShowProgress = show_nothing,
) -> Iterator[Evaluation]:
    """Prepare a task, and evaluate encoders on it.

    Args:
        encoders: with their names in tables.
        table: a CSV with path,label[,fold][,group].
        settings: probes, clip length, folds and seeds.
        name: of the task; the table's if empty.
        command: recorded with the results.
        num_workers, progress: see `evaluate`.

    Yields:
        An evaluation for each encoder and probe, in this order.

    Raises:
        ValueError: see `evaluate`.
    """
    _probes_of(settings)  # so that a wrong name is found before anything long begins
    stores = [
        prepare_task(table, spec, num_workers=num_workers, verify=settings.verify, progress=progress)
        for spec in specs_of(encoders)
    ]
    yield from evaluate_stores(encoders, table, stores, settings, name=name, command=command, progress=progress)


def evaluate_stores(
    encoders: Sequence[NamedEncoder],
    table: Path,
    stores: Sequence[Store],
    settings: EvaluationSettings = DEFAULT_SETTINGS,
    *,
    name: str = "",
    command: str = "",
    progress: ShowProgress = show_nothing,
) -> Iterator[Evaluation]:
    """Evaluate encoders on a task that is prepared.

    Args:
        encoders: with their names in tables; their embeddings are cached.
        table: the task's CSV.
        stores: the table, prepared with each of the log-mel settings in `specs_of`.
        settings, name, command, progress: see `evaluate_table`.

    Yields:
        See `evaluate_table`.

    Raises:
        ValueError: see `evaluate`.
    """
    named = _probes_of(settings)
    task = PreparedTask.of(
        table,
        stores,
        settings.clip_length,
        settings.protocol,
        name=name,
        allow_duplicates=settings.allow_duplicates,
    )
    for encoder in encoders:
        probes = named or default_probes(settings.protocol, encoder)
        features: dict[Reads, Float32[np.ndarray, "clip dim"] | TimeSteps] = {}
        test_features: dict[Reads, Float32[np.ndarray, "clip dim"] | TimeSteps] = {}
        for number, probe in enumerate(probes):
            if probe.reads not in features:
                features[probe.reads] = task.features(encoder, probe.reads, progress)
                if not task.is_tested_as_trained:
                    test_features[probe.reads] = task.features(encoder, probe.reads, progress, tested=True)
            progress(f"{encoder.name}: {label_of(probe)}", number, len(probes))
            own, folds = features[probe.reads], tuple(settings.test_folds)
            found = run_probe(
                probe,
                own,
                task.task,
                test_features=test_features.get(probe.reads),
                test_folds=folds,
                num_seeds=settings.num_seeds,
            )
            found = replace(found, notes=task.notes + found.notes)
            num_dims = own.num_dims if isinstance(own, TimeSteps) else own.shape[1]
            result = _result(encoder, task, found, num_dims, folds, command)
            yield Evaluation(encoder, task.task, found, result, probe, own)
    progress("", 1, 1)


def as_sequence(values: Any) -> Sequence[Any]:
    """One value as a sequence of one; a string counts as one value."""
    return values if isinstance(values, Sequence) and not isinstance(values, str) else [values]


def _probes_of(settings: EvaluationSettings) -> list[Probe]:
    return [make_probe(probe) if isinstance(probe, str) else probe for probe in settings.probes]


def _result(
    encoder: NamedEncoder, task: PreparedTask, found: ProbeResult, num_dims: int, folds: tuple[str, ...], command: str
) -> Result:
    return result_of(
        found.score,
        task=found.task,
        task_path=str(task.table),
        probe=found.probe,
        features=encoder.features,
        metric=found.metric,
        num_classes=len(task.task.classes),
        num_dims=num_dims,
        rejected=task.task.num_lost,
        content=task.task.content,
        test_folds=folds,
        command=command,
        notes=found.notes,
        encoder=encoder.name,
        identity=encoder.encoder.identity,
        settings=encoder.settings,
        clip_s=task.clip_s,
        step=encoder.encoder.step,
        split=task.split_name,
        protocol=task.protocol,
        baseline_of=encoder.baseline_of,
    )
