"""Holding the clips and classes that were found against those that were released."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from melmask.data.sets.named_task import ALL, Expected, Row

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
