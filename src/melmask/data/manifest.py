"""CSV manifests and folders of recordings -> one list of clips, in a fixed order."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from melmask.audio import AUDIO_EXTENSIONS

STORE_MARK = ".melmask-store"  # a folder with this file was written by `prepare` and is never searched for audio


@dataclass(frozen=True)
class Clip:
    """One listing of a recording. The same file may be listed by several manifests, with different labels and folds.

    Its repr, like that of `Rejected`, is hashed into store.json, to find out whether a store is up to date.

    Args:
        path: the audio file, absolute.
        label: its class, or several in a multi-label set, as written in the manifest.
        fold: its fold or split, e.g. "1" or "train".
        group: clips of one group share something that must not leak between splits, e.g. the speaker.
        source: name of the manifest (without .csv) or folder that lists it.
    """

    path: Path
    label: str | None
    fold: str | None
    group: str | None
    source: str


@dataclass(frozen=True)
class Rejected:
    """A listing that could not be used.

    Args:
        path: the file.
        reason: short, and the same for every file with this fault.
        detail: what was found, and the remedy.
        source: name of the manifest or folder that lists it.
    """

    path: Path
    reason: str
    detail: str = ""
    source: str = ""


def find_clips(sources: Sequence[Path]) -> list[Clip]:
    """The clips of `list_sources`, without the rejected files."""
    return list_sources(sources)[0]


def list_sources(sources: Sequence[Path]) -> tuple[list[Clip], list[Rejected]]:
    """List the clips of all sources, in their order; the files of a folder are sorted by path.

    Args:
        sources: CSV manifests, and folders that are searched recursively.

    Returns:
        The clips, whose files are not opened yet, and the files in folders that have no audio extension. Hidden files
        are ignored.

    Raises:
        ValueError: a source is missing, neither folder nor CSV, empty, or given twice; or a manifest is malformed.
    """
    if not sources:
        raise ValueError("no sources given: name at least one folder or CSV manifest")
    clips: list[Clip] = []
    rejected: list[Rejected] = []
    for source, name in zip(sources, _source_names(sources), strict=True):
        if source.is_dir():
            found, passed = _list_folder(source, name)
            clips += found
            rejected += passed
        elif source.suffix.lower() == ".csv":
            clips += read_manifest(source, name)
        elif source.exists():
            raise ValueError(f"{source} is neither a folder nor a .csv manifest: name its folder, or list it in a CSV")
        else:
            raise ValueError(f"{source} does not exist: check the path")
    return clips, rejected


def read_manifest(path: Path, source: str | None = None) -> list[Clip]:
    """Read a CSV with the columns ``path[,label,fold,group]``.

    A column ``split`` may replace ``fold``; other columns are ignored. The listed files are not opened.

    Args:
        path: the CSV, in UTF-8. Paths in it are absolute, or relative to its folder.
        source: name for `Clip.source`; the file's name without .csv if not given.

    Raises:
        ValueError: no such file, no column ``path``, both ``fold`` and ``split``, no rows, or a malformed row; the
            message names file and line.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist: check the path of the manifest")
    folder = path.absolute().parent
    clips = []
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.DictReader(file)
        try:
            if "path" not in (reader.fieldnames or []):
                found = ", ".join(reader.fieldnames or []) or "nothing"
                raise ValueError(
                    f"{path}, line 1: no column 'path' (found: {found}): add a header line path,label,fold,group"
                )
            if {"fold", "split"} <= set(reader.fieldnames or []):
                raise ValueError(f"{path}, line 1: both a fold and a split column: keep the one to be used")
            for row in reader:
                if None in row:
                    raise ValueError(
                        f"{path}, line {reader.line_num}: more cells than columns: put cells with commas in quotes"
                    )
                if not row["path"]:
                    raise ValueError(f"{path}, line {reader.line_num}: no path: name the audio file or remove the line")
                label, fold, group = (row.get(column) or None for column in ("label", "fold", "group"))
                fold = fold or row.get("split") or None
                clips.append(Clip(folder / row["path"], label, fold, group, source or path.stem))
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num + 1}: {error}: save the manifest as plain CSV") from error
    if not clips:
        raise ValueError(f"{path}: no rows below the header: list at least one audio file")
    return clips


def _source_names(sources: Sequence[Path]) -> list[str]:
    """Stem of a manifest or name of a folder; of equal ones, the parent folder is prepended, or the whole path used."""
    full = [source.absolute() for source in sources]
    names = [path.stem if path.suffix.lower() == ".csv" else path.resolve().name for path in full]
    longer = [f"{path.resolve().parent.name}/{name}" for path, name in zip(full, names, strict=True)]
    for path, times in Counter(path.resolve() for path in full).items():
        if times > 1:
            raise ValueError(f"the source {path} is given {times} times: name it once")
    for candidates in (longer, [str(path) for path in full]):
        count = Counter(names)
        names = [name if count[name] == 1 else other for name, other in zip(names, candidates, strict=True)]
    return names


def _list_folder(folder: Path, source: str) -> tuple[list[Clip], list[Rejected]]:
    clips, rejected = [], []
    for path in sorted(_walk(folder.absolute())):
        if path.suffix.lower() in AUDIO_EXTENSIONS:
            clips.append(Clip(path, None, None, None, source))
        else:
            detail = "Convert it if it is audio; remove it, or list the wanted files in a manifest, if not."
            rejected.append(Rejected(path, "not an audio file extension", detail, source))
    if not clips:
        raise ValueError(f"no audio files below {folder}: looked for {', '.join(sorted(AUDIO_EXTENSIONS))}")
    return clips, rejected


def _walk(top: Path) -> Iterator[Path]:
    """All files below ``top`` but hidden ones, visiting each folder once even if several links lead to it."""
    seen: set[tuple[int, int]] = set()
    folders: list[Path] = [top]
    linked: list[Path] = []
    while folders or linked:
        # Links are followed last, so that a folder that is also reached directly is listed under its own name.
        folder = folders.pop() if folders else linked.pop(0)
        stat = folder.stat()
        if (stat.st_dev, stat.st_ino) in seen or (folder / STORE_MARK).exists():
            continue
        seen.add((stat.st_dev, stat.st_ino))
        for path in sorted(folder.iterdir()):
            if path.name.startswith("."):
                continue
            if path.is_dir():
                (linked if path.is_symlink() else folders).append(path)
            else:
                yield path
