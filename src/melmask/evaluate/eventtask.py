"""Recordings with strong labels as a task: who trains and who tests, and what is heard when."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from melmask.data.store import Store
from melmask.evaluate.events import Event, read_events
from melmask.evaluate.tasks import Task


@dataclass(frozen=True, eq=False)
class EventTask:
    """Recordings with strong labels; row i of everything is recording i.

    Args:
        task: classes and which of them each recording has, folds and groups.
        rows: of the store's table.
        events: what is heard in each recording.
        durations_s: of each recording.
        rejected: recordings of the table that could not be used.
    """

    task: Task
    rows: tuple[int, ...]
    events: tuple[tuple[Event, ...], ...]
    durations_s: tuple[float, ...]
    rejected: int


def make_event_task(table: Path, store: Store) -> EventTask:
    """The task in a CSV of strong labels, see `read_events`.

    Args:
        table: the CSV.
        store: the table, prepared.

    Raises:
        ValueError: the table has a fault, no events, a recording with and another without fold, or an event that begins
            after its recording's end.
    """
    clips, events = read_events(table)
    row_of: dict[Path, int] = {}
    for row, stored in enumerate(store.clips):
        row_of.setdefault(stored.clip.path, row)
    kept = [(clip, found) for clip, found in zip(clips, events, strict=True) if clip.path in row_of]
    rows = [row_of[clip.path] for clip, _ in kept]
    durations_s = [(store.clips[row].num_frames - 1) / store.spec.frames_per_s for row in rows]
    for (clip, found), duration_s in zip(kept, durations_s, strict=True):
        if found and found[-1].onset_s > duration_s:
            raise ValueError(
                f"{table}: an event of {clip.path} begins at {found[-1].onset_s} s, but it lasts {duration_s:.2f} s: "
                "check that times are in seconds from its start"
            )
    classes = sorted({event.label for _, found in kept for event in found})
    folds = [clip.fold for clip, _ in kept]
    if not classes:
        raise ValueError(f"{table} has no events in usable recordings: detection needs some to learn from")
    if any(folds) and not all(folds):
        lacking = kept[folds.index(None)][0].path
        raise ValueError(f"{lacking} in {table} has no fold but others have: give all recordings one, or none")
    heard = np.array([[any(event.label == label for event in found) for label in classes] for _, found in kept])
    groups = np.array([clip.group or f"alone: {clip.path}" for clip, _ in kept])
    task = Task(
        name=table.stem,
        paths=tuple(clip.path for clip, _ in kept),
        classes=tuple(classes),
        targets=heard,
        folds=np.array(folds) if any(folds) else None,
        groups=groups if any(clip.group for clip, _ in kept) else None,
    )
    return EventTask(
        task, tuple(rows), tuple(found for _, found in kept), tuple(durations_s), rejected=len(clips) - len(kept)
    )
