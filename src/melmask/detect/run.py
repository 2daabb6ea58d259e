"""One encoder on one table of strong labels: events detected from its time steps and from those of its baselines."""

from collections.abc import Callable, Sequence
from pathlib import Path

from melmask.data.store import Store
from melmask.detect.events import make_event_task
from melmask.detect.linear import Detection, detect
from melmask.detect.scoring import COLLAR_S, SEGMENT_S
from melmask.encoders.baselines import logmel_steps
from melmask.encoders.cache import cached_time_steps
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.encoders.registry import ENCODER, UNTRAINED
from melmask.encoders.timesteps import TimeSteps
from melmask.evaluation.results import Result, result_of

LOGMEL_STEPS = "log-mel steps"


def judge_events(
    encoder: PretrainedEncoder,
    table: Path,
    store: Store,
    *,
    test_folds: Sequence[str] = (),
    num_seeds: int = 3,
    baselines: bool = True,
    command: str = "",
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> tuple[list[Result], Detection]:
    """Detect events with an encoder and, as baselines, with the same untrained and with the log-mels of each time step.

    Args:
        encoder: whose layers are read; its pooling does not matter.
        table: the CSV of strong labels, see `melmask.detect.events.read_events`.
        store: the table, prepared with the encoder's log-mel settings.
        test_folds: judge on these folds only; empty for all in turn.
        num_seeds: trainings per fold.
        baselines: False leaves the baselines out.
        command: recorded with the results.
        progress: called with what is being done and how far it is.

    Returns:
        Two lines each, for segments and for onsets; and all about the encoder's own events.

    Raises:
        ValueError: the table has a fault, or a fold does not exist.
        ImportError: sed_eval is not installed.
    """
    task = make_event_task(table, store)

    def read(name: str, some: PretrainedEncoder) -> TimeSteps:
        return cached_time_steps(
            some, store, task.rows, progress=lambda done, total: progress(f"{name}: embedding", done, total)
        )

    made: list[tuple[str, str, str, Callable[[], TimeSteps]]] = [
        (encoder.name, ENCODER, encoder.identity, lambda: read(encoder.name, encoder))
    ]
    if baselines and encoder.has_untrained:
        fresh = encoder.untrained()
        made.append((fresh.name, UNTRAINED, fresh.identity, lambda: read(fresh.name, fresh)))
    if baselines:
        step_frames = encoder.encoder.patch_shape[1]
        made.append((LOGMEL_STEPS, LOGMEL_STEPS, "", lambda: logmel_steps(store, task.rows, step_frames)))
    results: list[Result] = []
    detections: list[Detection] = []
    for name, features, identity, time_steps in made:
        steps = time_steps()

        def show(done: int, total: int, name: str = name) -> None:
            progress(f"{name}: detecting", done, total)

        detection = detect(
            steps,
            encoder.timestamps_s(int(steps.length.max())),
            encoder.step_s,
            task,
            test_folds=test_folds,
            num_seeds=num_seeds,
            progress=show,
        )
        detections.append(detection)
        scores = {
            f"segments of {SEGMENT_S:g} s": detection.segment_f1,
            f"onsets within {1000 * COLLAR_S:g} ms": detection.onset_f,
        }
        results += [
            result_of(
                score,
                task=task.task.name,
                task_path=str(table),
                probe=what,
                features=features,
                metric="F",
                num_classes=len(task.task.classes),
                num_dims=steps.num_dims,
                rejected=task.rejected,
                test_folds=tuple(test_folds),
                command=command,
                notes=detection.notes,
                encoder=name,
                identity=identity,
                settings="" if features == LOGMEL_STEPS else str(encoder.settings),
            )
            for what, score in scores.items()
        ]
    return results, detections[0]
