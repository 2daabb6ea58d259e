"""What of a store is there and intact, and what has to be made, or made again."""

import math
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from melmask.audio import AudioError, sha256_of
from melmask.data.checks import Damaged, Verifier, read_sealed, sealed
from melmask.data.shard_files import header_frames
from melmask.data.shards import Job, Shard
from melmask.files import checksum, write_bytes

NAMED = 3  # damaged files that a message names
READ_FRAMES = 2**15  # at a time


@dataclass
class Health:
    """The state of a store's shards.

    Args:
        intact: the descriptions of shards that need not be made, by key.
        stale: finished shards that are to be made again: damaged, or a recording was changed within its size and time.
        earlier: descriptions of shards of an earlier version, which have no checksums yet, by key.
        faults: what is damaged, in words.
        changed: recordings that were changed within their size and time.
        is_current: the whole store is as it has to be.
    """

    intact: dict[str, dict[str, Any]] = field(default_factory=dict)
    stale: list[Shard] = field(default_factory=list)
    earlier: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[Damaged] = field(default_factory=list)
    changed: list[Path] = field(default_factory=list)
    is_current: bool = False

    @property
    def told(self) -> list[str]:
        """What was found, a line for each kind."""
        lines = []
        if self.faults:
            named = "; ".join(f"{fault.path.name}: {fault.fault}" for fault in self.faults[:NAMED])
            more = f"; and {len(self.faults) - NAMED:,} more" if len(self.faults) > NAMED else ""
            lines.append(f"damaged, and made again in {self.faults[0].store}: {named}{more}")
        if self.changed:
            example = f"{len(self.changed):,}, such as {self.changed[0]}"
            lines.append(f"recordings that were changed within their size and time are read again: {example}")
        if self.earlier:
            lines.append(f"shards of an earlier version get checksums: {len(self.earlier):,}")
        return lines


def inspect(job: Job, shards: Sequence[Shard], verifier: Verifier, listed: Collection[str]) -> Health:
    """Find out which shards are intact; nothing is written.

    Args:
        job: the settings that all shards share.
        shards: that the store has to have.
        verifier: compares them with their checksums; with "full", recordings are compared with their hashes as well.
        listed: names of the shards that store.json lists, which are damaged if they are missing.
    """
    health, store = Health(), job.folder.parent
    for shard in shards:
        if job.retry_mark(shard).exists():
            continue
        try:
            description = read_sealed(job.description(shard), store)
            _inspect_shard(job, shard, description, verifier, health)
        except (FileNotFoundError, NotADirectoryError) as error:
            if job.log_mels(shard).name in listed:
                health.faults.append(Damaged(Path(error.filename), "it is missing", store))
        except Damaged as error:
            health.faults.append(error)
            health.stale.append(shard)
    return health


def _inspect_shard(job: Job, shard: Shard, description: dict[str, Any], verifier: Verifier, health: Health) -> None:
    store, log_mels = job.folder.parent, job.log_mels(shard)
    if "checksum" not in description:
        check_earlier(log_mels, description, len(shard.recordings), job.spec.num_mels)
        health.earlier[shard.key] = description
        return
    if not log_mels.exists():
        raise Damaged(log_mels, "it is missing", store)
    if not verifier.is_intact(log_mels, description["checksum"]):
        raise Damaged(log_mels, "its checksum is another", store)
    changed = _changed(shard, description) if verifier.verify == "full" else []
    if changed:
        health.changed += changed
        health.stale.append(shard)
    else:
        health.intact[shard.key] = description


def _changed(shard: Shard, description: dict[str, Any]) -> list[Path]:
    """The recordings whose content is not that of the description; those that have no hash are left alone."""
    changed = []
    for recording, entry in zip(shard.recordings, description["entries"], strict=True):
        with suppress(AudioError):  # what cannot be read now is kept as it was
            if "sha256" in entry and sha256_of(recording.path) != entry["sha256"]:
                changed.append(recording.path)
    return changed


def check_earlier(path: Path, description: dict[str, Any], num_recordings: int, num_mels: int) -> None:
    """Compare a shard without a checksum with its description: its entries, its size and the sums over its values.

    Args:
        path: of the shard.
        description: of its recordings.
        num_recordings: that it has to describe.
        num_mels: width of a row.

    Raises:
        Damaged: they do not fit.
    """
    store, described = path.parents[1], path.with_suffix(".json")
    entries, num_frames = description.get("entries"), 0
    if not isinstance(entries, list) or len(entries) != num_recordings:
        raise Damaged(described, "it does not describe its recordings", store)
    for entry in entries:
        if "reason" in entry:
            continue
        if entry.get("start_frame") != num_frames or not isinstance(entry.get("num_frames"), int):
            raise Damaged(described, "its recordings do not follow each other", store)
        num_frames += entry["num_frames"]
    total = total_of_squares = 0.0
    try:
        with path.open("rb") as file:
            if header_frames(path, file, num_mels, store) != num_frames:
                raise Damaged(path, f"it has not the {num_frames:,} frames of its description", store)
            while len(values := np.fromfile(file, "<f2", READ_FRAMES * num_mels).astype(np.float64)):
                total, total_of_squares = total + values.sum(), total_of_squares + np.square(values).sum()
    except FileNotFoundError as error:
        raise Damaged(path, "it is missing", store) from error
    for name, found in (("sum", total), ("sum_of_squares", total_of_squares)):
        stated = description.get(name, math.nan)
        if not isinstance(stated, float) or not math.isclose(found, stated, rel_tol=1e-11, abs_tol=1e-4):
            raise Damaged(path, f"the {name.replace('_', ' ')} of its values is {found!r}, not {stated!r}", store)


def mend(job: Job, health: Health) -> None:
    """Remove what is to be made again, and seal what an earlier version wrote."""
    for shard in health.stale:
        job.description(shard).unlink(missing_ok=True)  # first: it marks a finished shard
        job.log_mels(shard).unlink(missing_ok=True)
    for key, description in health.earlier.items():
        seal_earlier(job.folder / f"{key}.npy", description)


def seal_earlier(path: Path, description: dict[str, Any]) -> None:
    """Give a shard of an earlier version its checksum."""
    values = {name: value for name, value in description.items() if name != "entries"}
    values |= {"checksum": checksum(path), "entries": description["entries"]}
    write_bytes(path.with_suffix(".json"), sealed(values))
