"""A packed store of procedural sound: log-mels made directly, without audio files."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float16

from melmask.data.checks import Damaged, Verifier, read_sealed, sealed
from melmask.data.health import check_earlier, seal_earlier
from melmask.data.loader import random_state
from melmask.data.manifest import STORE_MARK, Clip
from melmask.data.prepare import num_cores
from melmask.data.processes import in_processes
from melmask.data.shards import ShardWriter
from melmask.data.store import DESCRIPTION, Store, StoredClip, write_tables
from melmask.data.writing import HASHED_VERSION, describe, digest, unread, warn, write_info, writing
from melmask.demo.procedural.stream import NAME
from melmask.demo.procedural.synthesise import VERSION, leading_family, synthesise
from melmask.files import atomic_write, checksum, remove_temporaries, write_bytes, write_json
from melmask.logmel import LogMel, LogMelSpec
from melmask.runtime import one_thread

CLIP_S = (2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)  # lengths of clips, each as likely as the next
LENGTHS = 0x51  # of the random numbers of lengths, among all that a seed gives
CLIPS_PER_SHARD, CLIPS_AT_ONCE, NUM_FOLDS = 256, 32, 5
MARK = "procedural.json"  # how the store is made; written before its shards
DEFAULT_SPEC = LogMelSpec()

Progress = Callable[[int, int], None]  # (clips made, clips in total)


@dataclass(frozen=True)
class SoundShard:
    """Clips that one process makes and packs into one file.

    Args:
        folder: that it is written to.
        spec: the front end.
        seed: of the sound.
        first: number of the first clip.
        lengths_s: of each clip.
    """

    folder: Path
    spec: LogMelSpec
    seed: int
    first: int
    lengths_s: tuple[float, ...]

    @property
    def key(self) -> str:
        """Hash of everything that it depends on; the stem of its files."""
        return digest([HASHED_VERSION, repr(self.spec), *self.contents])[:20]

    @property
    def contents(self) -> list[str]:
        """A hash of what each clip is made of."""
        rate = self.spec.sample_rate_hz
        return [
            digest([repr((NAME, VERSION, self.seed, self.first + i, length_s, rate))])
            for i, length_s in enumerate(self.lengths_s)
        ]

    @property
    def log_mels(self) -> Path:
        """The .npy file with the log-mels of all its clips."""
        return self.folder / f"{self.key}.npy"

    @property
    def description(self) -> Path:
        """The .json file with each clip's place, as other shards have it; written last, so it marks a finished one."""
        return self.folder / f"{self.key}.json"

    def read(self) -> dict[str, Any]:
        """The description."""
        return read_sealed(self.description, self.folder.parent)

    def mend(self, verifier: Verifier) -> None:
        """Remove both files if they are damaged, and add a checksum if an earlier version made them.

        Raises:
            Damaged: they were, and are removed.
        """
        try:
            description = self.read()
            if "checksum" not in description:
                check_earlier(self.log_mels, description, len(self.lengths_s), self.spec.num_mels)
                seal_earlier(self.log_mels, description)
            elif not verifier.is_intact(self.log_mels, description["checksum"]):
                raise Damaged(self.log_mels, "its checksum is another", self.folder.parent)
        except (FileNotFoundError, Damaged) as error:
            for path in (self.description, self.log_mels):
                path.unlink(missing_ok=True)
            if isinstance(error, Damaged):
                raise

    def make(self) -> None:
        """Write both files, unless they are there."""
        if self.description.exists() and self.log_mels.exists():
            return
        entries: list[dict[str, Any]] = []
        with one_thread(), atomic_write(self.log_mels) as temporary, temporary.open("wb") as file:
            writer = ShardWriter(file, self.spec.num_mels)
            for frames, length_s, content in zip(self._clips(), self.lengths_s, self.contents, strict=True):
                start_frame = writer.num_frames
                is_finite = writer.append(frames)
                assert is_finite, f"clip of {self} is not finite"
                writer.commit()
                place = {"start_frame": start_frame, "num_frames": len(frames), "duration_s": length_s}
                entries.append(place | {"sha256": content, "samples": content})
            writer.finish()
            file.flush()
            totals = {"sum": writer.sum, "sum_of_squares": writer.sum_of_squares, "checksum": checksum(temporary)}
        write_bytes(self.description, sealed(totals | {"entries": entries}))

    def _clips(self) -> list[Float16[np.ndarray, "_ mel"]]:
        """The log-mels of each clip; those of equal length are made together."""
        log_mel = LogMel(self.spec)
        made: dict[int, np.ndarray] = {}
        indices: dict[float, list[int]] = defaultdict(list)
        for index, length_s in enumerate(self.lengths_s):
            indices[length_s].append(index)
        for length_s, of_length in indices.items():
            for i in range(0, len(of_length), CLIPS_AT_ONCE):
                some = of_length[i : i + CLIPS_AT_ONCE]
                numbers = [self.first + index for index in some]
                sound = synthesise(numbers, length_s, self.spec.sample_rate_hz, seed=self.seed)
                with torch.inference_mode():
                    made |= dict(zip(some, log_mel(sound).mT.half().numpy(), strict=True))
        return [made[index] for index in range(len(self.lengths_s))]


def make_store(
    out: Path,
    hours: float,
    *,
    seed: int = 0,
    spec: LogMelSpec = DEFAULT_SPEC,
    num_workers: int | None = None,
    progress: Progress | None = None,
) -> Store:
    """Make a store of procedural sound. A killed call resumes; more hours of one seed add to what is there.

    Clips last 2 to 10 s. Each one's label is the family of its first and loudest event; folds "1" to "5" come in turn.
    Nothing but log-mels is written: the paths in the table of clips are names only.

    Args:
        out: folder of the store: new, empty, or a store of procedural sound.
        hours: of sound, at least.
        seed: another gives other sound.
        spec: the front end.
        num_workers: processes; 0 computes in this process, None uses one per core.
        progress: called with the number of clips made and in total.

    Raises:
        ValueError: hours is not positive, or out holds something else.
        RuntimeError: another process is writing to out, or workers cannot start.
    """
    if not 0 < hours < math.inf:
        raise ValueError(f"hours must be positive, got {hours}")
    if (out / STORE_MARK).exists() and not (out / MARK).exists():
        raise ValueError(f"{out} holds a store of recordings: choose another folder for procedural sound")
    made_by, shards = {"version": VERSION, "seed": seed, "hours": hours}, _plan(out / "shards", hours, seed, spec)
    current = _current(out, shards, made_by)
    if current is None:
        with writing(out):
            current = _current(out, shards, made_by)  # again: another process may have made it
            if current is None:
                with unread(out):
                    return _make(out, shards, made_by, spec, num_workers, progress)
    if progress:
        progress(len(current), len(current))
    return current


def _make(
    out: Path,
    shards: Sequence[SoundShard],
    made_by: dict[str, Any],
    spec: LogMelSpec,
    num_workers: int | None,
    progress: Progress | None,
) -> Store:
    """The store, of which intact shards are kept; the folder is locked."""
    write_json(out / MARK, {**made_by, "spec": spec.to_dict()})
    remove_temporaries(out / "shards")
    verifier = Verifier(out / "shards")
    for shard in shards:
        try:
            shard.mend(verifier)
        except Damaged as error:
            warn(f"damaged, and made again in {out}: {error.path.name}: {error.fault}")
    num_done, num_clips = 0, sum(len(shard.lengths_s) for shard in shards)
    for shard in _made(shards, num_cores() if num_workers is None else num_workers):
        num_done += len(shard.lengths_s)
        if progress:
            progress(num_done, num_clips)
    _write_store(out, shards, made_by)
    return Store.open(out)


def _current(out: Path, shards: Sequence[SoundShard], made_by: dict[str, Any]) -> Store | None:
    """The store, if it is whole and holds just that: then nothing is written, nor locked."""
    try:
        store = Store.open(out)
        store.verify_shards()
    except ValueError:
        return None
    is_same = store.info.get(NAME) == made_by and store.info["inputs"] == digest(shard.key for shard in shards)
    return store if is_same and store.has_checksums else None


def _plan(folder: Path, hours: float, seed: int, spec: LogMelSpec) -> list[SoundShard]:
    """Shards of that many hours; all but the last are the same for any number of hours."""
    lengths: list[float] = []
    left_s = 3600 * hours
    while left_s > 0:
        rng = random_state(seed, LENGTHS, len(lengths))
        lengths.append(CLIP_S[int(len(CLIP_S) * rng.random())])
        left_s -= lengths[-1]
    firsts = range(0, len(lengths), CLIPS_PER_SHARD)
    return [SoundShard(folder, spec, seed, i, tuple(lengths[i : i + CLIPS_PER_SHARD])) for i in firsts]


def _made(shards: Sequence[SoundShard], num_workers: int) -> Iterator[SoundShard]:
    """Make shards, in this process or others, and yield each as it is done."""
    if num_workers == 0 or len(shards) == 1:
        for shard in shards:
            shard.make()
            yield shard
        return
    yield from (shard for shard, _ in in_processes(SoundShard.make, shards, num_workers))


def _write_store(out: Path, shards: Sequence[SoundShard], made_by: dict[str, Any]) -> None:
    """Write the tables and store.json, and remove shards that are not needed any more."""
    stored, entries = [], []
    descriptions = [shard.read() for shard in shards]
    for shard, description in zip(shards, descriptions, strict=True):
        entries += description["entries"]
        for i, (entry, length_s) in enumerate(zip(description["entries"], shard.lengths_s, strict=True)):
            number = shard.first + i
            label, fold = leading_family(number, length_s, shard.seed), str(number % NUM_FOLDS + 1)
            clip = Clip(out.absolute() / NAME / f"{shard.seed}-{number:07d}", label, fold, None, NAME)
            stored.append(StoredClip(clip, shard.log_mels.name, entry["start_frame"], entry["num_frames"]))
    (out / DESCRIPTION).unlink(missing_ok=True)  # until the new one is written, the store is incomplete
    checksums = write_tables(out, stored, [])
    info = describe(shards[0].spec, descriptions, entries, stored, [entry["sha256"] for entry in entries])
    inputs = digest(shard.key for shard in shards)
    shard_sums = {shard.log_mels.name: d["checksum"] for shard, d in zip(shards, descriptions, strict=True)}
    write_info(out, info | {"num_rejected": 0, "inputs": inputs, NAME: made_by}, checksums, shard_sums)
    needed = {path for shard in shards for path in (shard.log_mels, shard.description)}
    for path in set((out / "shards").iterdir()) - needed:
        path.unlink()
