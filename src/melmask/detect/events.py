"""Sound events: tables of them, tasks, and the conversion between events and active time steps."""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from melmask.data.csv_table import read_csv
from melmask.data.manifest import COLUMNS, Clip, clips_of
from melmask.data.store import Store
from melmask.escaping import in_csv
from melmask.evaluation.prepared import rows_in_table
from melmask.evaluation.task import ALONE, Task, usable_part
from melmask.files import atomic_write

EVENT_COLUMNS = ("onset_s", "offset_s", "label")


@dataclass(frozen=True, order=True)
class Event:
    """A sound event from ``onset_s`` to ``offset_s``, in seconds from the start of the recording."""

    onset_s: float
    offset_s: float
    label: str


def read_events(table: Path) -> tuple[list[Clip], list[tuple[Event, ...]]]:
    """Read the recordings in a CSV ``path,onset_s,offset_s,label[,fold|split][,group]`` and the events of each.

    A recording has a line for every event; one without events has a single line without onset, offset and label.

    Returns:
        A clip for each recording, in the order of their first lines, labelled with its classes, joined by ``;``; and
        its events, sorted.

    Raises:
        ValueError: `read_manifest` finds a fault; a column is missing; a line has no event and no empty cells for it;
            an offset is not after its onset; or a recording has several folds or groups. The message has file and line.
    """
    found_table = read_csv(table, (*COLUMNS, *EVENT_COLUMNS), ("path", *EVENT_COLUMNS))
    clips = clips_of(found_table)
    first: dict[Path, Clip] = {}
    events: dict[Path, list[Event]] = {}
    for clip, (line, row) in zip(clips, found_table.rows, strict=True):
        where = f"{table}, line {line}"
        known = first.setdefault(clip.path, clip)
        if (clip.fold, clip.group) != (known.fold, known.group):
            raise ValueError(
                f"{where}: {clip.path} has fold {clip.fold} and group {clip.group} here, but {known.fold} and "
                f"{known.group} above: a recording has one fold and one group"
            )
        events.setdefault(clip.path, []).extend(_event(row, where))
    labelled = []
    for path, clip in first.items():
        label = ";".join(sorted({event.label for event in events[path]}))
        labelled.append(Clip(path, label or None, clip.fold, clip.group, clip.source))
    return labelled, [tuple(sorted(events[path])) for path in first]


def _event(row: Mapping[str, str], where: str) -> list[Event]:
    """The event of a line, if it has one."""
    onset, offset, label = (row[column].strip() for column in EVENT_COLUMNS)
    if not (onset or offset or label):
        return []
    try:
        event = Event(float(onset), float(offset), label)
    except ValueError:
        raise ValueError(
            f"{where}: onset_s {onset!r} and offset_s {offset!r} are not both numbers: give seconds, or leave them and "
            "the label empty for a recording without events"
        ) from None
    if not 0 <= event.onset_s < event.offset_s < float("inf"):
        raise ValueError(f"{where}: an event from {onset} s to {offset} s: need 0 <= onset_s < offset_s")
    if not label or ";" in label:
        raise ValueError(f"{where}: the label {label!r}: give each event one label without ';', on a line of its own")
    return [event]


def write_events(table: Path, events: Mapping[Path, Sequence[Event]]) -> None:
    """Write events as `read_events` reads them, atomically; recordings without events have a line too."""
    table.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic_write(table) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(("path", *EVENT_COLUMNS))
        for path, found in events.items():
            rows = [(f"{event.onset_s:.3f}", f"{event.offset_s:.3f}", event.label) for event in sorted(found)]
            writer.writerows(map(in_csv, (path, *row)) for row in rows or [("", "", "")])


def activity(
    events: Sequence[Event], classes: Sequence[str], centres_s: Float[np.ndarray, " time"], step_s: float
) -> Bool[np.ndarray, "time class"]:
    """Convert events to active time steps.

    A class is active in a step if an event covers at least half of it, or covers no other step more: every event has a
    step, however short it is.

    Args:
        events: of one recording.
        classes: names, the columns of the result; events of others are left out.
        centres_s: of the time steps in seconds, evenly spaced.
        step_s: length of a time step in seconds.

    >>> activity([Event(0.9, 2.6, "dog"), Event(0.0, 0.1, "cat")], ["cat", "dog"], np.arange(4) + 0.5, 1.0).T.tolist()
    [[True, False, False, False], [False, True, True, False]]
    """
    active = np.zeros((len(centres_s), len(classes)), np.bool_)
    column = {label: number for number, label in enumerate(classes)}
    for event in events:
        if event.label in column:
            stop, start = (
                np.minimum(event.offset_s, centres_s + step_s / 2),
                np.maximum(event.onset_s, centres_s - step_s / 2),
            )
            overlap_s = stop - start
            active[(overlap_s >= step_s / 2) | (overlap_s == overlap_s.max()), column[event.label]] = True
    return active


def merge(
    active: Bool[np.ndarray, "time class"],
    classes: Sequence[str],
    centres_s: Float[np.ndarray, " time"],
    step_s: float,
    *,
    max_gap_s: float = 0.0,
    duration_s: float = float("inf"),
) -> tuple[Event, ...]:
    """Convert active time steps to events: each from the start of its first step to the end of its last.

    Args:
        active, classes, centres_s, step_s: as of `activity`.
        max_gap_s: gaps of up to so many seconds within a class are closed.
        duration_s: of the recording; no event ends later.

    >>> merge(np.array([[True], [False], [True], [True]]), ["dog"], np.arange(4) + 0.5, 1.0)
    (Event(onset_s=0.0, offset_s=1.0, label='dog'), Event(onset_s=2.0, offset_s=4.0, label='dog'))
    """
    events = []
    for column, label in enumerate(classes):
        edges = np.diff(active[:, column].astype(np.int8), prepend=0, append=0)
        starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
        apart = (starts[1:] - ends[:-1] - 1) * step_s > max_gap_s + 1e-9 * step_s
        for first, last in zip(
            starts[np.r_[True, apart][: len(starts)]], ends[np.r_[apart, True][: len(ends)]], strict=True
        ):
            onset_s = max(0.0, float(centres_s[first] - step_s / 2))
            events.append(Event(onset_s, min(duration_s, float(centres_s[last] + step_s / 2)), label))
    return tuple(sorted(event for event in events if event.onset_s < event.offset_s))


@dataclass(frozen=True, eq=False)
class EventTask:
    """Recordings with strong labels; row i of everything is recording i.

    Args:
        task: classes and which of them each recording has, folds and groups.
        rows: of the store's table.
        events: of each recording.
        durations_s: of each recording.
        num_rejected: recordings of the table that could not be used.
    """

    task: Task
    rows: tuple[int, ...]
    events: tuple[tuple[Event, ...], ...]
    durations_s: tuple[float, ...]
    num_rejected: int


def make_event_task(table: Path, store: Store, *, allow_duplicates: bool = False) -> EventTask:
    """Make the task of a CSV of strong labels, see `read_events`.

    Args:
        table: the CSV.
        store: the table, prepared.
        allow_duplicates: see `melmask.evaluation.run.EvaluationSettings`.

    Raises:
        ValueError: the table has a fault, no events, a recording with and another without fold, a class or fold without
            a usable recording, or an event that ends after its recording.
    """
    clips, events = read_events(table)
    row_of: dict[Path, int] = {}
    for row, stored in enumerate(store.clips):
        row_of.setdefault(stored.clip.path, row)
    whole = _event_task(table, clips, events)
    rows = [row_of[path] for path in whole.paths if path in row_of]
    kept, contents, listed = rows_in_table(whole.paths, table, store, rows)
    task = usable_part(whole, kept, contents, listed)
    of_rows = tuple(events[row] for row in kept)
    content = hashlib.sha256(repr((task.content, of_rows)).encode()).hexdigest()
    durations_s = tuple((int(store.clips.num_frames[row]) - 1) / store.spec.frames_per_s for row in rows)
    _check_ends(table, task.paths, of_rows, durations_s, 1 / store.spec.frames_per_s)
    task = replace(task, content=content, allow_duplicates=allow_duplicates)
    return EventTask(task, tuple(rows), of_rows, durations_s, task.num_lost)


def _event_task(table: Path, clips: Sequence[Clip], events: Sequence[tuple[Event, ...]]) -> Task:
    """The task of all recordings in a table, usable or not."""
    classes = sorted({event.label for found in events for event in found})
    folds = [clip.fold for clip in clips]
    if not classes:
        raise ValueError(f"{table} has no events: detection needs some for training")
    if any(folds) and not all(folds):
        lacking = clips[folds.index(None)].path
        raise ValueError(f"{lacking} in {table} has no fold but others have: give all recordings one, or none")
    groups = np.array([clip.group or f"{ALONE}{clip.path}" for clip in clips])
    return Task(
        name=table.stem,
        paths=tuple(clip.path for clip in clips),
        classes=tuple(classes),
        targets=np.array([[any(event.label == label for event in found) for label in classes] for found in events]),
        folds=np.array(folds) if any(folds) else None,
        groups=groups if any(clip.group for clip in clips) else None,
    )


def _check_ends(
    table: Path,
    paths: Sequence[Path],
    events: Sequence[tuple[Event, ...]],
    durations_s: Sequence[float],
    tolerance_s: float,
) -> None:
    """Refuse events that end after their recordings, whose durations are known to a frame."""
    late = [
        (path, event, duration_s)
        for path, found, duration_s in zip(paths, events, durations_s, strict=True)
        for event in found
        if event.offset_s > duration_s + tolerance_s
    ]
    if late:
        path, event, duration_s = late[0]
        raise ValueError(
            f"{table}: the event {event.label!r} of {path} ends at {event.offset_s:g} s, but the recording lasts "
            f"{duration_s:.2f} s ({len(late):,} such events): check that times are in seconds from its start, and that "
            "the recording is whole"
        )
