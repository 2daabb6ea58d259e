"""What all that write a store have in common: the lock, the description, and hashes."""

import hashlib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from melmask.data.checks import Damaged, read_sealed, sealed
from melmask.data.clip_table import StoredClip
from melmask.data.manifest import STORE_MARK
from melmask.data.store import DESCRIPTION, FORMAT_VERSION, IN_USE
from melmask.files import write_bytes
from melmask.locks import Locked, exclusive
from melmask.logmel import LogMelSpec

HASHED_VERSION = "1"  # part of keys and fingerprints: it stays, whatever the format of the tables is
MIN_STD = 1e-3  # of log-mels; white noise has 1
NEARLY_SILENT = (
    "the {count:,} recordings, such as {example}, are nearly silent: all of their log-mels are {mean:.2f}, "
    "with a standard deviation of {std:.1e}, so that they cannot be normalised. Record or export them at a higher level"
)
READ_BY = "by a training or an evaluation, and would have to change: wait for that, or choose another folder"


class NearlySilent(ValueError):
    """Recordings whose log-mels do not vary."""


def warn(text: str) -> None:
    """Say something where nobody else does."""
    warnings.warn(text, stacklevel=4)


@contextmanager
def writing(out: Path, say: Callable[[str], None] = warn) -> Iterator[None]:
    """Create the folder of the store and keep other processes from writing to it, see `unread` for those that read it.

    It waits for one that writes, so that it may be up to date by then. The lock ends with this process.

    Raises:
        ValueError: out holds something else, or cannot be written to.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: choose another folder for the store")
    if out.is_dir() and not is_store(out) and any(out.iterdir()):
        raise ValueError(f"{out} holds files that are no store, and is left as it is: choose a new or empty folder")
    with ExitStack() as held:
        try:
            out.mkdir(parents=True, exist_ok=True)
            held.enter_context(_alone(out, say))
            (out / "shards").mkdir(exist_ok=True)
        except OSError as error:
            fault = f"cannot be written to ({error.strerror or error}), and is not up to date with its sources"
            raise ValueError(f"{out} {fault}: choose another folder, or free it") from error
        yield


def unread(out: Path) -> AbstractContextManager[None]:
    """Keep other processes from reading a store, while it changes.

    Raises:
        RuntimeError: one reads it.
    """
    return exclusive(out / IN_USE, f"{out} is in use, {READ_BY}")


@contextmanager
def _alone(out: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Be the only process that writes to a store; wait for another one."""
    with ExitStack() as held:
        try:
            held.enter_context(exclusive(out / STORE_MARK))
        except Locked:
            say(f"waiting for another process that writes to {out}")
            held.enter_context(exclusive(out / STORE_MARK, wait_s=math.inf))
        yield


def is_store(folder: Path) -> bool:
    """Whether a folder was written by `prepare`: it has its mark or, if that was lost, the description of a store."""
    if (folder / STORE_MARK).exists():
        return True
    try:
        return "fingerprint" in read_sealed(folder / DESCRIPTION, folder)
    except (OSError, Damaged):
        return False


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

    Raises:
        ValueError: the recordings are nearly silent, so that their log-mels cannot be normalised.
    """
    num_frames = sum(entry["num_frames"] for entry in recordings)
    total, total_of_squares = 0.0, 0.0
    for shard in shards:  # one by one, as `sum` rounds otherwise in newer versions of Python
        total += shard["sum"]
        total_of_squares += shard["sum_of_squares"]
    mean = total / (num_frames * spec.num_mels)
    std = math.sqrt(max(0.0, total_of_squares / (num_frames * spec.num_mels) - mean**2))
    if std < MIN_STD:
        raise NearlySilent(NEARLY_SILENT.format(count=len(clips), example=clips[0].clip.path, mean=mean, std=std))
    rows = [
        repr((content, item.num_frames, item.clip.label, item.clip.fold, item.clip.group, item.clip.source))
        for item, content in zip(clips, contents, strict=True)
    ]
    return {
        "format_version": FORMAT_VERSION,
        "spec": spec.to_dict(),
        "mean": mean,
        "std": std,
        "num_clips": len(clips),
        "num_recordings": len(recordings),
        "num_frames": num_frames,
        "duration_s": sum(entry["duration_s"] for entry in recordings),
        "fingerprint": digest([HASHED_VERSION, repr(spec), *rows]),
    }


def write_info(out: Path, info: dict[str, Any], tables: Mapping[str, str], shards: Mapping[str, str]) -> None:
    """Write store.json with the checksums of all tables and shards, by name."""
    write_bytes(out / DESCRIPTION, sealed(info | {"checksums": {**tables, "shards": dict(shards)}}, indent=1))


def digest(parts: Iterable[str]) -> str:
    """A hash of some words that hold no line breaks."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part.encode() + b"\n")  # repr and keys hold no line breaks, so parts cannot run together
    return total.hexdigest()
