"""Labelled evaluation sets, and their splits, which keep groups apart.

A table is a CSV ``path,label[,fold|split][,group]``; several labels of a clip are joined by ``;``. A group (a speaker,
a source recording, a machine) is never both in the test and outside of it.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from melmask.data.csv_table import read_csv
from melmask.data.manifest import COLUMNS, Clip, clips_of
from melmask.data.store import connected
from melmask.evaluation.labels import known_splits, role_of, roles_of, split_labels
from melmask.evaluation.metrics import Metric

ALONE = "alone: "  # begins the name of the group of a clip that has none
NUM_FOLDS = 5
FEW_GROUPS = 10
NUM_VALID_PARTS = 10  # the validation split drawn from a training split is one of ten parts


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


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of the clips to train, validate and test on; ``valid`` chooses settings and epochs, ``test`` never does."""

    name: str
    train: Int[np.ndarray, " train"]
    valid: Int[np.ndarray, " valid"]
    test: Int[np.ndarray, " test"]
    notes: tuple[str, ...] = ()


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


def splits_of(task: Task, *, test_folds: Sequence[str] = (), seed: int = 0) -> list[Split]:
    """Split a task by its folds.

    Folds with names in `OFFICIAL` are one official split. Folds of any other names are the test in turn. A task without
    folds is split into five at random, with balanced classes and whole groups. Without an official validation split, a
    tenth of the training clips becomes one in the same way. Copies of one recording stay together as a group does.

    Args:
        task: the task.
        test_folds: test on these only, each with the same training clips as if all had been asked for; empty for all.
        seed: of random folds and validation splits.

    Raises:
        ValueError: folds that cannot be tested on, or a group or a recording on both sides of a test.
    """
    notes = task.notes
    folds = task.folds
    if folds is None:
        folds, drawn = _random_folds(task, seed)
        notes += drawn
    names = sorted(set(folds.tolist()), key=lambda name: (not name.isdecimal(), name.zfill(20)))
    roles = roles_of(folds.tolist())
    official = bool(np.any(roles))
    if official and not (np.all(roles) and {"train", "test"} <= set(roles)):
        raise ValueError(
            f"task {task.name} has the splits {names}: need train and test, optionally val, and no others; "
            f"{known_splits()}"
        )
    if len(names) < 2:
        raise ValueError(f"task {task.name} has only the fold {names}: two are needed, or no fold column at all")
    testable = ["test"] if official else names
    unknown = sorted(set(test_folds) - set(testable))
    if unknown:
        raise ValueError(f"task {task.name} has no test fold {unknown}: choose from {testable}")
    if task.lost:
        is_tested = roles == "test" if official else np.isin(folds, test_folds or names)
        tested = set(folds[is_tested].tolist())
        notes += task.lost.note(tuple(tested), int(is_tested.sum()))

    result = []
    for number, name in enumerate(testable):
        if test_folds and name not in test_folds:
            continue
        is_test = roles == "test" if official else folds == name
        _check_groups(task, is_test, name)
        copies = _check_recordings(task, is_test, name)
        train, valid = np.flatnonzero(~is_test & (roles != "valid")), np.flatnonzero(roles == "valid")
        if not len(valid):
            train, valid = draw_valid(task, train, np.random.default_rng([seed, number]))
        for what, numbers in (("groups", task.groups), ("recordings", task.recordings)):
            shared = () if numbers is None else np.intersect1d(numbers[train], numbers[valid])
            if len(shared):
                copies += (f"fold {name}: training and validation share {len(shared)} {what}",)
        result.append(Split(name, train, valid, np.flatnonzero(is_test), notes + copies))
    return result


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


def _check_groups(task: Task, is_test: Bool[np.ndarray, " clip"], name: str) -> None:
    if task.groups is None:
        return
    both = np.intersect1d(task.groups[is_test], task.groups[~is_test])
    if len(both):
        raise ValueError(
            f"group {str(both[0])!r} of task {task.name} is both in test fold {name!r} and outside it ({len(both)} "
            "such groups): move each into one fold, or name it group@fold if this is intended"
        )


def _check_recordings(task: Task, is_test: Bool[np.ndarray, " clip"], name: str) -> tuple[str, ...]:
    """A note on recordings that are on both sides of a test, if they are allowed."""
    numbers = task.recordings
    if numbers is None:
        return ()
    both = np.intersect1d(numbers[is_test], numbers[~is_test])
    if not len(both):
        return ()
    if task.allow_duplicates:
        num_clips = int(np.isin(numbers[is_test], both).sum())
        return (f"fold {name}: the recordings of {num_clips} of {is_test.sum()} test clips are in training too",)
    tested, other = (task.paths[np.flatnonzero((numbers == both[0]) & side)[0]] for side in (is_test, ~is_test))
    raise ValueError(
        f"{tested} in test fold {name!r} of task {task.name} and {other} outside it are one recording ({len(both)} "
        "such): move copies into one fold, or remove them; --allow-duplicates tests on them all the same"
    )


def _random_folds(task: Task, seed: int) -> tuple[Shaped[np.ndarray, " clip"], tuple[str, ...]]:
    """Folds for a task that has none, and a note on them."""
    groups = group_numbers(task)
    num_folds = min(NUM_FOLDS, int(groups.max()) + 1)
    if num_folds < 2:
        raise ValueError(f"task {task.name} is a single group: give it folds, or leave the groups out")
    folds = _balanced_parts(task.flags, groups, num_folds, np.random.default_rng(seed))
    by_group = "" if task.groups is None else ", groups kept whole"
    return (folds + 1).astype(str), (f"no folds given: split into {num_folds} with seed {seed}{by_group}",)


def draw_valid(
    task: Task, train: Int[np.ndarray, " train"], rng: np.random.Generator
) -> tuple[Int[np.ndarray, " rest"], Int[np.ndarray, " valid"]]:
    """Set a tenth of the training clips aside: of ten parts the one that leaves most classes, nearest in size."""
    if len(train) < 2:
        raise ValueError(f"task {task.name} leaves {len(train)} training clips: at least two are needed")
    groups = np.unique(group_numbers(task)[train], return_inverse=True)[1]
    if groups.max() == 0:
        groups = np.arange(len(train))
    flags = task.flags[train]
    num_parts = min(NUM_VALID_PARTS, int(groups.max()) + 1)
    part = _balanced_parts(flags, groups, num_parts, rng)
    num_classes_left = [int(flags[part != candidate].any(axis=0).sum()) for candidate in range(num_parts)]
    distance = np.abs(np.bincount(part, minlength=num_parts) - len(train) / NUM_VALID_PARTS)
    chosen = min(range(num_parts), key=lambda candidate: (-num_classes_left[candidate], distance[candidate]))
    return train[part != chosen], train[part == chosen]


def _balanced_parts(
    flags: Bool[np.ndarray, "clip class"], groups: Int[np.ndarray, " clip"], num_parts: int, rng: np.random.Generator
) -> Int[np.ndarray, " clip"]:
    """Assign whole groups to parts, the largest first, each to the part that has the least of its classes so far."""
    size = np.full((len(flags), 1), 1e-3)  # a class of little weight, which breaks ties between the others
    counts: Float[np.ndarray, "group class"] = np.zeros((int(groups.max()) + 1, flags.shape[1] + 1))
    np.add.at(counts, groups, np.hstack([flags, size]))
    share = counts / np.maximum(counts.sum(axis=0), 1e-9)
    held = np.zeros((num_parts, counts.shape[1]))
    part_of_group = np.zeros(len(counts), np.int64)
    shuffled = rng.permutation(len(counts))
    for group in shuffled[np.argsort(-counts[shuffled, -1], kind="stable")]:
        part = int(np.argmin(held @ share[group]))
        held[part] += counts[group]
        part_of_group[group] = part
    return part_of_group[groups]
