"""Splits of labelled evaluation sets, which keep groups apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from melmask.evaluation.labels import known_splits, roles_of
from melmask.evaluation.task import Task, group_numbers

NUM_FOLDS = 5
NUM_VALID_PARTS = 10  # the validation split drawn from a training split is one of ten parts
NUM_HELD_OUT = 5  # parts that choose the settings of a probe, see `Split`


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of the clips to train, validate and test on; ``valid`` chooses settings and epochs, ``test`` never does.

    Args:
        name: of the fold that is tested.
        train, valid, test: the rows.
        notes: what a reader of the score has to know.
        parts: of training and validation clips, in whole groups; some probes choose their settings by holding out one
            after the other, see `melmask.probes.base.Probe.choose`. Empty where the task has a validation split.
    """

    name: str
    train: Int[np.ndarray, " train"]
    valid: Int[np.ndarray, " valid"]
    test: Int[np.ndarray, " test"]
    notes: tuple[str, ...] = ()
    parts: tuple[Int[np.ndarray, " _"], ...] = ()


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
        parts: tuple[Int[np.ndarray, " _"], ...] = ()
        if not len(valid):
            parts = draw_parts(task, train, np.random.default_rng([seed, number, 1]))
            train, valid = draw_valid(task, train, np.random.default_rng([seed, number]))
        for what, numbers in (("groups", task.groups), ("recordings", task.recordings)):
            shared = () if numbers is None else np.intersect1d(numbers[train], numbers[valid])
            if len(shared):
                copies += (f"fold {name}: training and validation share {len(shared)} {what}",)
        result.append(Split(name, train, valid, np.flatnonzero(is_test), notes + copies, parts))
    return result


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
    groups, flags = _groups_of(task, train), task.flags[train]
    num_parts = min(NUM_VALID_PARTS, int(groups.max()) + 1)
    part = _balanced_parts(flags, groups, num_parts, rng)
    num_classes_left = [int(flags[part != candidate].any(axis=0).sum()) for candidate in range(num_parts)]
    distance = np.abs(np.bincount(part, minlength=num_parts) - len(train) / NUM_VALID_PARTS)
    chosen = min(range(num_parts), key=lambda candidate: (-num_classes_left[candidate], distance[candidate]))
    return train[part != chosen], train[part == chosen]


def draw_parts(
    task: Task, rows: Int[np.ndarray, " row"], rng: np.random.Generator
) -> tuple[Int[np.ndarray, " _"], ...]:
    """Divide clips into up to five parts of whole groups with balanced classes, for `Split`."""
    groups = _groups_of(task, rows)
    num_parts = min(NUM_HELD_OUT, int(groups.max()) + 1)
    part = _balanced_parts(task.flags[rows], groups, num_parts, rng)
    return tuple(rows[part == number] for number in range(num_parts))


def _groups_of(task: Task, rows: Int[np.ndarray, " row"]) -> Int[np.ndarray, " row"]:
    """Groups of some clips, numbered from 0; if all are of one group, each clip is taken as one of its own."""
    groups = np.unique(group_numbers(task)[rows], return_inverse=True)[1]
    return groups if groups.max() > 0 else np.arange(len(rows))


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
