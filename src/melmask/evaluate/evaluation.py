"""Encoders on one task: the same clips, splits, probes and intervals for all, and the lines they leave behind."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from melmask.data.store import Store
from melmask.evaluate.attentive import AttentiveProbe
from melmask.evaluate.cache import cache_folder, cached_features
from melmask.evaluate.classifiers import label_of, make_probe
from melmask.evaluate.embed import FrozenEncoder
from melmask.evaluate.encoders import AudioEncoder, make_encoder
from melmask.evaluate.excerpts import UnitLength, hear
from melmask.evaluate.features import FeatureSettings
from melmask.evaluate.floors import LogMelStatistics
from melmask.evaluate.metrics import Score
from melmask.evaluate.probe import ProbeResult, run_probe
from melmask.evaluate.tasks import Task, make_task
from melmask.evaluate.timesteps import TimeSteps
from melmask.logmel import LogMelSpec

RESULTS = "results.jsonl"
ENCODER, UNTRAINED, LOGMEL_STATISTICS = "encoder", "untrained", LogMelStatistics.name
DEFAULT_SPEC = LogMelSpec()

Progress = Callable[[str, int, int], None]


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
        unit_s: how long each clip was heard, by whatever encoder, in seconds; 0 for whole clips.
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
    unit_s: float = 0.0


@dataclass(frozen=True, eq=False)
class Entrant:
    """An encoder that stands in the table.

    Args:
        encoder: what embeds.
        name: what the table calls it.
        features: what kind it is, see `Result`.
        runs: folders of the runs whose encoder it is, or whose floor.
    """

    encoder: AudioEncoder
    name: str
    features: str
    runs: tuple[Path, ...] = ()

    @property
    def settings(self) -> str:
        return str(self.encoder.settings) if isinstance(self.encoder, FrozenEncoder) else ""


def line_up(specs: Sequence[str], settings: FeatureSettings, *, floors: bool = True) -> list[Entrant]:
    """The encoders that are asked for, and their floors: log-mel statistics, and each trained form untrained.

    Args:
        specs: words for `make_encoder`.
        settings: layers and pooling of melmask encoders.
        floors: False leaves the floors out.

    Raises:
        ValueError: none or one twice, or `make_encoder` finds a fault.
    """
    twice = sorted({spec for spec in specs if specs.count(spec) > 1})
    if not specs or twice:
        raise ValueError(f"encoder {twice[0]} is given twice: name it once" if twice else "no encoder to evaluate")
    found = [make_encoder(spec, settings) for spec in specs]
    names = [encoder.name for encoder in found]
    entrants: list[Entrant] = []
    untrained: dict[str, Entrant] = {}
    for spec, encoder in zip(specs, found, strict=True):
        name = encoder.name if names.count(encoder.name) == 1 else spec
        if not (isinstance(encoder, FrozenEncoder) and Path(spec).exists()):
            entrants.append(Entrant(encoder, name, encoder.name))
            continue
        runs = (Path(spec),) if Path(spec).is_dir() else ()
        entrants.append(Entrant(encoder, name, ENCODER, runs))
        fresh = encoder.untrained(seed=0)
        same = untrained.setdefault(fresh.identity, Entrant(fresh, f"{name} untrained", UNTRAINED))
        untrained[fresh.identity] = replace(same, runs=same.runs + runs)
    if floors:
        entrants += untrained.values()
        all_runs = tuple(run for entrant in entrants if entrant.features == ENCODER for run in entrant.runs)
        entrants = [entrant for entrant in entrants if entrant.features != LOGMEL_STATISTICS]
        entrants.append(Entrant(LogMelStatistics(), LOGMEL_STATISTICS, LOGMEL_STATISTICS, all_runs))
    return entrants


def specs_of(entrants: Sequence[Entrant]) -> list[LogMelSpec]:
    """The log-mel settings that a task must be prepared with, each once; at least one."""
    asked = [entrant.encoder.spec for entrant in entrants]
    return list(dict.fromkeys(spec for spec in asked if spec is not None)) or [DEFAULT_SPEC]


def task_store_folder(table: Path, spec: LogMelSpec) -> Path:
    """Where the prepared log-mels of a task are kept for the next time."""
    key = hashlib.sha256(f"{table.resolve()} {spec}".encode()).hexdigest()[:12]
    return cache_folder() / "tasks" / f"{table.stem}-{key}"


def evaluate(
    entrants: Sequence[Entrant],
    table: Path,
    stores: Sequence[Store],
    *,
    probes: Sequence[str] = ("logistic",),
    unit: UnitLength = "task",
    test_folds: Sequence[str] = (),
    num_seeds: int = 3,
    command: str = "",
    progress: Progress = lambda what, done, total: None,
    found_one: Callable[[Entrant, Task, ProbeResult], None] = lambda entrant, task, found: None,
) -> list[Result]:
    """Probe encoders on a task, all on the same clips.

    Args:
        entrants: the encoders; embeddings are cached.
        table: the task's CSV, for its name and its unit length.
        stores: the table, prepared with each of the log-mel settings in `specs_of`.
        probes: names of probes, with settings of their own if need be.
        unit: how long each clip is heard, see `Excerpts`: in seconds, 0 for whole clips, or "task" for what the record
            beside the table says, and whole clips where there is none.
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
    stores, unit_s = hear(stores, table, unit)
    by_spec = {store.spec: store for store in stores}
    rows = _shared_rows(stores)
    task = make_task(table.stem, [stores[0].clips[row].clip for row in rows[0]])
    rejected = len(stores[0]) + len(stores[0].rejected) - len(task.paths)
    same: dict[str, Any] = {"task_path": str(table), "num_classes": len(task.classes), "rejected": rejected}
    same |= {"test_folds": tuple(test_folds), "command": command, "unit_s": unit_s}
    heard = (f"each clip is heard for {unit_s:g} s: the middle of longer ones, shorter ones amid silence",)
    results = []
    for entrant in entrants:
        store = by_spec[entrant.encoder.spec or stores[0].spec]

        def show(done: int, total: int, name: str = entrant.name) -> None:
            progress(f"{name}: embedding", done, total)

        made: dict[bool, np.ndarray | TimeSteps] = {}  # embeddings, and time steps for a probe that attends to them
        for done, probe in enumerate(chosen):
            attends = isinstance(probe, AttentiveProbe)
            if attends not in made:
                made[attends] = cached_features(probe, entrant.encoder, store, progress=show)[rows[stores.index(store)]]
            features = made[attends]
            progress(f"{entrant.name}: {label_of(probe)}", done, len(chosen))
            found = run_probe(probe, features, task, test_folds=tuple(test_folds) or None, num_seeds=num_seeds)
            if unit_s:
                found = replace(found, notes=heard + found.notes)
            found_one(entrant, task, found)
            num_dims = features.num_dims if isinstance(features, TimeSteps) else features.shape[1]
            results.append(_line(entrant, found, num_dims=num_dims, **same))
    progress("", 1, 1)
    return results


def keep_results(entrants: Sequence[Entrant], results: Sequence[Result], out: Path | None = None) -> list[Path]:
    """Append each run's lines, with those of its floors, to its folder, and all lines to the file ``out``.

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


def _shared_rows(stores: Sequence[Store]) -> list[np.ndarray]:
    """Of each store the rows of the recordings that all of them hold, in the order of the first."""
    row_of = [{stored.clip.path: row for row, stored in enumerate(store.clips)} for store in stores]
    shared = [stored.clip.path for stored in stores[0].clips if all(stored.clip.path in rows for rows in row_of)]
    if not shared:
        raise ValueError(
            "the encoders' log-mel settings leave no recording that all can hear: judge them on longer ones"
        )
    return [np.array([rows[path] for path in shared]) for rows in row_of]


def _line(entrant: Entrant, found: ProbeResult, **given: Any) -> Result:
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
