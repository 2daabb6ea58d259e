"""Audio files -> a packed store, in parallel and resumable, with a reason for every file that could not be used.

The recordings are divided into shards. A shard's files are named by a hash of the front end and of each recording's
path, size and modification time. So a shard whose files exist is finished, and a changed recording gives a new name.
"""

import os
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from xxhash import xxh3_128

from melmask.audio import AudioError, find_in_archive
from melmask.data.archives import LOG_MEL_EXTENSION
from melmask.data.checks import Damaged, Verifier, Verify, read_sealed
from melmask.data.health import Health, inspect, mend
from melmask.data.manifest import STORE_MARK, Clip, Rejected, list_sources
from melmask.data.shards import Job, Recording, Shard, make_shards
from melmask.data.store import DESCRIPTION, REJECTED, NotedClip, Store, StoredClip, read_info, write_tables
from melmask.data.writing import HASHED_VERSION, describe, digest, unread, warn, write_info, writing
from melmask.files import TEMPORARY
from melmask.locks import Locked, exclusive
from melmask.logmel import LogMelSpec
from melmask.runtime import memory_of

# A kill loses the shards that are being made, so each should take no more than seconds. On the other hand, each is a
# memory map and waits for the disk twice (10 ms, in which 16 clips of 5 s could be prepared), so few are better.
MEAN_SHARD_FILES, MAX_SHARD_FILES = 256, 512
MAX_SHARD_BYTES = 64 * 2**20  # of the audio files in it
WORKER_GIB, MEMORY_SHARE = 0.75, 0.75  # of a process that decodes, measured with half to spare; of the machine
LITTLE_BYTES = 8 * 2**20  # of MP3, decoded in less time than processes take to import torch
SHARE_OF_MP3 = 1 / 32  # of the time that a byte of MP3 takes, at most, a byte of these takes
QUICKLY_READ = (".wav", ".flac", ".aif", ".aiff", LOG_MEL_EXTENSION)
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


@dataclass(frozen=True)
class Plan:
    """What a store has to hold.

    Args:
        out: its folder.
        job: the settings of its shards.
        clips: all listings.
        recordings: the file behind each listed path.
        rejected: listings that cannot be used, as known before decoding.
        shards: with all recordings.
    """

    out: Path
    job: Job
    clips: Sequence[Clip]
    recordings: Mapping[Path, Recording]
    rejected: Sequence[Rejected]
    shards: Sequence[Shard]

    @property
    def inputs(self) -> str:
        """A hash of all this, and of what is to be retried."""
        retried = [f"{shard.key} is to be retried" for shard in self.shards if self.job.retry_mark(shard).exists()]
        keys = [shard.key for shard in self.shards]
        return digest([*keys, *map(repr, self.clips), *map(repr, self.rejected), *retried])


def prepare(
    sources: Sequence[Path],
    out: Path,
    *,
    spec: LogMelSpec = DEFAULT_SPEC,
    num_workers: int | None = None,
    verify: Verify = "first",
    max_memory_gib: float | None = None,
    progress: PrepareProgress | None = None,
    say: Callable[[str], None] | None = None,
    listed: tuple[Sequence[Clip], Sequence[Rejected]] | None = None,
) -> Store:
    """Decode all sources and pack their log-mels into a store. A killed call resumes; a repeated one has nothing to do.

    Every listed file ends up among the clips or, with the reason, in rejected.csv; what was found about a file that is
    used, such as channels that cancel each other, is in notes.csv. A recording that is listed several times is decoded
    and stored once. One rejected for what may pass, such as too little memory, is tried again by the next call.

    What is damaged is made again, and nothing else. A store that is up to date is only read, so that it may lie on a
    disk that cannot be written to, and be in use. Of two calls at once for one store the second waits.

    Args:
        sources: CSV manifests and folders, see `melmask.data.manifest`.
        out: folder of the store: new, empty, or an existing store, whose unchanged shards are reused.
        spec: the front end.
        num_workers: processes that decode; 0 decodes in this process, None uses one per core, or none for few
            recordings, which are decoded by the time that a process has started.
        verify: what is compared with its checksum: "first" what was not compared before, or was changed since; "full"
            everything, and recordings too, which may have been changed within their size and time; "none" nothing.
        max_memory_gib: for the processes that decode, in GiB: as many of them as fit, at WORKER_GIB each, whatever the
            length of recordings. None for three quarters of the machine's.
        progress: called with (clips done, clips in total, seconds of audio done, clips rejected).
        say: called with what is made again, and what the call waits for; None to warn.
        listed: the clips, and what was rejected when they were listed; sources are not looked at then.

    Raises:
        ValueError: a source or argument is wrong, out holds something else, no recording is usable, or all of them are
            nearly silent.
        RuntimeError: another process reads the store, which has to be changed, or workers cannot start.
    """
    if num_workers is not None and num_workers < 0:
        raise ValueError(f"num_workers must not be negative, got {num_workers}: 0 decodes in this process")
    max_workers = _num_fitting(max_memory_gib)
    say = say or warn
    plan, verifier = _plan(*(listed or list_sources(sources)), out, spec), Verifier(out / "shards", verify)
    health = _inspect(plan, verifier)
    if health.is_current:
        _clean(plan)
        if progress:
            progress(*_totals(plan, health))
        return Store.open(out)
    with writing(out, say):
        health = _inspect(plan, verifier)  # again: another process may have changed it
        if not health.is_current:
            with unread(out):
                for line in health.told:
                    say(line)
                mend(plan.job, health)
                _make(plan, num_workers, max_workers, progress, verifier)
                _write_store(plan)
                verifier.settle({path.name for path in plan.job.folder.iterdir()})
        return Store.open(out)


def _plan(clips: Sequence[Clip], rejected: Sequence[Rejected], out: Path, spec: LogMelSpec) -> Plan:
    recordings, missing = _find_recordings(clips)
    job = Job(out / "shards", spec)
    shards = _plan_shards(dict.fromkeys(recordings.values()), job)
    return Plan(out, job, clips, recordings, [*rejected, *missing], shards)


def _inspect(plan: Plan, verifier: Verifier) -> Health:
    """The state of the shards, and whether tables and description are those of the plan and intact."""
    info: dict[str, Any] = {}
    faults: list[Damaged] = []
    if (plan.out / DESCRIPTION).exists():
        try:
            info = read_info(plan.out)
        except Damaged as error:
            faults.append(error)
        except ValueError:  # another version of the format
            pass
    checksums = info.get("checksums", {"shards": {}})
    health = inspect(plan.job, plan.shards, verifier, checksums["shards"])
    health.faults += faults
    for name, expected in checksums.items():
        if name != "shards" and verifier.verify != "none":
            path = plan.out / name
            if not path.exists():
                health.faults.append(Damaged(path, "it is missing", plan.out))
            elif xxh3_128(path.read_bytes()).hexdigest() != expected:
                health.faults.append(Damaged(path, "its checksum is another", plan.out))
    made = {f"{key}.npy": description["checksum"] for key, description in health.intact.items()}
    is_whole = len(made) == len(plan.shards) and not (health.faults or health.stale or health.earlier)
    health.is_current = is_whole and info.get("inputs") == plan.inputs and checksums["shards"] == made
    return health


def _totals(plan: Plan, health: Health) -> tuple[int, int, float, int]:
    """The progress of a store that is up to date."""
    num_listings = Counter(plan.recordings[clip.path] for clip in plan.clips if clip.path in plan.recordings)
    num_rejected, audio_s = len(plan.rejected), 0.0
    for shard in plan.shards:
        for recording, entry in zip(shard.recordings, health.intact[shard.key]["entries"], strict=True):
            num_rejected += num_listings[recording] * ("reason" in entry)
            audio_s += entry.get("duration_s", 0.0)
    num_clips = len(plan.rejected) + sum(num_listings.values())
    return num_clips, num_clips, audio_s, num_rejected


def _num_workers(job: Job, shards: Sequence[Shard]) -> int:
    """Processes for what is still to be decoded: none if it is little, unless that failed or killed a process."""
    if any(job.marker(shard).exists() or job.retry_mark(shard).exists() for shard in shards):
        return num_cores()
    todo = [shard for shard in shards if not job.is_done(shard)]
    as_mp3_bytes = sum(
        recording.size_bytes * (SHARE_OF_MP3 if recording.path.suffix.lower() in QUICKLY_READ else 1.0)
        for shard in todo
        for recording in shard.recordings
    )
    return 0 if as_mp3_bytes <= LITTLE_BYTES else num_cores()


def _num_fitting(max_memory_gib: float | None) -> int:
    """How many processes that decode fit into so much memory.

    Raises:
        ValueError: not one.
    """
    if max_memory_gib is None:
        return max(1, int(MEMORY_SHARE * memory_of(torch.device("cpu")) / 2**30 / WORKER_GIB))
    if not max_memory_gib >= WORKER_GIB:
        raise ValueError(
            f"a maximum of {max_memory_gib:g} GiB of memory is too little to decode in: give at least {WORKER_GIB}"
        )
    return int(min(max_memory_gib / WORKER_GIB, sys.maxsize))


def num_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _clean(plan: Plan) -> None:
    """Remove what killed processes left, unless another process is writing, or nothing can be written."""
    if _leftovers(plan):
        with suppress(Locked, OSError), exclusive(plan.out / STORE_MARK):
            for path in _leftovers(plan):
                path.unlink(missing_ok=True)


def _leftovers(plan: Plan) -> set[Path]:
    """Shards that are not needed any more, and files that were being written."""
    job = plan.job
    files = [(job.log_mels(shard), job.description(shard), job.retry_mark(shard)) for shard in plan.shards]
    return {*job.folder.iterdir(), *plan.out.glob(f"*{TEMPORARY}")} - {path for several in files for path in several}


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
    settings = [HASHED_VERSION, repr(job.spec), SHARD_VERSION]

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
    plan: Plan, num_workers: int | None, max_workers: int, progress: PrepareProgress | None, verifier: Verifier
) -> None:
    """Make all shards and report progress, counted in listed clips."""
    job = plan.job
    num_listings = Counter(plan.recordings[clip.path] for clip in plan.clips if clip.path in plan.recordings)
    num_done, audio_s = len(plan.rejected), 0.0
    num_rejected, num_clips = num_done, num_done + sum(num_listings.values())
    num_workers = min(_num_workers(job, plan.shards) if num_workers is None else num_workers, max_workers)
    for path in (*job.folder.glob(f"*{TEMPORARY}"), *job.folder.glob("*.now")):
        path.unlink()
    for mark in job.folder.glob("*.retry"):
        mark.with_suffix(".json").unlink(missing_ok=True)  # first, so that a killed call does not forget to retry
        mark.unlink()
    was_done = {shard.key for shard in plan.shards if job.is_done(shard)}
    for shard in make_shards(job, plan.shards, num_workers):
        description = _read_description(job, shard)
        if shard.key not in was_done:
            verifier.trust(job.log_mels(shard), description["checksum"])
        for recording, entry in zip(shard.recordings, description["entries"], strict=True):
            num_done += num_listings[recording]
            num_rejected += num_listings[recording] * ("reason" in entry)
            audio_s += entry.get("duration_s", 0.0)
        if progress:
            progress(num_done, num_clips, audio_s, num_rejected)


def _write_store(plan: Plan) -> None:
    """Write the tables and store.json once all shards are made, and remove shards that are not needed any more."""
    out, job, shards, recordings = plan.out, plan.job, plan.shards, plan.recordings
    entries: dict[Recording, dict[str, Any]] = {}
    descriptions = [_read_description(job, shard) for shard in shards]
    for shard, description in zip(shards, descriptions, strict=True):
        for recording, entry in zip(shard.recordings, description["entries"], strict=True):
            entries[recording] = entry | {"shard": job.log_mels(shard).name}
    stored, rejected, noted = [], list(plan.rejected), []
    for clip in plan.clips:
        entry = entries[recordings[clip.path]] if clip.path in recordings else {}
        if "reason" in entry:
            rejected.append(Rejected(clip.path, entry["reason"], entry["detail"], clip.source))
        elif entry:
            stored.append(StoredClip(clip, entry["shard"], entry["start_frame"], entry["num_frames"]))
            noted += [NotedClip(clip.path, kind, detail, clip.source) for kind, detail in entry.get("notes", ())]

    (out / DESCRIPTION).unlink(missing_ok=True)  # until the new one is written, the store is incomplete
    checksums = write_tables(out, stored, rejected, noted)
    if not stored:
        raise NothingUsable(rejected, out / REJECTED)
    usable = [entry for entry in entries.values() if "reason" not in entry]
    contents = [entries[recordings[item.clip.path]]["sha256"] for item in stored]
    info = describe(job.spec, descriptions, usable, stored, contents)
    shard_sums = {job.log_mels(shard).name: d["checksum"] for shard, d in zip(shards, descriptions, strict=True)}
    info |= {"num_rejected": len(rejected), "inputs": plan.inputs}
    write_info(out, info, checksums, shard_sums)
    for path in _leftovers(plan):
        path.unlink()


def _read_description(job: Job, shard: Shard) -> dict[str, Any]:
    return read_sealed(job.description(shard), job.folder.parent)
