"""Functions to read folders, tables and lists of released data sets; errors name the file that is missing."""

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from melmask.audio import AUDIO_EXTENSIONS
from melmask.datasets.base import Row


def find_root(folder: Path, mark: str) -> Path:
    """Find the folder that holds ``mark``: the given folder, or one directly in it, as archives often unpack.

    Args:
        folder: to search.
        mark: relative path of a file or folder of the release.

    Raises:
        ValueError: there is no such folder.
    """
    for candidate in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        if (candidate / mark).exists():
            return candidate
    raise ValueError(f"there is no {mark} in {folder}, nor in a folder in it")


def find_list(name: str, folder: Path, lists: Path | None) -> Path:
    """Find a list: ``lists`` itself if it is a file, else the file of that name in ``lists`` or ``folder``.

    Args:
        name: of the file.
        folder: the data set's folder.
        lists: the path given by the user, if any.

    Raises:
        ValueError: the list is in neither.
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
    """Read the rows of a CSV that has at least the given columns.

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


def first_columns(path: Path, names: Sequence[str]) -> str:
    """The first of these names that is a column of a CSV.

    Raises:
        ValueError: the file is missing, or has none of them.
    """
    if not path.is_file():
        raise ValueError(f"there is no {path}")
    with path.open(newline="", encoding="utf-8-sig") as file:
        header = next(csv.reader(file), [])
    found = [name for name in names if name in header]
    if not found:
        raise ValueError(f"{path} has no column {' or '.join(names)}: its columns are {', '.join(header) or 'none'}")
    return found[0]


def read_lines(path: Path) -> list[str]:
    """Read the non-empty lines of a list.

    Raises:
        ValueError: the file does not exist.
    """
    if not path.is_file():
        raise ValueError(f"there is no {path}")
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: the file does not exist, or is damaged.
    """
    from melmask import files  # which imports torch, for lists of tasks in vain

    if not path.is_file():
        raise ValueError(f"there is no {path}")
    return files.read_json(path, "file of the release", remedy="unpack it again")


def audio_below(*folders: Path) -> list[Path]:
    """All audio files in the folders and below, except hidden ones, sorted."""
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
    """Audio files in the folders that no row lists."""
    listed = {row.path for row in rows}
    return tuple(path for path in audio_below(*folders) if path not in listed)
