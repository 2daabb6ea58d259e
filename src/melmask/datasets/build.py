"""From a public data set's own folder to a table that is a task, with everything counted.

`NamedTask.collect` reads the official lists and folders. `build` holds what was found against what was released: a file
that is listed must be there, each split must have its number of clips, and the classes must be those of the release.
`write` leaves the table, and beside it a record of what it was made of.
"""

import csv
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from melmask.datasets.base import ALL, Expected, NamedTask, Row

RECORD = ".task.json"  # in place of a table's .csv


@dataclass(frozen=True)
class Built:
    """A task as it was found.

    Args:
        task: the data set.
        folder: its folder.
        rows: the clips that are there.
        missing: listed files that are not.
        shortages: what is less than was released, in words.
        notes: what a user of the table has to know.
    """

    task: NamedTask
    folder: Path
    rows: tuple[Row, ...]
    missing: tuple[Path, ...]
    shortages: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def num_clips(self) -> dict[str, int]:
        """By fold or split, in order."""
        count = Counter(row.split for row in self.rows)
        return {split: count[split] for split in sorted(count, key=lambda split: (len(split), split))}

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted({part for row in self.rows for part in labels_of(row)}))


def build(
    task: NamedTask,
    folder: Path,
    *,
    lists: Path | None = None,
    allow_missing: bool = False,
    expected: Expected | None = None,
) -> Built:
    """Read a data set's folder and hold it against what was released.

    Args:
        task: the data set.
        folder: the data set's own folder, or one that holds it.
        lists: a list, or the folder of lists, that is not part of the release.
        allow_missing: take what is there, if it is less than was released; `Built.shortages` then has what is missing.
        expected: what was released, if it is not `NamedTask.expected`.

    Raises:
        ValueError: the folder is not laid out as released, something is missing and may not be, or there is more than
            was released. The message has everything that was found, and where the data set is to be had.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: give the folder of {task.where}")
    try:
        listing = task.collect(folder, lists)
    except ValueError as error:
        raise ValueError(f"{error}\n  {task.where} is laid out as {task.layout}") from error
    expected = expected or task.expected
    present = [row.path.is_file() for row in listing.rows]
    rows, regrouped = apart([row for row, there in zip(listing.rows, present, strict=True) if there])
    missing = tuple(row.path for row, there in zip(listing.rows, present, strict=True) if not there)

    counted = listing.rows if task.missing_is_normal else rows
    too_few, too_many = count_faults(counted, expected)
    lacking, unknown = class_faults(rows, listing.classes or task.classes, expected)
    absent = []
    if missing:
        absent = [f"not there, {len(missing):,} of {len(listing.rows):,} files: {name_some(missing, folder)}"]
    short = absent + too_few + lacking
    wrong = split_faults(listing.rows, expected) + too_many + unknown
    if task.missing_is_normal:  # then the lists are to be whole, and the clips are only counted
        short, wrong = [], wrong + too_few
    empty = [
        f"{spoken(split)}: not one clip is there"
        for split in sorted({row.split for row in listing.rows} - {row.split for row in rows})
    ]
    if not rows:
        empty = [f"no clip is there; it is laid out as {task.layout}"]
    if wrong or empty or (short and not allow_missing):
        optional = "complete it" if empty else "complete it, or take what is there with --allow-missing"
        remedy = "this is another release" if wrong else optional
        message = "".join(f"\n  - {fault}" for fault in wrong + empty + short)
        raise ValueError(f"{task.title} in {folder} is not as released:{message}\n  To be had: {task.where}; {remedy}")
    notes = (*listing.notes, *regrouped)
    if task.missing_is_normal:
        notes += (*absent, *lacking)
    if listing.unlisted:
        named = name_some(listing.unlisted, folder)
        notes += (f"{len(listing.unlisted):,} audio files that no list names are left out: {named}",)
    return Built(task, folder, rows, missing, tuple(short), notes)


def write(built: Built, table: Path) -> Path:
    """Write the task's table, and beside it ``NAME.task.json`` with what it was made of and what is missing.

    Paths in the table are relative if the recordings lie below its folder, and absolute otherwise.

    Returns:
        The record.

    Raises:
        ValueError: the table's name does not end in .csv.
    """
    if table.suffix.lower() != ".csv":
        raise ValueError(f"the table {table} must end in .csv")
    table.parent.mkdir(parents=True, exist_ok=True)
    top, task = table.absolute().parent, built.task
    with table.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "label", task.column, "group"))
        for row in built.rows:
            path = row.path.absolute()
            shown = path.relative_to(top).as_posix() if path.is_relative_to(top) else str(path)
            writer.writerow((shown, row.label, row.split, row.group))
    classes_of = classes_by_split(built.rows)
    record = {
        "task": task.name,
        "title": task.title,
        "doi": task.doi,
        "home": task.home,
        "folder": str(built.folder.absolute()),
        "clip_s": task.clip_s,
        "metric": task.metric,
        "protocol": task.protocol,
        "num_clips": built.num_clips,
        "num_classes": {split: len(classes_of[split]) for split in built.num_clips},
        "classes": built.classes,
        "shortages": built.shortages,
        "missing": [str(path.relative_to(built.folder)) for path in built.missing],
        "notes": built.notes,
    }
    path = table.with_suffix(RECORD)
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", errors="surrogateescape")
    return path


def clip_s_of(table: Path) -> float:
    """The unit length that the record beside a table names, in seconds; 0 without a record, or without one in it.

    Raises:
        ValueError: the record is damaged, or its unit length is no length.
    """
    path = table.with_suffix(RECORD)
    if not path.is_file():
        return 0.0
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        clip_s = record.get("clip_s", record.get("unit_s", 0.0))  # earlier versions wrote unit_s
        if not 0 <= float(clip_s) < math.inf:
            raise ValueError(f"clip_s {clip_s}")
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no record of a task ({error}): make the task again, or remove the file") from error
    return float(clip_s)


NUM_NAMED = 5  # of what is missing or unexpected, by name


def apart(rows: Sequence[Row]) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """Rows with each group in one split: named ``group@split`` where the release has it in several, with a note."""
    splits_of: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.group:
            splits_of[row.group].add(row.split)
    shared = {group for group, splits in splits_of.items() if len(splits) > 1}
    if not shared:
        return tuple(rows), ()
    note = f"{len(shared):,} groups are in several splits of the release, for example {min(shared)}: named group@split"
    named = [replace(row, group=f"{row.group}@{row.split}") if row.group in shared else row for row in rows]
    return tuple(named), (note,)


def labels_of(row: Row) -> list[str]:
    """The names in a label."""
    return [part for part in row.label.split(";") if part]


def classes_by_split(rows: Iterable[Row]) -> defaultdict[str, set[str]]:
    """The classes that occur in each fold or split."""
    classes: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        classes[row.split].update(labels_of(row))
    return classes


def count_faults(rows: Sequence[Row], expected: Expected) -> tuple[list[str], list[str]]:
    """What there is too little and too much of, in words."""
    count = Counter(row.split for row in rows)
    if ALL in expected.clips:
        count = Counter({ALL: len(rows)})
    too_few, too_many = [], []
    for split, wanted in expected.clips.items():
        fault = f"{spoken(split)}: {count[split]:,} clips of {wanted:,}"
        if count[split] < wanted:
            too_few.append(fault)
        elif count[split] > wanted:
            too_many.append(fault)
    return too_few, too_many


def split_faults(rows: Iterable[Row], expected: Expected) -> list[str]:
    """Folds or splits that were not released, in words."""
    if not expected.clips or ALL in expected.clips:
        return []
    return [
        f"{spoken(split)} is not of the release" for split in sorted({row.split for row in rows} - {*expected.clips})
    ]


def class_faults(rows: Sequence[Row], names: Sequence[str], expected: Expected) -> tuple[list[str], list[str]]:
    """Which classes are missing, and which are too many, in words."""
    by_split = classes_by_split(rows)
    found = set().union(*by_split.values()) if by_split else set()
    lacking, unknown = [], []
    strange = sorted(found - set(names)) if names else []
    if strange:
        unknown.append(f"classes that are not of the release: {name_some(strange)}")
    elif len(found) > expected.classes:
        unknown.append(f"{len(found):,} classes of {expected.classes:,}")
    if len(found) < expected.classes and not strange:
        absent = sorted(set(names) - found)
        lacking.append(
            f"{len(found):,} classes of {expected.classes:,}" + (f", without {name_some(absent)}" if absent else "")
        )
    if expected.in_every_split:
        for split, classes in sorted(by_split.items()):
            if classes != found:
                lacking.append(f"{spoken(split)}: no clip of {name_some(sorted(found - classes))}")
    return lacking, unknown


def spoken(split: str) -> str:
    """A fold or split as messages name it."""
    return f"fold {split}" if split.isdecimal() else split


def name_some(items: Sequence[Path] | Sequence[str], top: Path | None = None) -> str:
    """The first few by name, and how many more."""
    named = [str(item.relative_to(top)) if isinstance(item, Path) and top else str(item) for item in items[:NUM_NAMED]]
    more = len(items) - len(named)
    return ", ".join(named) + (f" and {more:,} more" if more else "")
