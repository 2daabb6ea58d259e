"""Evaluation of event detection: an encoder and its baselines on one table of strong labels."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from melmask.data.store import Store
from melmask.detect.events import EventTask, make_event_task
from melmask.detect.linear import Detection, detect
from melmask.detect.scoring import COLLAR_S, SEGMENT_S
from melmask.encoders.baselines import logmel_steps
from melmask.encoders.cache import cached_time_steps
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.encoders.registry import ENCODER, UNTRAINED
from melmask.encoders.timesteps import TimeSteps
from melmask.evaluation.prepared import ShowProgress, show_nothing
from melmask.evaluation.results import Result, result_of
from melmask.extras import need

LOGMEL_STEPS = "log-mel steps"


@dataclass(frozen=True)
class StepFeatures:
    """Features of time steps, computed when they are asked for.

    Args:
        name: what tables call them.
        features: what kind they are, see `Result`.
        identity: a hash of the encoder's weights and settings; empty without an encoder.
        settings: layers of the encoder; empty without one.
        compute: gives the features of the task's recordings.
    """

    name: str
    features: str
    identity: str
    settings: str
    compute: Callable[[], TimeSteps]


def evaluate_detection(
    encoder: PretrainedEncoder,
    table: Path,
    store: Store,
    *,
    test_folds: Sequence[str] = (),
    num_seeds: int = 3,
    allow_duplicates: bool = False,
    baselines: bool = True,
    command: str = "",
    progress: ShowProgress = show_nothing,
) -> tuple[list[Result], Detection]:
    """Train and test a linear detector on the time steps of an encoder, and of its baselines.

    The baselines are the same encoder untrained, and the log-mels of each time step.

    Args:
        encoder: its layers are read; its pooling does not matter.
        table: the CSV of strong labels, see `melmask.detect.events.read_events`.
        store: the table, prepared with the encoder's log-mel settings.
        test_folds: test on these folds only; empty for each in turn.
        num_seeds: trainings per fold.
        allow_duplicates: see `melmask.evaluation.run.EvaluationSettings`.
        baselines: False leaves the baselines out.
        command: recorded with the results.
        progress: called with (what is being done, number done, number in all).

    Returns:
        Two results for each kind of features, the F of segments and of onsets; and what the encoder itself detected.

    Raises:
        ValueError: the table has a fault, or a fold does not exist.
        ImportError: the extra events is not installed.
    """
    need("events", "the score of events")
    task, folds = make_event_task(table, store, allow_duplicates=allow_duplicates), tuple(test_folds)
    results: list[Result] = []
    detections: list[Detection] = []
    for source in _sources(encoder, store, task, baselines, progress):
        steps = source.compute()
        detection = detect(
            steps,
            encoder.timestamps_s(int(steps.length.max())),
            encoder.step_s,
            task,
            test_folds=folds,
            num_seeds=num_seeds,
            progress=_named(progress, f"{source.name}: detecting"),
        )
        detections.append(detection)
        results += _results(source, table, task, detection, steps.num_dims, folds, command)
    return results, detections[0]


def _sources(
    encoder: PretrainedEncoder, store: Store, task: EventTask, baselines: bool, progress: ShowProgress
) -> Iterator[StepFeatures]:
    """The encoder, and the baselines if they are asked for."""

    def of_encoder(some: PretrainedEncoder, features: str) -> StepFeatures:
        show = _named(progress, f"{some.name}: embedding")

        def compute() -> TimeSteps:
            return cached_time_steps(some, store, task.rows, progress=show)

        return StepFeatures(some.name, features, some.identity, str(some.settings), compute)

    yield of_encoder(encoder, ENCODER)
    if baselines and encoder.has_untrained:
        yield of_encoder(encoder.untrained(), UNTRAINED)
    if baselines:
        step_frames = encoder.encoder.patch_shape[1]
        yield StepFeatures(LOGMEL_STEPS, LOGMEL_STEPS, "", "", lambda: logmel_steps(store, task.rows, step_frames))


def _results(
    source: StepFeatures,
    table: Path,
    task: EventTask,
    detection: Detection,
    num_dims: int,
    folds: tuple[str, ...],
    command: str,
) -> list[Result]:
    scores = {
        f"segments of {SEGMENT_S:g} s": detection.segment_f1,
        f"onsets within {1000 * COLLAR_S:g} ms": detection.onset_f,
    }
    return [
        result_of(
            score,
            task=task.task.name,
            task_path=str(table),
            probe=what,
            features=source.features,
            metric="F",
            num_classes=len(task.task.classes),
            num_dims=num_dims,
            rejected=task.num_rejected,
            content=task.task.content,
            test_folds=folds,
            command=command,
            notes=detection.notes,
            encoder=source.name,
            identity=source.identity,
            settings=source.settings,
        )
        for what, score in scores.items()
    ]


def _named(progress: ShowProgress, what: str) -> Callable[[int, int], None]:
    """The progress of one thing that is being done."""
    return lambda done, total: progress(what, done, total)
