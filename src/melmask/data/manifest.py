"""Recordings, CSV manifests, folders and archives -> one list of clips, in a fixed order."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from melmask.audio import AUDIO_EXTENSIONS, AudioError
from melmask.data.archives import RECORDING_EXTENSIONS, is_archive, recordings_in
from melmask.data.csv_table import MANIFEST_EXTENSIONS, CsvTable, is_manifest, read_csv

COLUMNS = ("path", "label", "fold", "split", "group")
NOT_AUDIO = "not an audio file extension"
RECORD = ".task.json"  # of what `melmask tasks make` made a table from: replaces the table's .csv
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

    @property
    def is_excluded(self) -> bool:
        """Whether it was not taken for a recording: a file of a folder without an audio extension."""
        return self.reason == NOT_AUDIO


def find_clips(sources: Sequence[Path]) -> list[Clip]:
    """The clips of `list_sources`, without the rejected files."""
    return list_sources(sources)[0]


def list_sources(sources: Sequence[Path]) -> tuple[list[Clip], list[Rejected]]:
    """List the clips of all sources, in their order; the files of a folder are sorted by path.

    Args:
        sources: recordings, CSV manifests, folders that are searched recursively, and archives of recordings, which are
            found in folders too: tars as of WebDataset, and HDF5 files.

    Returns:
        The clips, whose files are not opened yet, and the files in folders that have no audio extension. Hidden files
        are ignored, and so are manifests and the records beside them.

    Raises:
        ValueError: a source is missing, of no known kind, empty, or given twice; or a manifest is malformed.
    """
    if not sources:
        raise ValueError("no sources given: name at least one recording, folder or CSV manifest")
    for path, times in Counter(map(_resolved, sources)).items():
        if times > 1:
            raise ValueError(f"the source {path} is given {times} times: name it once")
    clips: list[Clip] = []
    rejected: list[Rejected] = []
    for source, name in zip(sources, source_names(sources), strict=True):
        if source.is_dir():
            found, passed = _list_folder(source, name)
            clips += found
            rejected += passed
        elif source.suffix.lower() in MANIFEST_EXTENSIONS:
            clips += read_manifest(source, name)
        elif is_archive(source) and source.exists():
            found, passed = _list_archive(source.absolute(), name)
            clips += found
            rejected += passed
        elif source.suffix.lower() in RECORDING_EXTENSIONS and source.exists():
            clips.append(Clip(source.absolute(), None, None, None, name))
        elif source.exists():
            raise ValueError(
                f"{source} is neither a folder nor a .csv manifest, .tar or .h5, and has no extension of a recording: "
                "name its folder, or list it in a CSV"
            )
        else:
            raise ValueError(f"{source} does not exist: check the path")
    return clips, rejected


def read_manifest(path: Path, source: str | None = None) -> list[Clip]:
    """Read a CSV with the columns ``path[,label,fold,group]``.

    A column ``split`` may replace ``fold``; other columns are ignored. The listed files are not opened.

    Args:
        path: the CSV. Paths in it are absolute, or relative to its folder.
        source: name for `Clip.source`; the file's name without .csv if not given.

    Raises:
        ValueError: see `read_csv`; or no rows, a row without a path, or both ``fold`` and ``split``.
    """
    return clips_of(read_csv(path, COLUMNS), source)


def clips_of(table: CsvTable, source: str | None = None) -> list[Clip]:
    """A clip for each row of a table with the columns of a manifest; for its errors see `read_manifest`."""
    path, folder = table.path, table.path.absolute().parent
    if {"fold", "split"} <= set(table.columns):
        raise ValueError(f"{path}, line 1: both a fold and a split column: keep the one to be used")
    clips = []
    for line, row in table.rows:
        if not row["path"]:
            raise ValueError(f"{path}, line {line}: no path: name the audio file or remove the line")
        label, fold, split, group = (row.get(column, "").strip() or None for column in COLUMNS[1:])
        clips.append(Clip(folder / row["path"], label, fold or split, group, source or path.stem))
    if not clips:
        raise ValueError(f"{path}: no rows below the header: list at least one audio file")
    return clips


def source_names(sources: Sequence[Path]) -> list[str]:
    """Stem of a manifest or name of a folder; of equal ones, the parent folder is prepended, or the whole path used.

    A source that is given twice has the same name twice.
    """
    full = [source.absolute() for source in dict.fromkeys(sources)]
    names = [path.stem if path.suffix.lower() in MANIFEST_EXTENSIONS else path.resolve().name for path in full]
    longer = [f"{path.resolve().parent.name}/{name}" for path, name in zip(full, names, strict=True)]
    for candidates in (longer, [str(path) for path in full]):
        count = Counter(names)
        names = [name if count[name] == 1 else other for name, other in zip(names, candidates, strict=True)]
    name_of = dict(zip(full, names, strict=True))
    return [name_of[source.absolute()] for source in sources]


def _resolved(source: Path) -> Path:
    try:
        return source.resolve()
    except (OSError, RuntimeError) as error:  # a link that leads to itself
        raise ValueError(f"{source} cannot be followed ({error}): check its links") from error


def _list_folder(folder: Path, source: str) -> tuple[list[Clip], list[Rejected]]:
    clips, rejected = [], []
    for path in sorted(_walk(folder.absolute())):
        if path.suffix.lower() in RECORDING_EXTENSIONS:
            clips.append(Clip(path, None, None, None, source))
        elif is_archive(path):
            found, passed = _list_archive(path, source)
            clips += found
            rejected += passed
        elif not (path.name.endswith(RECORD) or is_manifest(path)):
            detail = "Convert it if it is audio; remove it, or list the wanted files in a manifest, if not."
            rejected.append(Rejected(path, NOT_AUDIO, detail, source))
    if not clips:
        raise ValueError(
            f"no audio files below {folder}: check the folder; looked for {', '.join(sorted(AUDIO_EXTENSIONS))}"
        )
    return clips, rejected


def _list_archive(path: Path, source: str) -> tuple[list[Clip], list[Rejected]]:
    try:
        recordings, others = recordings_in(path)
    except AudioError as error:
        return [], [Rejected(path, error.reason, error.detail, source)]
    detail = "It belongs to no recording in the archive. Name it like one that it belongs to, or leave it out."
    rejected = [Rejected(other, NOT_AUDIO, detail, source) for other in others]
    return [Clip(recording, label, None, None, source) for recording, label in recordings], rejected


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
