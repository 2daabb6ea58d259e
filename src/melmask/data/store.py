"""The packed store: its format on disk, and how it is read. `melmask.data.prepare` writes it.

A store is a folder with

* ``shards/*.npy``: log-mels as float16 [frame, mel]; a clip is a range of rows, so a crop is one contiguous read
* ``clips.csv``: one row per listed clip, CLIP_COLUMNS; rows of the same recording share its frames
* ``rejected.csv``: every listed file that is not in clips.csv, REJECTED_COLUMNS
* ``notes.csv``: what was found about clips that are in clips.csv, NOTE_COLUMNS; only there if anything was
* ``store.json``: front end, mean, standard deviation, counts, fingerprint; written last, so it marks a complete store
"""

import csv
import json
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from jaxtyping import Float16, Int

from melmask.data.manifest import Clip, Rejected
from melmask.files import atomic_write
from melmask.logmel import LogMelSpec

FORMAT_VERSION = 1
REJECTED = "rejected.csv"
CLIP_COLUMNS = ("path", "label", "fold", "group", "source", "shard", "start_frame", "num_frames")
REJECTED_COLUMNS = ("path", "reason", "detail", "source")
NOTES = "notes.csv"
NOTE_COLUMNS = ("path", "kind", "detail", "source")
MAX_OPEN_SHARDS = 1024  # memory maps per process; Linux allows 65,530


@dataclass(frozen=True)
class StoredClip:
    """A clip and the place of its frames.

    Args:
        clip: the listing.
        shard: name of a file in the folder ``shards``.
        start_frame: its first row in the shard.
        num_frames: its number of rows.
    """

    clip: Clip
    shard: str
    start_frame: int
    num_frames: int


@dataclass(frozen=True)
class NotedClip:
    """Something found about a clip that is used all the same, see `melmask.audio.Note`.

    Args:
        path: the file.
        kind: short, and the same for every file of which it is true.
        detail: what was found, and what was done.
        source: name of the manifest or folder that lists it.
    """

    path: Path
    kind: str
    detail: str
    source: str


class Store:
    """A prepared data set, read-only, cheap to open and safe to pass to other processes. Use `Store.open`.

    Args:
        folder: of the store.
        info: the content of store.json.
        clips: the rows of clips.csv.
        rejected: the rows of rejected.csv.

    Attributes:
        clip_s: length in seconds that clips are cut or padded to as they are read; 0 for whole clips, as here.
        cut: which part of a longer clip is read.
    """

    clip_s: float = 0.0
    cut: Literal["middle", "head", "random"] = "middle"

    def __init__(self, folder: Path, info: dict[str, Any], clips: list[StoredClip], rejected: list[Rejected]) -> None:
        self.folder, self.info, self.clips, self.rejected = folder, info, clips, rejected
        self.spec = LogMelSpec.from_dict(info["spec"])
        self.mean: float = info["mean"]
        self.std: float = info["std"]
        self.fingerprint: str = info["fingerprint"]
        self._shard = lru_cache(MAX_OPEN_SHARDS)(self._open_shard)

    @classmethod
    def open(cls, folder: Path) -> "Store":
        """Read the tables; log-mels are memory-mapped when they are needed.

        Raises:
            ValueError: the folder is not a store, is incomplete, or has another version of the format.
        """
        if not (folder / "store.json").is_file():
            raise ValueError(f"{folder} holds no complete store: write or resume it with `melmask prepare`")
        info = json.loads((folder / "store.json").read_text(encoding="utf-8"))
        if info["format_version"] != FORMAT_VERSION:
            raise ValueError(
                f"{folder} has format {info['format_version']}; this melmask reads {FORMAT_VERSION}: prepare it again"
            )
        clips = [
            StoredClip(
                Clip(Path(path), label or None, fold or None, group or None, source),
                shard,
                int(start_frame),
                int(num_frames),
            )
            for path, label, fold, group, source, shard, start_frame, num_frames in _read_rows(folder / "clips.csv")
        ]
        rejected = [
            Rejected(Path(path), reason, detail, source)
            for path, reason, detail, source in _read_rows(folder / REJECTED)
        ]
        return cls(folder, info, clips, rejected)

    @property
    def place(self) -> str:
        """Where it is, as runs record it and `melmask pretrain` takes it."""
        return str(self.folder.resolve())

    @cached_property
    def notes(self) -> list[NotedClip]:
        """The rows of notes.csv: what was found about clips that are used all the same."""
        path = self.folder / NOTES
        rows = _read_rows(path) if path.exists() else []
        return [NotedClip(Path(path), kind, detail, source) for path, kind, detail, source in rows]

    def log_mel(self, index: int, start: int = 0, stop: int | None = None) -> Float16[np.ndarray, "frame mel"]:
        """Log-mel frames of a clip (natural logarithm, not normalised), as a read-only view of the file.

        Args:
            index: row in `clips`.
            start: first frame of the crop.
            stop: one past its last frame; the clip's end if None.

        Raises:
            IndexError: the crop exceeds the clip.
        """
        stored = self.clips[index]
        stop = stored.num_frames if stop is None else stop
        if not 0 <= start <= stop <= stored.num_frames:
            raise IndexError(f"frames {start} to {stop} are not within clip {index} of {stored.num_frames} frames")
        return self._shard(stored.shard)[stored.start_frame + start : stored.start_frame + stop]

    def recordings(self) -> Int[np.ndarray, " clip"]:
        """The number of each clip's recording, counted from 0 in the order of the clips.

        Clips have the same number if they are of one file, whatever its names and links, of files with equal content,
        or of files whose decoded samples are equal, such as a WAV and the FLAC made of it.
        """
        return connected(self.contents())

    def contents(self) -> list[tuple[str, str]]:
        """Hashes of each clip's file and of its decoded samples."""
        ids: dict[tuple[str, int], tuple[str, str]] = {}
        for name in {stored.shard for stored in self.clips}:
            description = (self.folder / "shards" / name).with_suffix(".json").read_text(encoding="utf-8")
            for entry in json.loads(description)["entries"]:
                if "reason" not in entry:  # shards of earlier versions do not have the hash of the samples
                    ids[name, entry["start_frame"]] = (entry["sha256"], entry.get("samples", entry["sha256"]))
        return [ids[stored.shard, stored.start_frame] for stored in self.clips]

    def _open_shard(self, name: str) -> np.ndarray:
        # asarray, because slicing numpy.memmap itself is several times slower.
        return np.asarray(np.load(self.folder / "shards" / name, mmap_mode="r"))

    def __len__(self) -> int:
        return len(self.clips)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the folder, not the mapped data."""
        return Store.open, (self.folder.absolute(),)


def connected(names: Sequence[Iterable[Hashable]]) -> Int[np.ndarray, " item"]:
    """Number items so that those with a name in common have the same number, also through others.

    >>> connected(["ab", "c", "bd", "d"])
    array([0, 1, 0, 0])
    """
    parent = list(range(len(names)))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = item = parent[parent[item]]
        return item

    first: dict[Hashable, int] = {}
    for item, own in enumerate(names):
        for name in own:
            low, high = sorted((root(first.setdefault(name, item)), root(item)))
            parent[high] = low
    return np.unique([root(item) for item in range(len(names))], return_inverse=True)[1]


def write_tables(
    folder: Path, clips: Sequence[StoredClip], rejected: Sequence[Rejected], notes: Sequence[NotedClip] = ()
) -> None:
    """Write clips.csv, rejected.csv, and notes.csv if there are any."""
    clip_rows = (
        (c.clip.path, c.clip.label, c.clip.fold, c.clip.group, c.clip.source, c.shard, c.start_frame, c.num_frames)
        for c in clips
    )
    _write_rows(folder / "clips.csv", CLIP_COLUMNS, clip_rows)
    write_rejected(folder / REJECTED, rejected)
    if notes:
        write_notes(folder / NOTES, notes)
    else:
        (folder / NOTES).unlink(missing_ok=True)


def write_notes(path: Path, notes: Sequence[NotedClip]) -> None:
    """Write a table of notes."""
    _write_rows(path, NOTE_COLUMNS, ((n.path, n.kind, n.detail, n.source) for n in notes))


def write_rejected(path: Path, rejected: Iterable[Rejected]) -> None:
    """Write a CSV of listings that could not be used, with the reasons."""
    _write_rows(path, REJECTED_COLUMNS, ((r.path, r.reason, r.detail, r.source) for r in rejected))


def _open_csv(path: Path, mode: str) -> IO[str]:
    # File names on Linux are bytes and need not be UTF-8: surrogateescape preserves them.
    return path.open(mode, newline="", encoding="utf-8", errors="surrogateescape")


def _read_rows(path: Path) -> list[list[str]]:
    with _open_csv(path, "r") as file:
        return list(csv.reader(file))[1:]


def _write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with atomic_write(path) as temporary, _open_csv(temporary, "w") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
