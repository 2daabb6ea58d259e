"""Encoders of waveforms of any make, as encoders of a store's recordings.

Each recording is decoded again from its file, at the rate that the encoder asks for.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32

from melmask.data.store import Store
from melmask.encoders.fixed_length import waveform
from melmask.logmel import LogMelSpec

BATCH_S = 40.0  # of audio that go through an encoder at once

Waveforms = Float32[np.ndarray, "b sample"]


@runtime_checkable
class EncodesWaveforms(Protocol):
    """A Python object that `wrap` makes an encoder of."""

    def encode(self, batch: Waveforms, sample_rate: int) -> Any:
        """A vector [b, dim] for each waveform, as an array or a tensor; samples lie in -1..1."""
        ...


@dataclass(frozen=True, eq=False)
class WaveformEncoder:
    """An encoder of waveforms, as a `melmask.encoders.base.AudioEncoder`.

    Waveforms are only ever batched with others of exactly the same length, and nothing is padded for company's sake.
    A recording longer than ``max_samples`` is heard in the fewest windows of that length that cover it, evenly spaced;
    its vector is the mean of theirs.

    Args:
        name: for tables.
        identity: a hash of weights and settings; empty if they are not known, and then nothing is cached.
        sample_rate_hz: the rate that waveforms are decoded at.
        encode: waveforms of one length -> a vector each.
        max_samples: the longest that it hears; None for any length.
        is_fixed: whether it hears nothing shorter either; shorter recordings then end in zeros.
        max_batch: waveforms in one call, at most.
    """

    name: str
    identity: str
    sample_rate_hz: int
    encode: Callable[[Waveforms], np.ndarray]
    max_samples: int | None = None
    is_fixed: bool = False
    max_batch: int = 64
    spec: ClassVar[LogMelSpec | None] = None

    def embed_store(
        self,
        store: Store,
        rows: Sequence[int] | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Float32[np.ndarray, "clip dim"]:
        """One vector for each of the store's recordings, decoded from their files.

        Raises:
            ValueError: a file has gone since the store was made, or the encoder breaks its contract.
        """
        rows = range(len(store)) if rows is None else rows
        vectors: dict[int, list[np.ndarray]] = defaultdict(list)
        for batch in self._batches(store, rows):
            encoded = self._encode(np.stack([window for _, window in batch]))
            for (position, _), vector in zip(batch, encoded, strict=True):
                vectors[position].append(vector)
            progress(len(vectors), len(rows))
        lengths = {len(vector) for windows in vectors.values() for vector in windows}
        if len(lengths) > 1:
            raise ValueError(f"{self.name} gives vectors of different lengths: {sorted(lengths)}; it must give one")
        means = [np.mean(vectors[position], axis=0, dtype=np.float64) for position in range(len(rows))]
        return np.stack(means).astype(np.float32)

    def _batches(self, store: Store, rows: Sequence[int]) -> Iterator[list[tuple[int, np.ndarray]]]:
        """(Position in rows, window) in groups of one length; clips of few frames first, so that little waits."""

        def num_frames(position: int) -> int:
            return store.clips[rows[position]].num_frames

        for _, alike in groupby(sorted(range(len(rows)), key=num_frames), num_frames):
            waiting: dict[int, list[tuple[int, np.ndarray]]] = defaultdict(list)
            for position in alike:
                for window in self._windows(waveform(store, rows[position], self.sample_rate_hz)):
                    waiting[len(window)].append((position, window))
                    if len(waiting[len(window)]) >= self._batch_size(len(window)):
                        yield waiting.pop(len(window))
            yield from waiting.values()

    def _batch_size(self, num_samples: int) -> int:
        return max(1, min(self.max_batch, int(BATCH_S * self.sample_rate_hz / num_samples)))

    def _windows(self, wave: Float32[np.ndarray, " sample"]) -> Iterable[np.ndarray]:
        if self.max_samples is None:
            return [wave]
        excess = len(wave) - self.max_samples
        if excess <= 0:
            return [np.pad(wave, (0, -excess))] if self.is_fixed else [wave]
        starts = np.linspace(0, excess, -(-len(wave) // self.max_samples)).round().astype(int)
        return (wave[start : start + self.max_samples] for start in starts)

    def _encode(self, waves: Waveforms) -> np.ndarray:
        vectors = np.asarray(self.encode(waves))
        if vectors.ndim != 2 or len(vectors) != len(waves):
            raise ValueError(
                f"{self.name} makes an array of shape {vectors.shape} of {len(waves)} waveforms: "
                f"one vector each is needed, so [{len(waves)}, dim]"
            )
        return vectors


def wrap(obj: EncodesWaveforms, sample_rate_hz: int, *, name: str = "", identity: str = "") -> WaveformEncoder:
    """Any object with ``encode(batch, sample_rate)`` as an encoder to be judged.

    Args:
        obj: takes float32 waveforms [b, sample] of one length; gives [b, dim], as an array or a tensor.
        sample_rate_hz: the rate it wants.
        name: for tables; the name of its class if empty.
        identity: what changes whenever its vectors would, such as a hash of its weights. Empty: nothing is cached.

    >>> class Loudness:
    ...     def encode(self, batch, sample_rate):
    ...         return np.abs(batch).mean(axis=1, keepdims=True)
    >>> wrap(Loudness(), 16_000).name
    'Loudness'
    """

    def encode(waves: Waveforms) -> np.ndarray:
        return as_array(obj.encode(waves, sample_rate_hz))

    return WaveformEncoder(name or type(obj).__name__, identity, sample_rate_hz, encode)


def as_array(vectors: Any) -> np.ndarray:
    """An array of what may be a tensor, on any device and of any precision."""
    return vectors.detach().float().cpu().numpy() if isinstance(vectors, torch.Tensor) else np.asarray(vectors)
