"""Audio files -> a packed store, in parallel, resumable, with a line for every file that could not be used.

The recordings are cut into units. A worker turns a unit into one shard and a JSON beside it, named after a hash of the
spec and of every file's path, size and time of change: what is there is done, and what has changed has another name.
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

from melmask.data.manifest import STORE_MARK, Clip, Rejected, list_sources
from melmask.data.shards import Job, Recording, Unit, make_units
from melmask.data.store import FORMAT_VERSION, Store, StoredClip, write_tables
from melmask.files import write_json
from melmask.logmel import LogMelSpec

# A kill loses the units being made, so one should take no more than seconds; a shard is one memory map, and waits for
# the disk twice (10 ms, in which 16 clips of 5 s could be prepared), so it should be large.
MEAN_UNIT_FILES, MAX_UNIT_FILES, MAX_UNIT_BYTES = 256, 512, 64 * 2**20
DEFAULT_SPEC = LogMelSpec()

Progress = Callable[[int, int, float, int], None]


def prepare(
    sources: Sequence[Path],
    out: Path,
    *,
    spec: LogMelSpec = DEFAULT_SPEC,
    num_workers: int | None = None,
    min_frames: int = 16,
    progress: Progress | None = None,
) -> Store:
    """Decode all sources and pack their log-mels into a store; a call that was killed resumes, a repeated one returns.

    Every listing ends in clips.csv or, with its reason, in rejected.csv. A recording that is listed several times is
    decoded and stored once.

    Args:
        sources: CSV manifests and folders, see `melmask.data.manifest`.
        out: folder of the store: new, empty, or a store, of which is reused what still holds.
        spec: the front end.
        num_workers: processes that decode; 0 decodes in this process, None takes one per core.
        min_frames: shorter recordings are rejected; 16 frames are one patch.
        progress: called with (clips done, clips in all, seconds of audio done, clips rejected).

    Raises:
        ValueError: a source or argument is wrong, out holds something else, or no recording is usable.
        RuntimeError: another process is writing to out, or workers cannot start.
    """
    if min_frames < 1:
        raise ValueError(f"min_frames must be at least 1, got {min_frames}")
    num_workers = _num_cores() if num_workers is None else num_workers
    if num_workers < 0:
        raise ValueError(f"num_workers must not be negative, got {num_workers}: 0 decodes in this process")
    clips, rejected = list_sources(sources)
    with _claimed(out):
        recordings, missing = _find_recordings(clips)
        rejected += missing
        job = Job(out / "shards", spec, min_frames)
        units = _cut_units(dict.fromkeys(recordings.values()), job)
        num_listings = Counter(recordings[clip.path] for clip in clips if clip.path in recordings)
        _make(job, units, num_workers, num_listings, len(rejected), progress)
        inputs = _digest([*(unit.key for unit in units), *map(repr, clips), *map(repr, rejected)])
        if not _is_current(out, inputs):
            _write_store(out, inputs, job, units, clips, recordings, rejected)
        return Store.open(out)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _claimed(out: Path) -> Iterator[None]:
    """Make ``out`` a folder that only we write to; the lock goes with the process, however it ends."""
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
    """The real file behind every listed path, and the listings that have none."""
    recordings: dict[Path, Recording] = {}
    real_folder = cache(Path.resolve)  # for all files in it
    missing = []
    for clip in clips:
        if clip.path in recordings:
            continue
        try:
            stat, path = clip.path.stat(), clip.path
            real = path.resolve() if path.is_symlink() else real_folder(path.parent) / path.name
            recordings[clip.path] = Recording(real, stat.st_size, stat.st_mtime_ns)
        except (OSError, ValueError) as error:  # ValueError: no operating system could have such a name
            detail = f"{error}. Check the path, or remove the line."
            missing.append(Rejected(clip.path, "missing file", detail, clip.source))
    return recordings, missing


def _cut_units(recordings: Iterable[Recording], job: Job) -> list[Unit]:
    units: list[Unit] = []
    current: list[Recording] = []
    settings = [str(FORMAT_VERSION), repr(job.spec), str(job.min_frames)]

    def cut() -> None:
        if current:
            units.append(Unit(_digest([*settings, *map(repr, current)])[:20], tuple(current)))
            current.clear()

    num_bytes = 0
    for recording in recordings:
        current.append(recording)
        num_bytes += recording.size_bytes
        # Not after every 256th file, but after names that say so: one file more changes one unit, not all that follow.
        name_says_so = zlib.crc32(os.fsencode(recording.path)) % MEAN_UNIT_FILES == 0
        if name_says_so or len(current) == MAX_UNIT_FILES or num_bytes >= MAX_UNIT_BYTES:
            cut()
            num_bytes = 0
    cut()
    return units


def _make(
    job: Job,
    units: Sequence[Unit],
    num_workers: int,
    num_listings: Mapping[Recording, int],
    num_rejected: int,
    progress: Progress | None,
) -> None:
    """Make all units and pass progress on, counted in listings."""
    num_done, num_clips, audio_s = num_rejected, num_rejected + sum(num_listings.values()), 0.0
    for stale in [*job.folder.glob("*.now"), *job.folder.glob("*.tmp")]:
        stale.unlink()
    for unit in make_units(job, units, num_workers):
        for recording, entry in zip(unit.recordings, _read_description(job, unit)["entries"], strict=True):
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
    units: Sequence[Unit],
    clips: Sequence[Clip],
    recordings: Mapping[Path, Recording],
    rejected: Sequence[Rejected],
) -> None:
    """Write the tables and store.json of a store whose units are all made, and remove the shards of former calls."""
    entries: dict[Recording, dict[str, Any]] = {}
    total, total_of_squares = 0.0, 0.0
    for unit in units:
        description = _read_description(job, unit)
        total += description["sum"]
        total_of_squares += description["sum_of_squares"]
        for recording, entry in zip(unit.recordings, description["entries"], strict=True):
            entries[recording] = entry | {"shard": job.shard(unit).name}
    stored, rejected = [], list(rejected)
    for clip in clips:
        entry = entries[recordings[clip.path]] if clip.path in recordings else {}
        if "reason" in entry:
            rejected.append(Rejected(clip.path, entry["reason"], entry["detail"], clip.source))
        elif entry:
            stored.append(StoredClip(clip, entry["shard"], entry["start_frame"], entry["num_frames"]))

    (out / "store.json").unlink(missing_ok=True)  # until the new one is written, the folder is no whole store
    write_tables(out, stored, rejected)
    if not stored:
        most_common = Counter(r.reason for r in rejected).most_common(3)
        reasons = ", ".join(f"{reason} ({count})" for reason, count in most_common)
        raise ValueError(f"none of {len(rejected)} files is usable: {reasons}: see {out / 'rejected.csv'}")
    usable = [entry for entry in entries.values() if "reason" not in entry]
    num_frames = sum(entry["num_frames"] for entry in usable)
    mean = total / (num_frames * job.spec.num_mels)
    variance = total_of_squares / (num_frames * job.spec.num_mels) - mean**2
    info = {
        "format_version": FORMAT_VERSION,
        "spec": job.spec.to_dict(),
        "mean": mean,
        "std": math.sqrt(variance),
        "num_clips": len(stored),
        "num_recordings": len(usable),
        "num_frames": num_frames,
        "duration_s": sum(entry["duration_s"] for entry in usable),
        "num_rejected": len(rejected),
        "fingerprint": _fingerprint(job.spec, stored, entries, recordings),
        "inputs": inputs,
    }
    write_json(out / "store.json", info)
    needed = {path for unit in units for path in (job.shard(unit), job.description(unit))}
    for path in set(job.folder.iterdir()) - needed:
        path.unlink()


def _fingerprint(
    spec: LogMelSpec,
    stored: Sequence[StoredClip],
    entries: Mapping[Recording, Mapping[str, Any]],
    recordings: Mapping[Path, Recording],
) -> str:
    """Hash of the front end and of every clip's content, labels and position, but not of where the files lie.

    So the same data set has the same fingerprint on every machine and after copying, and any change of it has another.
    """
    rows = []
    for item in stored:
        clip = item.clip
        content = entries[recordings[clip.path]]["sha256"]
        rows.append(repr((content, item.num_frames, clip.label, clip.fold, clip.group, clip.source)))
    return _digest([str(FORMAT_VERSION), repr(spec), *rows])


def _read_description(job: Job, unit: Unit) -> dict[str, Any]:
    return json.loads(job.description(unit).read_text(encoding="utf-8"))


def _digest(parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\n")  # repr and keys hold no line breaks, so parts cannot run together
    return digest.hexdigest()
