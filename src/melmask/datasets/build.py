"""From a data set's folder, as released, to the table of a task, with everything counted.

`Dataset.collect` reads the official lists and folders. `build_table` compares what it found with what was released:
every listed file must exist, each split must have its number of clips, and the classes must be those of the release.
`write_table` writes the table and, beside it, a record of what it was made from.
"""

import csv
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from melmask.data.manifest import RECORD
from melmask.datasets.base import ALL, Dataset, Expected, Listing, Row
from melmask.escaping import in_csv
from melmask.files import atomic_write, read_json, write_text

SplitSource = Literal["default", "evar"]


@dataclass(frozen=True)
class TaskTable:
    """The table of a task, made from the folder of a data set.

    Args:
        dataset: the data set.
        folder: that it was read from.
        split_name: what tables call its split.
        rows: the clips whose files exist.
        missing: listed files that do not exist.
        shortages: everything that is less than was released, in words.
        notes: what a user of the table has to know.
    """

    dataset: Dataset
    folder: Path
    split_name: str
    rows: tuple[Row, ...]
    missing: tuple[Path, ...]
    shortages: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def num_clips(self) -> dict[str, int]:
        """Number of clips by fold or split, in order."""
        count = Counter(row.split for row in self.rows)
        return {split: count[split] for split in sorted(count, key=lambda split: (len(split), split))}

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted({label for row in self.rows for label in labels_of(row)}))


def build_table(
    dataset: Dataset,
    folder: Path,
    *,
    lists: Path | None = None,
    split: SplitSource = "default",
    allow_missing: bool = False,
    expected: Expected | None = None,
) -> TaskTable:
    """Read a data set's folder and compare it with what was released.

    Args:
        dataset: the data set.
        folder: the data set's own folder, or one that holds it.
        lists: a list, or the folder of lists, that is not part of the release.
        split: "default", what `Dataset.protocol` says; or "evar", that of EVAR, the evaluation package of M2D. Where
            this is not the release's own, ``lists`` is the split file that EVAR publishes.
        allow_missing: accept less than was released; `TaskTable.shortages` then says what is missing.
        expected: what was released, if not `Dataset.expected`.

    Raises:
        ValueError: the folder does not have the layout of the release, something is missing and that is not allowed,
            or there is more than was released. The message lists all faults, and where the data set is available.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: give the folder of {dataset.reference}")
    by_list = dataset.collect_evar if split == "evar" else None
    if by_list and lists is None:
        raise ValueError(
            f"EVAR's split of {dataset.title} is a file that EVAR publishes, not part of melmask: give it with --lists"
        )
    if split == "evar" and not (by_list or dataset.split_name):
        raise ValueError(f"EVAR's split of {dataset.title} is not known: leave --split out")
    try:
        listing = by_list(folder, lists) if by_list and lists else dataset.collect(folder, lists)
    except ValueError as error:
        raise ValueError(f"{error}\n  {dataset.reference} is laid out as {dataset.layout}") from error
    exists = [row.path.is_file() for row in listing.rows]
    rows, group_notes = separate_groups([row for row, found in zip(listing.rows, exists, strict=True) if found])
    missing = tuple(row.path for row, found in zip(listing.rows, exists, strict=True) if not found)
    split_name = listing.split_name or dataset.split_name
    table = TaskTable(dataset, folder, split_name, rows, missing, (), (*listing.notes, *group_notes))
    if listing.unlisted:
        names = first_few(listing.unlisted, folder)
        note = f"{len(listing.unlisted):,} audio files that no list names are left out: {names}"
        table = replace(table, notes=(*table.notes, note))
    released = expected or dataset.expected
    if by_list:  # which need not list every clip of the release
        released = replace(released, clips={})
    return _checked(table, listing, released, allow_missing)


def _checked(table: TaskTable, listing: Listing, expected: Expected, allow_missing: bool) -> TaskTable:
    """The table with all shortages, or the error that lists all faults."""
    dataset, rows, missing = table.dataset, table.rows, table.missing
    too_few, too_many = count_faults(listing.rows if dataset.may_lack_clips else rows, expected)
    lacking, unknown = class_faults(rows, listing.classes or dataset.classes, expected)
    absent = []
    if missing:
        names = first_few(missing, table.folder)
        absent = [f"{len(missing):,} of {len(listing.rows):,} listed files do not exist: {names}"]
    short = absent + too_few + lacking
    wrong = split_faults(listing.rows, expected) + too_many + unknown
    if dataset.may_lack_clips:  # only its lists must be complete
        short, wrong = [], wrong + too_few
        table = replace(table, notes=(*table.notes, *absent, *lacking))
    empty = [
        f"{describe_split(split)}: none of its clips exist"
        for split in sorted({row.split for row in listing.rows} - {row.split for row in rows})
    ]
    if not rows:
        empty = [f"no listed clip exists; it is laid out as {dataset.layout}"]
    if wrong or empty or (short and not allow_missing):
        optional = "complete it" if empty else "complete it, or accept what exists with --allow-missing"
        remedy = "this is another release" if wrong else optional
        faults = "".join(f"\n  - {fault}" for fault in wrong + empty + short)
        raise ValueError(
            f"{dataset.title} in {table.folder} is not as released:{faults}\n  Source: {dataset.reference}; {remedy}"
        )
    return replace(table, shortages=tuple(short))


def write_table(table: TaskTable, path: Path) -> Path:
    """Write the task's table and, beside it, ``NAME.task.json``: what it was made from and what is missing.

    Paths in the table are relative if the recordings are below its folder, and absolute otherwise.

    Args:
        table: to write.
        path: of the table, a .csv.

    Returns:
        The path of the record.

    Raises:
        ValueError: the name of the table does not end in .csv.
    """
    if path.suffix.lower() != ".csv":
        raise ValueError(f"the table {path} must end in .csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    top, dataset = path.absolute().parent, table.dataset
    with (
        atomic_write(path) as temporary,
        # File names need not be valid UTF-8.
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "label", dataset.split_column, "group"))
        for row in table.rows:
            clip = row.path.absolute()
            shown = clip.relative_to(top).as_posix() if clip.is_relative_to(top) else str(clip)
            writer.writerow(map(in_csv, (shown, row.label, row.split, row.group)))
    classes_of = classes_by_split(table.rows)
    record = {
        "task": dataset.name,
        "title": dataset.title,
        "doi": dataset.doi,
        "home": dataset.home,
        "folder": str(table.folder.absolute()),
        "clip_s": dataset.clip_s,
        "metric": dataset.metric,
        "split": table.split_name,
        "protocol": dataset.protocol,
        "num_clips": table.num_clips,
        "num_classes": {split: len(classes_of[split]) for split in table.num_clips},
        "classes": table.classes,
        "shortages": table.shortages,
        "missing": [str(clip.relative_to(table.folder)) for clip in table.missing],
        "notes": table.notes,
    }
    record_path = path.with_suffix(RECORD)
    write_text(record_path, json.dumps(record, indent=2, ensure_ascii=False) + "\n", errors="surrogateescape")
    return record_path


def clip_s_of(table: Path) -> float:
    """The clip length in seconds in the record beside a table; 0 if there is no record, or no length in it.

    Raises:
        ValueError: the record is damaged, or its clip length is negative or not a number.
    """
    record = _record(table)
    clip_s = record.get("clip_s", record.get("unit_s", 0.0))  # earlier versions wrote unit_s
    try:
        if not 0 <= float(clip_s) < math.inf:
            raise ValueError("not a length")
    except (ValueError, TypeError) as error:
        raise _damaged(table, f"clip_s {clip_s}") from error
    return float(clip_s)


REMEDY = "make the task again, or remove the file"


def _record(table: Path) -> dict[str, Any]:
    """The record beside a table; empty if there is none."""
    path = table.with_suffix(RECORD)
    if not path.is_file():
        return {}
    return read_json(path, "record of a task", remedy=REMEDY)


def _damaged(table: Path, why: str) -> ValueError:
    path = table.with_suffix(RECORD)
    return ValueError(f"{path} is no record of a task: {why}; {REMEDY}")


def split_of(table: Path) -> str:
    """What the record beside a table calls its split; empty if there is no record, or one of an earlier version.

    Raises:
        ValueError: the record is damaged.
    """
    return str(_record(table).get("split", ""))


def dataset_of(table: Path) -> str:
    """The name of the data set that a table was made of, from the record beside it; the table's name without one.

    Raises:
        ValueError: the record is damaged.
    """
    return str(_record(table).get("task", table.stem))


NUM_NAMED = 5  # missing or unexpected items that messages name


def separate_groups(rows: Sequence[Row]) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """Rename groups that the release has in several splits to ``group@split``, and return a note about it."""
    splits_of: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.group:
            splits_of[row.group].add(row.split)
    shared = {group for group, splits in splits_of.items() if len(splits) > 1}
    if not shared:
        return tuple(rows), ()
    example = f"for example {min(shared)}: renamed to group@split"
    note = f"{len(shared):,} groups are in several splits of the release, {example}"
    renamed = [replace(row, group=f"{row.group}@{row.split}") if row.group in shared else row for row in rows]
    return tuple(renamed), (note,)


def labels_of(row: Row) -> list[str]:
    """The single labels of a row."""
    return [label for label in row.label.split(";") if label]


def classes_by_split(rows: Iterable[Row]) -> defaultdict[str, set[str]]:
    """The classes that occur in each fold or split."""
    classes: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        classes[row.split].update(labels_of(row))
    return classes


def count_faults(rows: Sequence[Row], expected: Expected) -> tuple[list[str], list[str]]:
    """Folds or splits with too few clips and with too many, in words."""
    count = Counter(row.split for row in rows)
    if ALL in expected.clips:
        count = Counter({ALL: len(rows)})
    too_few, too_many = [], []
    for split, wanted in expected.clips.items():
        fault = f"{describe_split(split)}: {count[split]:,} clips of {wanted:,}"
        if count[split] < wanted:
            too_few.append(fault)
        elif count[split] > wanted:
            too_many.append(fault)
    return too_few, too_many


def split_faults(rows: Iterable[Row], expected: Expected) -> list[str]:
    """Folds or splits that are not in the release, in words."""
    if not expected.clips or ALL in expected.clips:
        return []
    unexpected = sorted({row.split for row in rows} - {*expected.clips})
    return [f"{describe_split(split)} is not in the release" for split in unexpected]


def class_faults(rows: Sequence[Row], names: Sequence[str], expected: Expected) -> tuple[list[str], list[str]]:
    """Missing classes and unexpected classes, in words."""
    by_split = classes_by_split(rows)
    found = set().union(*by_split.values()) if by_split else set()
    lacking, unknown = [], []
    unexpected = sorted(found - set(names)) if names else []
    if unexpected:
        unknown.append(f"classes that are not in the release: {first_few(unexpected)}")
    elif 0 < expected.classes < len(found):
        unknown.append(f"{len(found):,} classes of {expected.classes:,}")
    if len(found) < expected.classes and not unexpected:
        absent = sorted(set(names) - found)
        lacking.append(
            f"{len(found):,} classes of {expected.classes:,}" + (f", without {first_few(absent)}" if absent else "")
        )
    if expected.in_every_split:
        for split, classes in sorted(by_split.items()):
            if classes != found:
                lacking.append(f"{describe_split(split)}: no clip of {first_few(sorted(found - classes))}")
    return lacking, unknown


def describe_split(split: str) -> str:
    """A fold or split as messages name it: "fold 1", but "train"."""
    return f"fold {split}" if split.isdecimal() else split


def first_few(items: Sequence[Path] | Sequence[str], top: Path | None = None) -> str:
    """The names of the first few items, and the number of others."""
    names = [str(item.relative_to(top)) if isinstance(item, Path) and top else str(item) for item in items[:NUM_NAMED]]
    more = len(items) - len(names)
    return ", ".join(names) + (f" and {more:,} more" if more else "")
