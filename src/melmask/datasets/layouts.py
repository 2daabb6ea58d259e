"""Reading the folders, tables and lists of released data sets, with errors that name the file that is missing."""

import csv
import itertools
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from melmask.audio import AUDIO_EXTENSIONS
from melmask.datasets.base import Row


def find_root(folder: Path, mark: str) -> Path:
    """The folder that holds ``mark``: the given one, or one directly in it, as unpacking leaves it.

    Raises:
        ValueError: there is none.
    """
    for candidate in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        if (candidate / mark).exists():
            return candidate
    raise ValueError(f"there is no {mark} in {folder}, nor in a folder in it")


def find_list(name: str, folder: Path, lists: Path | None) -> Path:
    """The list of that name: ``lists`` itself, in it if it is a folder, or in the data set's folder.

    Raises:
        ValueError: it is nowhere.
    """
    if lists is not None and lists.is_file():
        return lists
    places = [place for place in (lists, folder) if place is not None]
    for place in places:
        if (place / name).is_file():
            return place / name
    where = " or ".join(map(str, places))
    raise ValueError(f"there is no {name} in {where}: put it there, or give its path or folder with --lists")


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV with at least these columns.

    Raises:
        ValueError: the file or a column is missing, or a row is too short.
    """
    if not path.is_file():
        raise ValueError(f"there is no {path}")
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        absent = [column for column in columns if column not in (reader.fieldnames or [])]
        if absent:
            raise ValueError(f"{path} has no column {', '.join(absent)}: take the file of the release")
        rows = []
        for row in reader:
            if any(row[column] is None for column in columns):
                raise ValueError(f"{path}, line {reader.line_num}: too few cells: take the file of the release")
            rows.append(row)
    return rows


def read_lines(path: Path) -> list[str]:
    """The lines of a list, without the empty ones.

    Raises:
        ValueError: there is no such file.
    """
    if not path.is_file():
        raise ValueError(f"there is no {path}")
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: there is no such file, or it is cut short.
    """
    if not path.is_file():
        raise ValueError(f"there is no {path}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged ({error}): unpack it again") from error


def audio_below(*folders: Path) -> list[Path]:
    """All audio files in the folders and below, hidden ones aside, sorted."""
    found = []
    for folder in folders:
        for top, _, names in os.walk(folder):
            found += [
                Path(top, name)
                for name in names
                if not name.startswith(".") and os.path.splitext(name)[1].lower() in AUDIO_EXTENSIONS  # noqa: PTH122
            ]
    return sorted(found)


def unlisted(rows: Iterable[Row], *folders: Path) -> tuple[Path, ...]:
    """Audio files in the folders that no row has."""
    listed = {row.path for row in rows}
    return tuple(path for path in audio_below(*folders) if path not in listed)


SHARES = {"train": 0.7, "valid": 0.1, "test": 0.2}  # of the speakers, in TensorFlow Datasets


def deal_speakers(speakers: Iterable[str]) -> dict[str, str]:
    """The split of each speaker: 70 % train, 10 % valid, 20 % test, by a shuffle with seed 0.

    Args:
        speakers: names; those given several times count once.

    Source: `tfds.audio.CremaD` and `tfds.audio.Voxforge`, version 1.0.0. Deviates: not at all.

    >>> deal_speakers(["anna", "ben", "anna", "cleo"])
    {'cleo': 'train', 'ben': 'train', 'anna': 'test'}
    """
    order = sorted(set(speakers))
    # The old generator's stream is frozen, so that this shuffle gives the same split for ever.
    np.random.RandomState(0).shuffle(order)
    ends = [int(share * len(order)) for share in itertools.accumulate(SHARES.values())]
    ends[-1] = len(order)
    split = {}
    for name, start, end in zip(SHARES, [0, *ends], ends, strict=False):
        split.update(dict.fromkeys(order[start:end], name))
    return split
