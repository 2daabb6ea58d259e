"""Encoders on one task: the same clips, splits, probes and intervals for all, and the lines they leave behind."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from melmask.data.store import Store
from melmask.encoders.cache import cache_folder, cached_features
from melmask.encoders.fixed_length import ClipLength, hear
from melmask.encoders.registry import NamedEncoder
from melmask.encoders.timesteps import TimeSteps
from melmask.evaluate.results import Result, result_of
from melmask.evaluate.task import Task, make_task
from melmask.logmel import LogMelSpec
from melmask.probes import label_of, make_probe
from melmask.probes.attentive import AttentiveProbe
from melmask.probes.run import ProbeResult, run_probe

Progress = Callable[[str, int, int], None]


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
    unit: ClipLength = "task",
    test_folds: Sequence[str] = (),
    num_seeds: int = 3,
    command: str = "",
    progress: Progress = lambda what, done, total: None,
    found_one: Callable[[NamedEncoder, Task, ProbeResult], None] = lambda entrant, task, found: None,
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
    stores, clip_s = hear(stores, table, unit)
    by_spec = {store.spec: store for store in stores}
    rows = _shared_rows(stores)
    task = make_task(table.stem, [stores[0].clips[row].clip for row in rows[0]])
    rejected = len(stores[0]) + len(stores[0].rejected) - len(task.paths)
    same: dict[str, Any] = {"task_path": str(table), "num_classes": len(task.classes), "rejected": rejected}
    same |= {"test_folds": tuple(test_folds), "command": command, "clip_s": clip_s}
    heard = (f"each clip is heard for {clip_s:g} s: the middle of longer ones, shorter ones amid silence",)
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
            if clip_s:
                found = replace(found, notes=heard + found.notes)
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
            "the encoders' log-mel settings leave no recording that all can hear: judge them on longer ones"
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
