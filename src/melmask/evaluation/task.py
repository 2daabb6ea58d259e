"""Labelled evaluation sets.

A table is a CSV ``path,label[,fold|split][,group]``; several labels of a clip are joined by ``;``. A group (a speaker,
a source recording, a machine) is never both in the test and outside of it.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, Shaped

from melmask.data.csv_table import read_csv
from melmask.data.manifest import COLUMNS, Clip, clips_of
from melmask.data.store import connected
from melmask.evaluation.labels import known_splits, role_of, split_labels
from melmask.evaluation.metrics import Metric

ALONE = "alone: "  # begins the name of the group of a clip that has none
FEW_GROUPS = 10


@dataclass(frozen=True, eq=False)
class Task:
    """One labelled evaluation set; row i of everything is clip i.

    Args:
        name: as reports call it.
        paths: the recordings.
        classes: names of the classes, sorted.
        targets: a class per clip, or class flags if any clip has several labels.
        folds: name of each clip's fold, or of its official split; None: not given.
        groups: name of each clip's group; None: not given, and every clip is a group of its own.
        recordings: number of each clip's recording, equal for copies; None: not known, and all are different.
        allow_duplicates: test a recording that is a training recording too, and note it.
        lost: the clips that could not be used, if any.
        content: a hash of recordings, labels, folds and groups, in their order; empty: not known.
        notes: how the table was read.
    """

    name: str
    paths: tuple[Path, ...]
    classes: tuple[str, ...]
    targets: Int[np.ndarray, " clip"] | Bool[np.ndarray, "clip class"]
    folds: Shaped[np.ndarray, " clip"] | None = None
    groups: Shaped[np.ndarray, " clip"] | None = None
    recordings: Int[np.ndarray, " clip"] | None = None
    allow_duplicates: bool = False
    lost: "Lost | None" = None
    content: str = ""
    notes: tuple[str, ...] = ()

    @property
    def is_multilabel(self) -> bool:
        return self.targets.ndim == 2

    @property
    def metric(self) -> Metric:
        return "mAP" if self.is_multilabel else "accuracy"

    @property
    def num_lost(self) -> int:
        """How many clips of the table could not be used."""
        return len(self.lost) if self.lost else 0

    @property
    def flags(self) -> Bool[np.ndarray, "clip class"]:
        """Class flags, of one label a clip as well."""
        return self.targets if self.is_multilabel else self.targets[:, None] == np.arange(len(self.classes))


@dataclass(frozen=True, eq=False)
class Lost:
    """The clips of a task's table that could not be used.

    Args:
        labels: their classes.
        folds: their folds, if clips have any.
        listed: where they are listed with the reasons.
    """

    labels: tuple[tuple[str, ...], ...]
    folds: tuple[str, ...] | None
    listed: str

    def __len__(self) -> int:
        return len(self.labels)

    def note(self, folds: Sequence[str], num_tested: int) -> tuple[str, ...]:
        """How many test clips were lost, by class.

        Args:
            folds: the test folds; those that were drawn at random have all clips.
            num_tested: the test clips that could be used.
        """
        lost = [own for number, own in enumerate(self.labels) if self.folds is None or self.folds[number] in folds]
        if not lost:
            return ()
        by_class = Counter(label for own in lost for label in own or ["none"])
        counts = ", ".join(f"{label} {count}" for label, count in sorted(by_class.items()))
        total = len(lost) + num_tested
        return (f"{len(lost)} of {total} test clips could not be used: {counts}; listed in {self.listed}",)


def read_task(table: Path, name: str = "") -> Task:
    """Read the task in a CSV ``path,label[,fold|split][,group]``.

    Args:
        table: the CSV.
        name: of the task; the file's if empty.

    Raises:
        ValueError: see `read_manifest` and `make_task`; or a column ``split`` has names that are not known.
    """
    rows = read_csv(table, COLUMNS)
    clips = clips_of(rows)
    names = sorted({clip.fold for clip in clips if clip.fold})
    unknown = [split for split in names if not (split.isdecimal() or role_of(split))]
    if "split" in rows.columns and unknown:
        raise ValueError(
            f"{table}: the column split has {unknown[0]!r}: {known_splits()}. If each of {names} is to be the test in "
            "turn, call the column fold"
        )
    task = make_task(name or table.stem, clips)
    unread = (f"columns of the table that are not read: {', '.join(rows.unread)}",) if rows.unread else ()
    return replace(task, notes=(*task.notes, *unread))


def make_task(name: str, clips: Sequence[Clip]) -> Task:
    """Make the task of labelled clips.

    Args:
        name: as reports call it.
        clips: all with different paths. Labels are class names; if any clip has several, see `split_labels`, the task
            is multi-label, and clips may also have none. Folds are given for all clips or for none. A clip without a
            group, where others have one, is a group of its own.

    Raises:
        ValueError: a path twice, a label or a fold missing, fewer than two classes, or see `split_labels`.
    """
    first_row: dict[Path, int] = {}
    for row, clip in enumerate(clips):
        if first_row.setdefault(clip.path, row) != row:
            raise ValueError(f"{clip.path} is in task {name} twice: keep one row, with several labels joined by ';'")
    labels, notes = split_labels([clip.label or "" for clip in clips], name)
    classes = tuple(sorted({part for parts in labels for part in parts}))
    if len(classes) < 2:
        raise ValueError(f"task {name} has the classes {list(classes)}: at least two are needed")
    index = {label: number for number, label in enumerate(classes)}
    flags = np.zeros((len(clips), len(classes)), np.bool_)
    for row, parts in enumerate(labels):
        flags[row, [index[part] for part in parts]] = True
    is_multilabel = any(len(parts) > 1 for parts in labels)
    unlabelled = np.flatnonzero(~flags.any(axis=1))
    if len(unlabelled) and not is_multilabel:
        raise ValueError(f"{clips[unlabelled[0]].path} in task {name} has no label: give it one or leave it out")
    groups = [clip.group or f"{ALONE}{clip.path}" for clip in clips]
    without_fold = [clip.path for clip in clips if not clip.fold]
    if 0 < len(without_fold) < len(clips):
        raise ValueError(f"{without_fold[0]} in task {name} has no fold but others have: give all clips one, or none")
    return Task(
        name=name,
        paths=tuple(clip.path for clip in clips),
        classes=classes,
        targets=flags if is_multilabel else flags.argmax(axis=1),
        folds=None if without_fold else np.array([clip.fold for clip in clips]),
        groups=np.array(groups) if any(clip.group for clip in clips) else None,
        notes=notes,
    )


def usable_part(task: Task, rows: Sequence[int], contents: Sequence[Sequence[str]], listed: str) -> Task:
    """The task without the clips that could not be used.

    Args:
        task: all clips of the table.
        rows: those that can be used, in the order that they shall have.
        contents: hashes of each of these recordings, that of its file first; copies share one.
        listed: where the others are listed.

    Raises:
        ValueError: a class or a fold has no clip left.
    """
    kept = np.asarray(rows, np.int64)
    rest = np.setdiff1d(np.arange(len(task.paths)), kept)
    labels = [tuple(task.classes[number] for number in np.flatnonzero(flags)) for flags in task.flags]
    folds = None if task.folds is None else task.folds.tolist()
    names_of: dict[str, Sequence[Sequence[str]]] = {"class": labels, "fold": [(fold,) for fold in folds or ()]}
    for what, names in names_of.items():
        left = {name for row in kept if names for name in names[row]}
        count = Counter(name for own in names for name in own if name not in left)
        for name, number in count.items():
            raise ValueError(
                f"{what} {name!r} of task {task.name} has no clip that can be used: all {number} were rejected, see "
                f"{listed}; mend the files, or remove their lines from the table"
            )
    groups = None if task.groups is None else task.groups[kept]
    described = [
        repr((contents[i][0], labels[row], folds and folds[row], groups is not None and _group_name(str(groups[i]))))
        for i, row in enumerate(kept)
    ]
    lost = Lost(tuple(labels[row] for row in rest), folds and tuple(folds[row] for row in rest), listed)
    return replace(
        task,
        paths=tuple(task.paths[row] for row in kept),
        targets=task.targets[kept],
        folds=None if task.folds is None else task.folds[kept],
        groups=groups,
        recordings=connected(contents),
        lost=lost if len(lost) else None,
        content=hashlib.sha256("\n".join(described).encode(errors="surrogateescape")).hexdigest(),
    )


def _group_name(group: str) -> str:
    """A group as the table has it: a clip without one is named by its path, which is none of its content."""
    return "" if group.startswith(ALONE) else group


def group_numbers(task: Task) -> Int[np.ndarray, " clip"]:
    """Each clip's group as a number; clips without groups are groups of their own, and copies are of one group."""
    alone = np.arange(len(task.paths))
    groups = alone if task.groups is None else np.unique(task.groups, return_inverse=True)[1]
    if task.recordings is None or len(np.unique(task.recordings)) == len(alone):
        return groups
    names = zip(groups.tolist(), task.recordings.tolist(), strict=True)
    return connected([(("group", group), ("recording", recording)) for group, recording in names])


def group_notes(groups: Int[np.ndarray, " test"]) -> list[str]:
    """A note if the test clips have so few groups that the interval is too narrow.

    Args:
        groups: number of the group of each test clip.
    """
    num_groups = len(np.unique(groups))
    if num_groups == 1:
        return ["all test clips are of one group: the interval is over clips, and says nothing of other groups"]
    return [f"the interval rests on {num_groups} groups only"] if num_groups < FEW_GROUPS else []
