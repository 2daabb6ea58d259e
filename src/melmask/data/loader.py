"""Packed store -> batches of random crops; each is a pure function of (seed, step, part)."""

import dataclasses
import math
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from melmask.data.mixing import Mixing
from melmask.data.store import Store
from melmask.data.stretching import Stretching
from melmask.types import Batch

PREFETCHED_BATCHES = 3
SAMPLED_FROM = 2**40  # number of the first made crop of a sample: none that a run trains on
MADE = -1  # in place of the row of a recording: the crop is made, and of none
STRETCHED = -1  # in place of a crop's start: its frames are not the recording's


@runtime_checkable
class CropMaker(Protocol):
    """Makes crops that no store holds, such as `melmask.demo.procedural.stream.ProceduralCrops`."""

    def crops(self, numbers: Sequence[int], num_frames: int) -> Float[Tensor, "b mel frame"]:
        """The log-mels of the crops of those numbers, not normalised, on any device; a number's crop is always it."""
        ...


def random_state(*key: int) -> np.random.Generator:
    """A random generator seeded by the key, with the same stream on every machine."""
    return np.random.default_rng(np.random.SeedSequence(key))


def random_seed(*key: int) -> int:
    """A seed for generators of torch, drawn from the key: the same on every machine."""
    return int(random_state(*key).integers(2**63))


def trainable_rows(store: Store, exclude: Sequence[str]) -> list[int]:
    """Rows of the store's table to train on: each file once, and none that an excluded source or fold lists.

    Copies of what is excluded are excluded too, see `Store.recordings`.

    Args:
        store: the packed data set.
        exclude: "SOURCE" or "SOURCE:FOLD".

    Raises:
        ValueError: an entry matches no clip, or no clip is left.
    """
    rows = store.clips.recordings
    if exclude:
        names = list(zip(store.clips.words("source"), store.clips.words("fold"), strict=True))
        excluded = [not {source, f"{source}:{fold or None}"}.isdisjoint(exclude) for source, fold in names]
        unmatched = set(exclude).difference(*({source, f"{source}:{fold or None}"} for source, fold in set(names)))
        if unmatched:
            known = sorted({f"{source}:{fold or None}" for source, fold in names})
            raise ValueError(f"exclude {sorted(unmatched)} matches no clip of the store, which has {known}")
        recordings = store.recordings()
        rows = rows[~np.isin(recordings[rows], recordings[excluded])]
    if not len(rows):
        raise ValueError(f"exclude {list(exclude)} leaves nothing to train on")
    return rows.tolist()


def crops_of_epoch(num_crops: int, batch_size: int, crops_per_clip: int) -> int:
    """How many of a store's crops an epoch takes.

    Args:
        num_crops: of all recordings.
        batch_size: crops of one step.
        crops_per_clip: as of `Loader`; unless it is 0, what does not fill a batch is left out of the epoch, others each
            time. A store of less than a batch is taken whole.

    >>> crops_of_epoch(2_042_985, 2048, 1) // 2048, crops_of_epoch(2_042_985, 2048, 0), crops_of_epoch(100, 2048, 1)
    (997, 2042985, 100)
    """
    whole = num_crops // batch_size * batch_size
    return whole if crops_per_clip and whole else num_crops


class Loader:
    """Random crops of a store, normalised, with padding at the value of silence marked invalid.

    An epoch visits every recording in random order, once for each crop length that it holds and at least once, so that
    long recordings are used in proportion, or an equal number of times. The batch of a step depends neither on earlier
    steps nor on the number of processes.

    The crops of a batch are sorted by length before it is divided into parts, and each part is padded only to the
    length of its longest crop. So short recordings are padded to each other's length and not to the full one.

    Args:
        store: the packed data set.
        crop_frames: maximum length of a crop.
        batch_size: crops of one step, all parts together.
        seed: of the order and the crops.
        exclude: as in `trainable_rows`.
        crops_per_clip: visits of each recording in an epoch, of which then whole batches are taken only, as the papers
            do; 0 for as many as it is long, and epochs that may end within a batch.
        column_frames: time frames of a patch; parts shorter than ``crop_frames`` are padded to a multiple of it.
        min_columns: minimum length of a part, in patches.
        maker: makes crops in place of those of recordings; None to make none.
        made_share: share of the crops of the batches that are made; 1 for a store without clips.
        mixed_share: share of the crops of the batches into which another crop of their part is mixed.
        stretched_share: share of the recorded crops of the batches that are read at another speed and pitch.
    """

    def __init__(
        self, store: Store, *, crop_frames: int, batch_size: int, seed: int, exclude: Sequence[str] = (),
        crops_per_clip: int = 0, column_frames: int = 1, min_columns: int = 1, maker: CropMaker | None = None,
        made_share: float = 0.0, mixed_share: float = 0.0, stretched_share: float = 0.0,
    ) -> None:  # fmt: skip
        self.store, self.crop_frames, self.batch_size, self.seed = store, crop_frames, batch_size, seed
        self.column_frames, self.min_columns = column_frames, min_columns
        self.maker, self.made_share = maker, made_share
        self.mixed_share, self.stretched_share = mixed_share, stretched_share
        is_recorded = len(store) > 0 or bool(exclude) or maker is None
        self.rows = rows = np.array(trainable_rows(store, exclude) if is_recorded else [], dtype=np.int64)
        num_frames = store.clips.num_frames[rows]
        visits = crops_per_clip or np.maximum(1, np.rint(num_frames / crop_frames).astype(int))
        self._slots = np.repeat(rows, visits)
        self.crops_per_epoch = crops_of_epoch(len(self._slots), batch_size, crops_per_clip)
        self._order = lru_cache(maxsize=2)(self._draw_order)

    def part(self, step: int, part: int = 0, num_parts: int = 1) -> Batch:
        """One of ``num_parts`` parts of the batch of a step; its weight is its share of the batch's patches.

        Raises:
            ValueError: the batch does not divide into that many parts.
        """
        if self.batch_size % num_parts:
            raise ValueError(
                f"batch_size {self.batch_size} does not divide into {num_parts} parts (processes x accumulate)"
            )
        first, rows = step * self.batch_size, self._rows(step)
        num_frames = np.array([self._num_frames(row) for row in rows.tolist()])
        by_length = np.argsort(num_frames, kind="stable")
        parts = np.array_split(by_length, num_parts)
        mixings = [self._mixing(step, i, len(crops)) for i, crops in enumerate(parts)]
        mine, mixing = parts[part], mixings[part]
        num_columns = -(-num_frames // self.column_frames)
        columns = max(int(num_columns[mine].max()), self.min_columns)
        longest = min(columns * self.column_frames, self.crop_frames)
        numbers = (first + mine).tolist()
        stretching = self._stretching(step, part, len(mine))
        rng = random_state(self.seed, 1, step, part)
        batch = self._crops(rows[mine].tolist(), rng, longest, numbers, mixing, stretching)
        for crops, mixed in zip(parts, mixings, strict=True):
            num_columns[crops] = mixed.lengths(num_columns[crops])
        return dataclasses.replace(batch, weight=float(num_columns[mine].sum() / num_columns.sum()))

    def sample(self, num_crops: int) -> Batch:
        """A fixed random sample of an epoch's crops, none mixed or stretched, the same in all processes."""
        rng = random_state(self.seed, 3)
        num_made = round(self.made_share * num_crops)
        slots = rng.permutation(len(self._slots))[: num_crops - num_made]
        rows = [int(row) for row in self._slots[slots]] + [MADE] * num_made
        numbers = range(SAMPLED_FROM, SAMPLED_FROM + len(rows))
        unchanged = Mixing.none(len(rows)), Stretching.none(len(rows))
        batch = self._crops(rows, rng, self.crop_frames, numbers, *unchanged)
        return dataclasses.replace(batch, log_mel=batch.log_mel.cpu())

    def _rows(self, step: int) -> Int[np.ndarray, " crop"]:
        """The recording of each crop of a step, in order; MADE where a made crop takes its place, at random."""
        first, rows = step * self.batch_size, np.full(self.batch_size, MADE)
        if self.made_share < 1:
            slots = (divmod(first + i, self.crops_per_epoch) for i in range(self.batch_size))
            rows = np.array([self._slots[self._order(epoch)[slot]] for epoch, slot in slots])
        if 0 < self.made_share < 1:
            before, after = (math.floor(n * self.batch_size * self.made_share + 1e-9) for n in (step, step + 1))
            rows[random_state(self.seed, 5, step).permutation(self.batch_size)[: after - before]] = MADE
        return rows

    def _num_frames(self, row: int) -> int:
        """Frames of a crop of a recording, or of a made one."""
        return self.crop_frames if row == MADE else min(int(self.store.clips.num_frames[row]), self.crop_frames)

    def _mixing(self, step: int, part: int, num_crops: int) -> Mixing:
        if not self.mixed_share:
            return Mixing.none(num_crops)
        return Mixing.draw(random_state(self.seed, 6, step, part), num_crops, self.mixed_share)

    def _stretching(self, step: int, part: int, num_crops: int) -> Stretching:
        if not self.stretched_share:
            return Stretching.none(num_crops)
        return Stretching.draw(random_state(self.seed, 7, step, part), num_crops, self.stretched_share)

    def _crops(
        self, rows: Sequence[int], rng: np.random.Generator, crop_frames: int, numbers: Sequence[int], mixing: Mixing,
        stretching: Stretching,
    ) -> Batch:  # fmt: skip
        """A random crop of each recording, stretched; made crops of those numbers where there is none; all mixed."""
        crops = np.zeros((len(rows), crop_frames, self.store.spec.num_mels), dtype=np.float16)
        num_valid, starts = np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows), dtype=np.int64)
        for i, row in enumerate(rows):
            if row == MADE:
                num_valid[i] = crop_frames
                continue
            num_frames = int(self.store.clips.num_frames[row])
            length = min(num_frames, crop_frames)
            read = stretching.frames_to_read(i, length, num_frames)
            start = int(rng.integers(num_frames - read + 1))
            own = self.store.log_mel(row, start, start + read)
            if stretching.chosen[i]:
                own, start = stretching.stretch(i, own, length), STRETCHED
            crops[i, :length] = own
            num_valid[i], starts[i] = length, start
        # All at once and by torch, which converts float16 to float32 in a third of NumPy's time.
        log_mel = torch.from_numpy(crops).transpose(1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        made = [i for i, row in enumerate(rows) if row == MADE]
        if made and self.maker is not None:
            crops_made = self.maker.crops([numbers[i] for i in made], crop_frames)
            log_mel = log_mel.to(crops_made.device)
            log_mel[made] = crops_made
        if mixing.chosen.any():
            _pad(log_mel, num_valid, self.store.spec.silence)
            log_mel, num_valid = mixing.mix(log_mel), mixing.lengths(num_valid)
        log_mel.sub_(self.store.mean).div_(self.store.std)
        _pad(log_mel, num_valid, (self.store.spec.silence - self.store.mean) / self.store.std)
        return Batch(log_mel, torch.from_numpy(num_valid), torch.tensor(rows), torch.from_numpy(starts))

    def prefetch(self, keys: Iterator[tuple[int, int, int]]) -> Generator[Batch, None, None]:
        """The parts for a sequence of (step, part, num_parts), prefetched by one background thread."""
        waiting: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="melmask-loader") as reader:
            try:
                for key in keys:
                    waiting.append(reader.submit(self.part, *key))
                    if len(waiting) > PREFETCHED_BATCHES:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _draw_order(self, epoch: int) -> np.ndarray:
        return random_state(self.seed, 0, epoch).permutation(len(self._slots))


def _pad(log_mel: Float[Tensor, "b mel frame"], num_valid: Int[np.ndarray, " b"], value: float) -> None:
    """Set all frames from the valid length of each crop on, in place."""
    for crop, length in zip(log_mel, num_valid.tolist(), strict=True):
        crop[:, length:] = value
