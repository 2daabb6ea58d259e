"""Splits of data sets that have no official one: fixed random ones, and lists that others have published."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

import numpy as np

from melmask.datasets.base import SPLITS
from melmask.datasets.layouts import first_columns, read_table

SHARES = {"train": 0.7, "valid": 0.1, "test": 0.2}  # of the speakers, in TensorFlow Datasets


def split_speakers(speakers: Iterable[str]) -> dict[str, str]:
    """Assign speakers to splits at random: 70 % to train, 10 % to valid and 20 % to test, shuffled with seed 0.

    Args:
        speakers: names; duplicates count once.

    Returns:
        The split of each speaker.

    Source: `tfds.audio.CremaD` and `tfds.audio.Voxforge`, version 1.0.0. Deviates: not at all.

    >>> split_speakers(["anna", "ben", "anna", "cleo"])
    {'cleo': 'train', 'ben': 'train', 'anna': 'test'}
    """
    order = sorted(set(speakers))
    # NumPy's legacy generator, whose stream never changes, so that the split never changes either.
    np.random.RandomState(0).shuffle(order)
    ends = [int(share * len(order)) for share in itertools.accumulate(SHARES.values())]
    ends[-1] = len(order)
    split = {}
    for name, start, end in zip(SHARES, [0, *ends], ends, strict=False):
        split.update(dict.fromkeys(order[start:end], name))
    return split


FILE_COLUMNS = ("file_name", "filename", "file", "path")  # what lists of clips call a recording
SPLIT_NAMES = {
    "train": "train", "training": "train", "val": "valid", "valid": "valid", "validation": "valid", "dev": "valid",
    "test": "test", "testing": "test", "eval": "test",
}  # fmt: skip


def evar_name(path: Path) -> str:
    """What tables call the split of EVAR that a file lists."""
    return f"EVAR split ({path.name})"


def read_split_list(path: Path, columns: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Read a CSV that assigns something to splits, as EVAR publishes them: ``preset,split``, ``file_name,label,split``.

    Args:
        path: the CSV; a line for each.
        columns: what the column of names may be called, the first that is found; that of splits is ``split``.

    Returns:
        The name of that column, and the split of each name: train, valid or test.

    Raises:
        ValueError: it is no such file, a split has another name, or a name is in two splits.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the split file itself with --lists")
    column = first_columns(path, columns)
    split_of: dict[str, str] = {}
    for row in read_table(path, (column, "split")):
        name, split = row[column].strip(), SPLIT_NAMES.get(row["split"].strip().lower())
        if split is None:
            raise ValueError(f"{path} has the split {row['split']!r}: name them {', '.join(SPLITS)}")
        if split_of.setdefault(name, split) != split:
            raise ValueError(f"{path} has {name!r} in the splits {split_of[name]} and {split}: keep one")
    return column, split_of


def find_listed(
    names: Iterable[str], paths: Iterable[Path], folder: Path, key: Callable[[Path], Hashable]
) -> dict[str, Path]:
    """Find the recordings of a list in a folder, whose layout and kind of files may be others than the list's.

    Args:
        names: of recordings, as listed.
        paths: the recordings of the folder.
        folder: that they are in; a listed recording that is not found is named as if it lay there.
        key: what tells recordings apart, listed or real.

    Raises:
        ValueError: several recordings have the key of a listed one, or two listed ones have one key.

    >>> find_listed(["b/1.wav"], [Path("x/1.flac")], Path("x"), lambda path: path.stem)
    {'b/1.wav': PosixPath('x/1.flac')}
    """
    of_key, found = defaultdict(list), {}
    for path in paths:
        of_key[key(path)].append(path)
    for name in names:
        alike = of_key[key(Path(name))]
        if len(alike) > 1:
            raise ValueError(f"the listed {name} may be {alike[0]} or {alike[1]}: remove one of them")
        found[name] = alike[0] if alike else folder / name
    taken: dict[Path, str] = {}
    for name, path in found.items():
        if taken.setdefault(path, name) != name:
            raise ValueError(f"the list has {taken[path]} and {name}, which both stand for {path}: keep one")
    return found
