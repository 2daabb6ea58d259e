"""The packed store: its format on disk, and how it is read. `melmask.data.prepare` writes it.

A store is a folder with

* ``shards/*.npy``: log-mels as float16 [frame, mel]; a clip is a range of rows, so a crop is one contiguous read
* ``clips.arrow``: one row per listed clip (`melmask.data.clip_table`); rows of the same recording share its frames.
  Earlier versions wrote the same rows to ``clips.csv``
* ``rejected.csv``: every listed file that is not among the clips, REJECTED_COLUMNS
* ``notes.csv``: what was found about clips, NOTE_COLUMNS; only there if anything was
* ``store.json``: front end, mean, standard deviation, counts, fingerprint, checksums of all shards and tables; written
  last, so it marks a complete store
"""

import copy
import csv
import io
import math
from collections.abc import Hashable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float16, Int
from xxhash import xxh3_128

from melmask.data.checks import Damaged, Verifier, Verify, read_sealed
from melmask.data.clip_table import ClipTable, StoredClip
from melmask.data.manifest import Rejected
from melmask.data.shard_files import ShardFiles
from melmask.escaping import from_csv, in_csv
from melmask.fields import check_fields
from melmask.files import write_bytes
from melmask.locks import shared
from melmask.logmel import LogMelSpec

FORMAT_VERSION = 2
READ_VERSIONS = (1, 2)  # the first has its clips in a CSV, and no checksums
DESCRIPTION = "store.json"
IN_USE = ".in-use"  # is locked by all who read the store, together, or by one that changes it
CLIPS, REJECTED, NOTES = "clips.arrow", "rejected.csv", "notes.csv"
EARLIER_CLIPS = "clips.csv"
LOCK_WAIT_S = 10.0
EARLIER = "was prepared by an earlier version, without checksums: prepare the same sources to it again, which adds them"
REJECTED_COLUMNS = ("path", "reason", "detail", "source")
NOTE_COLUMNS = ("path", "kind", "detail", "source")
FIELDS = {
    "spec": dict, "mean": float, "std": float, "num_clips": int, "num_recordings": int, "num_frames": int,
    "duration_s": float, "num_rejected": int, "fingerprint": str, "inputs": str,
}  # fmt: skip


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
        clips: the clips, in order; a table of them as it is.
        rejected: the rows of rejected.csv.
        verify: which shards are compared with their checksums when they are read: those that were not before, or were
            changed since ("first" and, as all were compared before, "full"), or "none".

    Attributes:
        clip_s: length in seconds that clips are cut or padded to as they are read; 0 for whole clips, as here.
        cut: which part of a longer clip is read.
        mean, std: of its log-mels, by which crops are normalised; see `normalised` for others.
    """

    clip_s: float = 0.0
    cut: Literal["middle", "head", "random"] = "middle"

    def __init__(
        self,
        folder: Path,
        info: dict[str, Any],
        clips: Sequence[StoredClip],
        rejected: list[Rejected],
        verify: Verify = "first",
    ) -> None:
        self.folder, self.info, self.rejected, self.verify = folder, info, rejected, verify
        self.clips = clips if isinstance(clips, ClipTable) else ClipTable.of_clips(clips)
        self.spec = LogMelSpec.from_dict(info["spec"])
        self.mean: float = info["mean"]
        self.std: float = info["std"]
        self.fingerprint: str = info["fingerprint"]

    @classmethod
    def open(cls, folder: Path, verify: Verify = "first") -> "Store":
        """Read the tables; log-mels are read when they are needed.

        Args:
            folder: that `prepare` wrote.
            verify: "first" compares tables now, and shards when they are first read, with their checksums, unless they
                were compared before and have not changed since; "full" compares all of them now; "none" none.

        Raises:
            ValueError: the folder is not a store, is incomplete, has another version of the format, or is damaged
                (`melmask.data.checks.Damaged`, which names the file and the remedy).
        """
        info = read_info(folder)
        clips = _read_clips(folder, info, verify)
        rejected = [
            Rejected(Path(path), reason, detail, source)
            for path, reason, detail, source in _read_rows(folder, REJECTED, info, verify)
        ]
        if len(rejected) != info["num_rejected"]:
            raise Damaged(folder / REJECTED, f"it has {len(rejected):,} rows, not {info['num_rejected']:,}", folder)
        store = cls(folder, info, clips, rejected, verify)
        if verify == "full":
            store.verify_shards()
        return store

    def verify_shards(self) -> None:
        """Compare all shards and their descriptions with their checksums.

        Raises:
            Damaged: one is not what was written.
        """
        for name in self.info.get("checksums", {}).get("shards", {}):
            self._shards.read(name, 0, 0)
        self.contents()

    @property
    def has_checksums(self) -> bool:
        """Whether damage would be found: not in stores of earlier versions."""
        return "checksums" in self.info or not len(self)

    @cached_property
    def _shards(self) -> ShardFiles:
        checksums = self.info.get("checksums", {}).get("shards", {})
        return ShardFiles(self.folder, self.spec.num_mels, checksums, Verifier(self.folder / "shards", self.verify))

    @property
    def place(self) -> str:
        """Where it is, as runs record it and `melmask pretrain` takes it."""
        return str(self.folder.resolve())

    def normalised(self, mean: float, std: float) -> "Store":
        """The same store, whose crops are normalised by a mean and a standard deviation that are not its own."""
        other = copy.copy(self)
        other.mean, other.std = mean, std
        return other

    @cached_property
    def notes(self) -> list[NotedClip]:
        """The rows of notes.csv: what was found about clips that are used all the same."""
        is_written = NOTES in self.info.get("checksums", ()) or (self.folder / NOTES).exists()
        rows = _read_rows(self.folder, NOTES, self.info, self.verify) if is_written else []
        return [NotedClip(Path(path), kind, detail, source) for path, kind, detail, source in rows]

    def log_mel(self, index: int, start: int = 0, stop: int | None = None) -> Float16[np.ndarray, "frame mel"]:
        """Log-mel frames of a clip (natural logarithm, not normalised), as an array that cannot be written to.

        Args:
            index: row in `clips`.
            start: first frame of the crop.
            stop: one past its last frame; the clip's end if None.

        Raises:
            IndexError: the crop exceeds the clip.
            Damaged: the shard is not what was written.
        """
        num_frames, first = int(self.clips.num_frames[index]), int(self.clips.start_frame[index])
        stop = num_frames if stop is None else stop
        if not 0 <= start <= stop <= num_frames:
            raise IndexError(f"frames {start} to {stop} are not within clip {index} of {num_frames} frames")
        return self._shards.read(self.clips.word("shard", index), first + start, first + stop)

    def in_use(self) -> AbstractContextManager[None]:
        """Keep other processes from changing the store, as long as it is read; it may be read by several at once.

        Raises:
            melmask.locks.Locked: another process is changing it.
        """
        busy = f"{self.folder} is being changed by another process: wait until it is prepared"
        return shared(self.folder / IN_USE, busy, wait_s=LOCK_WAIT_S) if len(self) else nullcontext()

    def span_s(self, row: int) -> tuple[float, float | None]:
        """Start and end of a clip within its recording, in seconds; None is the end of the recording."""
        return 0.0, None

    def recordings(self) -> Int[np.ndarray, " clip"]:
        """The number of each clip's recording, counted from 0 in the order of the clips.

        Clips have the same number if they are of one file, whatever its names and links, of files with equal content,
        or of files whose decoded samples are equal, such as a WAV and the FLAC made of it.
        """
        return connected(self.contents())

    def contents(self) -> list[tuple[str, str]]:
        """Hashes of each clip's file and of its decoded samples."""
        ids: dict[tuple[str, int], tuple[str, str]] = {}
        shards, starts = self.clips.words("shard"), self.clips.start_frame.tolist()
        for name in dict.fromkeys(shards):
            path = (self.folder / "shards" / name).with_suffix(".json")
            try:
                for entry in read_sealed(path, self.folder)["entries"]:
                    if "reason" not in entry:  # shards of earlier versions do not have the hash of the samples
                        ids[name, entry["start_frame"]] = (entry["sha256"], entry.get("samples", entry["sha256"]))
            except FileNotFoundError as error:
                raise Damaged(path, "it is missing", self.folder) from error
            except (KeyError, TypeError, AttributeError) as error:
                raise Damaged(path, f"it does not describe its recordings ({error!r})", self.folder) from error
        try:
            return [ids[place] for place in zip(shards, starts, strict=True)]
        except KeyError as error:
            raise Damaged(self.folder / "shards", f"no recording begins at {error}", self.folder) from error

    def __len__(self) -> int:
        return len(self.clips)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the folder, not the data."""
        return Store.open, (self.folder.absolute(), self.verify)


def read_info(folder: Path) -> dict[str, Any]:
    """The content of store.json.

    Raises:
        ValueError: see `Store.open`.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise ValueError(f"{folder} holds no complete store: write or resume it with `melmask prepare`")
    try:
        info = read_sealed(path, folder)
    except Damaged as error:
        found = error.values.get("format_version", FORMAT_VERSION)
        if found not in READ_VERSIONS:
            raise _other_version(folder, found) from error
        raise
    if info.get("format_version") not in READ_VERSIONS:
        raise _other_version(folder, info.get("format_version"))
    try:
        check_fields(info, FIELDS)
        LogMelSpec.from_dict(info["spec"])
    except (ValueError, TypeError) as error:
        raise Damaged(path, str(error), folder) from error
    if info["format_version"] > 1 and "checksums" not in info:
        raise Damaged(path, "it has no checksums", folder)
    if not (info["std"] > 0 and math.isfinite(info["mean"])):
        raise Damaged(path, f"its log-mels have mean {info['mean']} and standard deviation {info['std']}", folder)
    return info


def _other_version(folder: Path, found: object) -> ValueError:
    known = " and ".join(map(str, READ_VERSIONS))
    return ValueError(f"{folder} has format {found}; this melmask reads {known}: prepare it again")


def _read_clips(folder: Path, info: dict[str, Any], verify: Verify) -> ClipTable:
    """The table of clips, whose frames are there and whose number is that of the description."""
    name = CLIPS if info["format_version"] > 1 else EARLIER_CLIPS
    try:
        if name == CLIPS:
            clips = ClipTable.from_arrow(_content(folder, name, info, verify))
        else:
            clips = ClipTable.of(_read_rows(folder, name, info, verify))
    except Damaged:
        raise
    except ValueError as error:
        raise Damaged(folder / name, str(error), folder) from error
    if len(clips) != info["num_clips"]:
        raise Damaged(folder / name, f"it has {len(clips):,} clips, not {info['num_clips']:,}", folder)
    if len(clips) and (clips.num_frames.min() < 1 or clips.start_frame.min() < 0):
        row = int(np.argmin(np.minimum(clips.num_frames - 1, clips.start_frame)))
        raise Damaged(folder / name, f"{clips[row].clip.path} has {clips.num_frames[row]} frames", folder)
    return clips


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
) -> dict[str, str]:
    """Write clips.arrow, rejected.csv, and notes.csv if there are any; the checksum of each."""
    contents = {CLIPS: ClipTable.of_clips(clips).to_arrow(), REJECTED: _rejected_csv(rejected)}
    if notes:
        contents[NOTES] = _notes_csv(notes)
    for name, content in contents.items():
        write_bytes(folder / name, content)
    for name in {EARLIER_CLIPS, NOTES} - set(contents):
        (folder / name).unlink(missing_ok=True)
    return {name: xxh3_128(content).hexdigest() for name, content in contents.items()}


def write_notes(path: Path, notes: Sequence[NotedClip]) -> None:
    """Write a table of notes."""
    write_bytes(path, _notes_csv(notes))


def write_rejected(path: Path, rejected: Iterable[Rejected]) -> None:
    """Write a CSV of listings that could not be used, with the reasons."""
    write_bytes(path, _rejected_csv(rejected))


def _notes_csv(notes: Iterable[NotedClip]) -> bytes:
    return _csv(NOTE_COLUMNS, ((n.path, n.kind, n.detail, n.source) for n in notes))


def _rejected_csv(rejected: Iterable[Rejected]) -> bytes:
    return _csv(REJECTED_COLUMNS, ((r.path, r.reason, r.detail, r.source) for r in rejected))


def _content(folder: Path, name: str, info: dict[str, Any], verify: Verify) -> bytes:
    """The content of a table, compared with its checksum."""
    path, expected = folder / name, info.get("checksums", {}).get(name)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise Damaged(path, "it is missing", folder) from error
    if expected is not None and verify != "none" and xxh3_128(content).hexdigest() != expected:
        raise Damaged(path, "its checksum is another", folder)
    return content


def _read_rows(folder: Path, name: str, info: dict[str, Any], verify: Verify) -> list[list[str]]:
    """The rows of a CSV, without its header, each with as many cells."""
    # File names on Linux are bytes and need not be UTF-8: surrogateescape preserves them.
    text = _content(folder, name, info, verify).decode("utf-8", "surrogateescape")
    try:
        header, *rows = csv.reader(io.StringIO(text, newline=""))
    except (csv.Error, ValueError) as error:
        raise Damaged(folder / name, f"it is no CSV with a header ({error})", folder) from error
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise Damaged(folder / name, f"row {number} has {len(row)} cells, not {len(header)}", folder)
    return [[from_csv(cell) for cell in row] for row in rows]


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(header)
    writer.writerows(map(in_csv, row) for row in rows)
    return file.getvalue().encode("utf-8", "surrogateescape")
