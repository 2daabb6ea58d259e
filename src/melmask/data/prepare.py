"""Audio files -> a packed store, in parallel and resumable, with a reason for every file that could not be used.

The recordings are divided into shards. A shard's files are named by a hash of the front end and of each recording's
path, size and modification time. So a shard whose files exist is finished, and a changed recording gives a new name.
"""

import fcntl
import hashlib
import json
import math
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from melmask.audio import AudioError, find_in_archive
from melmask.data.manifest import STORE_MARK, Clip, Rejected, list_sources
from melmask.data.shards import Job, Recording, Shard, make_shards
from melmask.data.store import FORMAT_VERSION, REJECTED, NotedClip, Store, StoredClip, write_tables
from melmask.files import remove_temporaries, write_json
from melmask.logmel import LogMelSpec

# A kill loses the shards that are being made, so each should take no more than seconds. On the other hand, each is a
# memory map and waits for the disk twice (10 ms, in which 16 clips of 5 s could be prepared), so few are better.
MEAN_SHARD_FILES, MAX_SHARD_FILES = 256, 512
MAX_SHARD_BYTES = 64 * 2**20  # of the audio files in it
LITTLE_BYTES = 8 * 2**20  # of recordings, in less time than a process takes to import torch
DEFAULT_SPEC = LogMelSpec()
SHARD_VERSION = "short recordings kept"  # other words whenever a recording is decoded otherwise: shards are made again


class NothingUsable(ValueError):
    """None of the recordings can be used.

    Args:
        rejected: all of them, with the reasons.
        listed: the file that lists them.
    """

    def __init__(self, rejected: Sequence[Rejected], listed: Path) -> None:
        super().__init__(rejected, listed)
        self.rejected, self.listed = rejected, listed

    def __str__(self) -> str:
        most_common = Counter(r.reason for r in self.rejected).most_common(3)
        reasons = ", ".join(f"{reason} ({count})" for reason, count in most_common)
        return f"none of {len(self.rejected)} files is usable: {reasons}: see {self.listed}"


PrepareProgress = Callable[[int, int, float, int], None]  # (clips done, clips in total, seconds done, clips rejected)


def prepare(
    sources: Sequence[Path],
    out: Path,
    *,
    spec: LogMelSpec = DEFAULT_SPEC,
    num_workers: int | None = None,
    progress: PrepareProgress | None = None,
) -> Store:
    """Decode all sources and pack their log-mels into a store. A killed call resumes; a repeated one has nothing to do.

    Every listed file ends up in clips.csv or, with the reason, in rejected.csv; what was found about a file that is
    used, such as channels that cancel each other, is in notes.csv. A recording that is listed several times is decoded
    and stored once. One rejected for what may pass, such as too little memory, is tried again by the next call.

    Args:
        sources: CSV manifests and folders, see `melmask.data.manifest`.
        out: folder of the store: new, empty, or an existing store, whose unchanged shards are reused.
        spec: the front end.
        num_workers: processes that decode; 0 decodes in this process, None uses one per core, or none for few
            recordings, which are decoded by the time that a process has started.
        progress: called with (clips done, clips in total, seconds of audio done, clips rejected).

    Raises:
        ValueError: a source or argument is wrong, out holds something else, or no recording is usable.
        RuntimeError: another process is writing to out, or workers cannot start.
    """
    if num_workers is not None and num_workers < 0:
        raise ValueError(f"num_workers must not be negative, got {num_workers}: 0 decodes in this process")
    clips, rejected = list_sources(sources)
    with locked(out):
        recordings, missing = _find_recordings(clips)
        rejected += missing
        job = Job(out / "shards", spec)
        shards = _plan_shards(dict.fromkeys(recordings.values()), job)
        num_workers = _num_workers(job, shards) if num_workers is None else num_workers
        num_listings = Counter(recordings[clip.path] for clip in clips if clip.path in recordings)
        _make(job, shards, num_workers, num_listings, len(rejected), progress)
        retried = [f"{shard.key} is to be retried" for shard in shards if job.retry_mark(shard).exists()]
        inputs = digest([*(shard.key for shard in shards), *map(repr, clips), *map(repr, rejected), *retried])
        if not _is_current(out, inputs):
            _write_store(out, inputs, job, shards, clips, recordings, rejected)
        return Store.open(out)


def _num_workers(job: Job, shards: Sequence[Shard]) -> int:
    """Processes for what is still to be decoded: none if it is little, unless that failed or killed a process."""
    if any(job.marker(shard).exists() or job.retry_mark(shard).exists() for shard in shards):
        return num_cores()
    todo = [shard for shard in shards if not job.is_done(shard)]
    size_bytes = sum(recording.size_bytes for shard in todo for recording in shard.recordings)
    return 0 if size_bytes <= LITTLE_BYTES else num_cores()


def num_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Create the folder of the store and lock it against other processes; the lock ends with this process."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: choose another folder for the store")
    mark = out / STORE_MARK
    if out.is_dir() and not mark.exists() and any(out.iterdir()):
        raise ValueError(f"{out} holds files that are no store, and is left as it is: choose a new or empty folder")
    out.mkdir(parents=True, exist_ok=True)
    with mark.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RuntimeError(f"another process is writing to {out}: wait for it, or choose another folder") from error
        (out / "shards").mkdir(exist_ok=True)
        yield


def _find_recordings(clips: Iterable[Clip]) -> tuple[dict[Path, Recording], list[Rejected]]:
    """The file behind every listed path with links resolved, and the listings whose file is missing."""
    recordings: dict[Path, Recording] = {}
    real_folder = cache(Path.resolve)  # for all files in it
    missing: list[Rejected] = []
    for clip in clips:
        if clip.path in recordings:
            continue
        try:
            stat, path = clip.path.stat(), clip.path
            real = path.resolve() if path.is_symlink() else real_folder(path.parent) / path.name
            recordings[clip.path] = Recording(real, stat.st_size, stat.st_mtime_ns)
        except NotADirectoryError:
            _find_in_archive(clip, recordings, missing)
        except (OSError, ValueError) as error:  # ValueError: a name that is invalid everywhere, as with a null byte
            detail = f"{error}. Check the path, or remove the line."
            missing.append(Rejected(clip.path, "missing file", detail, clip.source))
    return recordings, missing


def _find_in_archive(clip: Clip, recordings: dict[Path, Recording], missing: list[Rejected]) -> None:
    try:
        found = find_in_archive(clip.path)
        recordings[clip.path] = Recording(found.path, found.size_bytes, found.modified_ns)
    except OSError as error:
        missing.append(
            Rejected(clip.path, "missing file", f"{error}. Check the path, or remove the line.", clip.source)
        )
    except AudioError as error:
        missing.append(Rejected(clip.path, error.reason, error.detail, clip.source))


def _plan_shards(recordings: Iterable[Recording], job: Job) -> list[Shard]:
    """Divide the recordings into shards, so that adding or removing one changes one or two shards only.

    Keys hash the reprs of the spec and the recordings. These must not change, or stores would be made again.
    """
    shards: list[Shard] = []
    current: list[Recording] = []
    settings = [str(FORMAT_VERSION), repr(job.spec), SHARD_VERSION]

    def close() -> None:
        if current:
            shards.append(Shard(digest([*settings, *map(repr, current)])[:20], tuple(current)))
            current.clear()

    num_bytes = 0
    for recording in recordings:
        current.append(recording)
        num_bytes += recording.size_bytes
        # A shard ends after certain names and not after every 256th file, which would move with each added file.
        is_boundary = zlib.crc32(os.fsencode(recording.path)) % MEAN_SHARD_FILES == 0
        if is_boundary or len(current) == MAX_SHARD_FILES or num_bytes >= MAX_SHARD_BYTES:
            close()
            num_bytes = 0
    close()
    return shards


def _make(
    job: Job,
    shards: Sequence[Shard],
    num_workers: int,
    num_listings: Mapping[Recording, int],
    num_rejected: int,
    progress: PrepareProgress | None,
) -> None:
    """Make all shards and report progress, counted in listed clips."""
    num_done, num_clips, audio_s = num_rejected, num_rejected + sum(num_listings.values()), 0.0
    remove_temporaries(job.folder)
    for marker in job.folder.glob("*.now"):
        marker.unlink()
    for mark in job.folder.glob("*.retry"):
        mark.with_suffix(".json").unlink(missing_ok=True)  # first, so that a killed call does not forget to retry
        mark.unlink()
    for shard in make_shards(job, shards, num_workers):
        for recording, entry in zip(shard.recordings, _read_description(job, shard)["entries"], strict=True):
            num_done += num_listings[recording]
            num_rejected += num_listings[recording] * ("reason" in entry)
            audio_s += entry.get("duration_s", 0.0)
        if progress:
            progress(num_done, num_clips, audio_s, num_rejected)


def _is_current(out: Path, inputs: str) -> bool:
    path = out / "store.json"
    return path.exists() and json.loads(path.read_text(encoding="utf-8")).get("inputs") == inputs


def _write_store(
    out: Path,
    inputs: str,
    job: Job,
    shards: Sequence[Shard],
    clips: Sequence[Clip],
    recordings: Mapping[Path, Recording],
    rejected: Sequence[Rejected],
) -> None:
    """Write the tables and store.json once all shards are made, and remove shards that are not needed any more."""
    entries: dict[Recording, dict[str, Any]] = {}
    descriptions = [_read_description(job, shard) for shard in shards]
    for shard, description in zip(shards, descriptions, strict=True):
        for recording, entry in zip(shard.recordings, description["entries"], strict=True):
            entries[recording] = entry | {"shard": job.log_mels(shard).name}
    stored, rejected, noted = [], list(rejected), []
    for clip in clips:
        entry = entries[recordings[clip.path]] if clip.path in recordings else {}
        if "reason" in entry:
            rejected.append(Rejected(clip.path, entry["reason"], entry["detail"], clip.source))
        elif entry:
            stored.append(StoredClip(clip, entry["shard"], entry["start_frame"], entry["num_frames"]))
            noted += [NotedClip(clip.path, kind, detail, clip.source) for kind, detail in entry.get("notes", ())]

    (out / "store.json").unlink(missing_ok=True)  # until the new one is written, the store is incomplete
    write_tables(out, stored, rejected, noted)
    if not stored:
        raise NothingUsable(rejected, out / REJECTED)
    usable = [entry for entry in entries.values() if "reason" not in entry]
    contents = [entries[recordings[item.clip.path]]["sha256"] for item in stored]
    info = describe(job.spec, descriptions, usable, stored, contents)
    write_json(out / "store.json", info | {"num_rejected": len(rejected), "inputs": inputs})
    needed = {path for shard in shards for path in (job.log_mels(shard), job.description(shard), job.retry_mark(shard))}
    for path in set(job.folder.iterdir()) - needed:
        path.unlink()


def describe(
    spec: LogMelSpec,
    shards: Sequence[Mapping[str, Any]],
    recordings: Sequence[Mapping[str, Any]],
    clips: Sequence[StoredClip],
    contents: Sequence[str],
) -> dict[str, Any]:
    """What store.json says of the log-mels of a store.

    Its fingerprint is a hash of the front end and of every clip's content, labels and position in the table, but not of
    file paths: the same data set has the same one on every machine and after copying, and any change gives another.

    Args:
        spec: the front end.
        shards: the descriptions of all shards, with the sums over their log-mels.
        recordings: the entries of those that are usable.
        clips: the table.
        contents: a hash of the content of each clip.
    """
    num_frames = sum(entry["num_frames"] for entry in recordings)
    total, total_of_squares = 0.0, 0.0
    for shard in shards:  # one by one, as `sum` rounds otherwise in newer versions of Python
        total += shard["sum"]
        total_of_squares += shard["sum_of_squares"]
    mean = total / (num_frames * spec.num_mels)
    rows = [
        repr((content, item.num_frames, item.clip.label, item.clip.fold, item.clip.group, item.clip.source))
        for item, content in zip(clips, contents, strict=True)
    ]
    return {
        "format_version": FORMAT_VERSION,
        "spec": spec.to_dict(),
        "mean": mean,
        "std": math.sqrt(total_of_squares / (num_frames * spec.num_mels) - mean**2),
        "num_clips": len(clips),
        "num_recordings": len(recordings),
        "num_frames": num_frames,
        "duration_s": sum(entry["duration_s"] for entry in recordings),
        "fingerprint": digest([str(FORMAT_VERSION), repr(spec), *rows]),
    }


def _read_description(job: Job, shard: Shard) -> dict[str, Any]:
    return json.loads(job.description(shard).read_text(encoding="utf-8"))


def digest(parts: Iterable[str]) -> str:
    """A hash of some words that hold no line breaks."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part.encode() + b"\n")  # repr and keys hold no line breaks, so parts cannot run together
    return total.hexdigest()
