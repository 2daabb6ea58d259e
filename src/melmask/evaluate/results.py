"""Lines of results.jsonl: one encoder, read by one probe, on one task."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from melmask.encoders.registry import NamedEncoder
from melmask.evaluate.metrics import Score

RESULTS = "results.jsonl"


@dataclass(frozen=True)
class Result:
    """One line of results.jsonl: one encoder, read by one probe, on one task.

    Args:
        task: name of the task.
        task_path: its table.
        probe: name of the probe, with its settings where they are not the usual ones.
        features: "encoder" for a melmask encoder, "untrained" for the same form untrained, "log-mel statistics", or the
            name of any other encoder.
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
        encoder: name of the encoder.
        identity: a hash of its weights and settings; empty if not known.
        settings: layers and pooling of a melmask encoder; empty for others, and in lines of earlier versions.
        clip_s: how long each clip was heard, by whatever encoder, in seconds; 0 for whole clips.
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
    encoder: str = ""
    identity: str = ""
    settings: str = ""
    clip_s: float = 0.0


def keep_results(entrants: Sequence[NamedEncoder], results: Sequence[Result], out: Path | None = None) -> list[Path]:
    """Append each run's lines, with those of its baselines, to its folder, and all lines to the file ``out``.

    Lines of encoders that are not of a run are kept in ``out`` alone.

    Returns:
        The files that were written.
    """
    runs_of = {entrant.name: entrant.runs for entrant in entrants}
    written = []
    for run in dict.fromkeys(run for entrant in entrants for run in entrant.runs):
        written.append(append_results(run, [line for line in results if run in runs_of[line.encoder]]))
    return [*written, append_results(out, results)] if out else written


def result_of(score: Score, **given: Any) -> Result:
    """A score as a line of results, of this version; ``given`` is what the score does not know."""
    figures = {name: getattr(score, name) for name in ("low", "high", "num_seeds", "num_clips")}
    return Result(score=score.value, version=version("melmask"), **figures, **given)


def append_results(path: Path, results: Sequence[Result]) -> Path:
    """Append to a file, or to the results.jsonl of a run's folder, one JSON object a line, in one write."""
    path = path / RESULTS if path.is_dir() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lines:
        lines.write("".join(json.dumps(asdict(result)) + "\n" for result in results))
    return path
