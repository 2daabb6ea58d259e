"""results.jsonl: one line for each encoder, probe and task."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from melmask.encoders.registry import NamedEncoder
from melmask.evaluation.metrics import Score, round_fields
from melmask.fields import make
from melmask.files import append_lines, good_lines

RESULTS = "results.jsonl"


@dataclass(frozen=True)
class Result:
    """The score of one encoder with one probe on one task: a line of results.jsonl.

    Args:
        task: name of the task.
        task_path: its table.
        probe: name of the probe, with the settings that differ from the defaults.
        features: "encoder" for a melmask encoder, "untrained" for the same architecture untrained, "log-mel
            statistics", or the name of any other encoder.
        metric: accuracy, mAP or F.
        score: its value, with the 95 % interval from ``low`` to ``high``.
        num_seeds: trainings behind the value.
        num_clips: test clips behind the value.
        num_classes: classes of the task.
        num_dims: length of the feature vectors.
        rejected: clips of the table that could not be used.
        test_folds: the folds tested on; empty for all.
        command: the command line; empty for a call from Python.
        version: of melmask.
        notes: what a reader of the score has to know.
        encoder: name of the encoder.
        identity: a hash of its weights and settings; empty if not known.
        settings: layers and pooling of a melmask encoder; empty for others, and in lines of earlier versions.
        clip_s: length that clips were cut or zero-padded to, in seconds; 0 for whole clips.
        step: of the run, for an encoder that was kept along it; None for a run's last one and for all others.
        split: what tables call the split; empty in lines of earlier versions.
        protocol: which part of each clip was read, see `melmask.evaluation.protocol`.
        content: a hash of the recordings, labels, folds and groups of the task, which tells tasks of one name apart;
            empty in lines of earlier versions.
        baseline_of: names of the encoders that it is a baseline of; empty in lines of earlier versions.
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
    step: int | None = None
    split: str = ""
    protocol: str = "melmask"
    content: str = ""
    baseline_of: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        round_fields(self, "score", "low", "high")

    @property
    def task_key(self) -> str:
        """What is equal for results on the same task."""
        return self.content or f"the task {self.task}"


def keep_results(encoders: Sequence[NamedEncoder], results: Sequence[Result], out: Path | None = None) -> list[Path]:
    """Append the results of each run and its baselines to the run's folder, and all results to the file ``out``.

    Results of encoders that belong to no run are written to ``out`` only.

    Returns:
        The files that were written.
    """
    runs_of = {encoder.name: encoder.runs for encoder in encoders}
    written = []
    for run in dict.fromkeys(run for encoder in encoders for run in encoder.runs):
        written.append(append_results(run, [result for result in results if run in runs_of[result.encoder]]))
    return [*written, append_results(out, results)] if out else written


def result_of(score: Score, **given: Any) -> Result:
    """Make a result of a score, with this version; ``given`` are the fields that the score does not have."""
    figures = {name: getattr(score, name) for name in ("low", "high", "num_seeds", "num_clips")}
    return Result(score=score.value, version=version("melmask"), **figures, **given)


def append_results(path: Path, results: Sequence[Result]) -> Path:
    """Append to a file, or to the results.jsonl of a run's folder, one JSON object a line, in one write.

    Returns:
        The file.
    """
    path = path / RESULTS if path.is_dir() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    append_lines(path, map(asdict, results))
    return path


def read_results(path: Path) -> list[Result]:
    """Read the results in a file, or in the results.jsonl of a run's folder: the newest of each kind.

    A kind is a task, its split, protocol, clip length, probe, features, settings and step, and in a file the encoder as
    well. Tasks are told apart by their content, so that two tables of one name, or one table with other labels, do not
    replace each other. Lines of all earlier versions are read; as they have no content, a newer line on a task of that
    name replaces them. A damaged line is skipped, stays in the file, and is named in a warning.

    Args:
        path: a file or folder; one that does not exist has no results.

    Raises:
        ValueError: the file, which is no run's, holds something else.
    """
    in_run = path.is_dir()
    path = path / RESULTS if in_run else path
    newest: dict[tuple[Any, ...], Result] = {}
    for result in good_lines(path, from_line):
        kind: tuple[Any, ...] = (result.features, result.settings, result.protocol, result.clip_s, result.probe)
        kind = (*kind, result.step) if in_run else (*kind, result.step, result.encoder)
        if result.content:
            newest.pop((*kind, "", f"the task {result.task}"), None)
        newest[*kind, result.split, result.task_key] = result
    if not newest and not in_run and path.exists() and path.stat().st_size:
        raise ValueError(f"{path} holds no results: name a file that `melmask evaluate --out` wrote")
    return list(newest.values())


def from_line(values: dict[str, Any]) -> Result:
    """A result from a line of any version; fields that this version does not have are left out."""
    if "unit_s" in values:  # as earlier versions called it
        values.setdefault("clip_s", values["unit_s"])
    return make(Result, {field.name: values[field.name] for field in fields(Result) if field.name in values})
