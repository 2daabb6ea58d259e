"""One encoder on one task: embeddings and floors through the same probes, and the lines they leave behind."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from melmask.data.store import Store
from melmask.evaluate.embed import FrozenEncoder
from melmask.evaluate.floors import logmel_statistics
from melmask.evaluate.probe import run_probe
from melmask.evaluate.tasks import make_task
from melmask.logmel import LogMelSpec

RESULTS = "results.jsonl"
ENCODER, UNTRAINED, LOGMEL_STATISTICS = "encoder", "untrained", "log-mel statistics"
FEATURES = (ENCODER, UNTRAINED, LOGMEL_STATISTICS)


@dataclass(frozen=True)
class Result:
    """One line of results.jsonl: one kind of features, read by one probe, on one task.

    Args:
        task: name of the task.
        task_path: its table.
        probe: name of the probe.
        features: the trained encoder, the same untrained, or log-mel statistics.
        metric: accuracy or mAP.
        score: its value, with the 95 % interval from ``low`` to ``high``.
        num_seeds: trainings behind the value.
        num_clips: test clips behind the value.
        num_classes: classes of the task.
        num_dims: length of the feature vectors.
        rejected: clips of the table that could not be used.
        test_folds: folds that were judged on; empty for all.
        command: what was typed.
        version: of melmask.
        notes: what a reader of the score has to know.
    """

    task: str
    task_path: str
    probe: str
    features: str
    metric: str
    score: float
    low: float
    high: float
    num_seeds: int
    num_clips: int
    num_classes: int
    num_dims: int
    rejected: int
    test_folds: tuple[str, ...]
    command: str
    version: str
    notes: tuple[str, ...] = ()


def task_store_folder(table: Path, spec: LogMelSpec) -> Path:
    """Where the prepared log-mels of a task are kept for the next time: $MELMASK_CACHE, or the user's cache folder."""
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "melmask"
    key = hashlib.sha256(f"{table.resolve()} {spec}".encode()).hexdigest()[:12]
    return Path(os.environ.get("MELMASK_CACHE") or user_cache) / "tasks" / f"{table.stem}-{key}"


def evaluate(
    encoder: FrozenEncoder,
    table: Path,
    store: Store,
    *,
    probes: Sequence[str] = ("logistic",),
    test_folds: Sequence[str] = (),
    num_seeds: int = 3,
    command: str = "",
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Result]:
    """Probe an encoder and its two floors on a task.

    Args:
        encoder: the trained encoder.
        table: the task's CSV, for its name.
        store: the table, prepared with the encoder's log-mel settings.
        probes: names of probes.
        test_folds: judge on these folds only; empty for all in turn.
        num_seeds: of probes that depend on a seed.
        command: recorded with the results.
        progress: called with what is being done and how far it is.

    Raises:
        ValueError: the table is no task, or a fold does not exist.
    """
    task = make_task(table.stem, [stored.clip for stored in store.clips])
    results = []
    for features in FEATURES:
        vectors = _features(features, encoder, store, progress)
        for done, probe in enumerate(probes):
            progress(f"{features}: {probe}", done, len(probes))
            found = run_probe(probe, vectors, task, test_folds=tuple(test_folds) or None, num_seeds=num_seeds)
            score = found.score
            results.append(
                Result(
                    task=task.name,
                    task_path=str(table),
                    probe=probe,
                    features=features,
                    metric=task.metric,
                    score=score.value,
                    low=score.low,
                    high=score.high,
                    num_seeds=score.num_seeds,
                    num_clips=score.num_clips,
                    num_classes=len(task.classes),
                    num_dims=vectors.shape[1],
                    rejected=len(store.rejected),
                    test_folds=tuple(test_folds),
                    command=command,
                    version=version("melmask"),
                    notes=found.notes,
                )
            )
    progress("", 1, 1)
    return results


def append_results(run: Path, results: Sequence[Result]) -> Path:
    """Append to the run's results, one JSON object a line, in one write."""
    path = run / RESULTS
    with path.open("a") as lines:
        lines.write("".join(json.dumps(asdict(result)) + "\n" for result in results))
    return path


def _features(name: str, encoder: FrozenEncoder, store: Store, progress: Callable[[str, int, int], None]) -> np.ndarray:
    if name == LOGMEL_STATISTICS:
        return np.stack([logmel_statistics(store.log_mel(row)) for row in range(len(store))])
    chosen = encoder if name == ENCODER else encoder.untrained(seed=0)
    return chosen.embed(store, progress=lambda done, total: progress(f"{name}: embedding", done, total))
