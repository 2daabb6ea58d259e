"""Encoders of waveforms of any make, as encoders of a store's recordings, which are decoded again at their rate."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32

from melmask.data.store import Store
from melmask.encoders.base import ClipEncoder, Progress, no_progress
from melmask.encoders.fixed_length import waveform
from melmask.encoders.recordings import Audio, is_one, waveforms
from melmask.encoders.timesteps import finite
from melmask.logmel import LogMelSpec
from melmask.threads import following_load

BATCH_S = 40.0  # of audio in one batch
MIN_S = 0.15  # of audio: many encoders take nothing shorter, so that it is zero-padded

Waveforms = Float32[np.ndarray, "b sample"]
Batch = list[tuple[int, Float32[np.ndarray, " _"]]]  # windows of one length, each with its recording's number


@runtime_checkable
class EncodesWaveforms(Protocol):
    """A Python object that `wrap` makes an encoder of."""

    def encode(self, batch: Waveforms, sample_rate: int) -> Any:
        """A vector [b, dim] for each waveform, as an array or a tensor; samples lie in -1..1."""
        ...


@dataclass(frozen=True, eq=False)
class WaveformEncoder(ClipEncoder):
    """An encoder of waveforms, as a `melmask.encoders.base.AudioEncoder`.

    Waveforms are only batched with others of exactly the same length, and never padded to a common one. A recording
    longer than ``max_samples`` is read in the fewest windows of that length that cover it, evenly spaced; its vector is
    the mean of theirs. One shorter than `MIN_S` is zero-padded at its end, as many encoders take none so short.

    Args:
        name: in tables.
        identity: a hash of weights and settings; empty if they are not known, and then nothing is cached.
        sample_rate_hz: the rate that recordings are resampled to.
        encode: waveforms of one length -> a vector each.
        max_samples: the longest input; None for any length.
        is_fixed: whether shorter inputs are not taken either; shorter recordings are then zero-padded at the end.
        max_batch: waveforms in one call, at most.
    """

    name: str
    identity: str
    sample_rate_hz: int = field()  # without the default of ClipEncoder
    encode: Callable[[Waveforms], np.ndarray]
    max_samples: int | None = None
    is_fixed: bool = False
    max_batch: int = 64

    @property
    def spec(self) -> LogMelSpec | None:
        """None: it reads the files behind a store of any log-mel settings."""
        return None

    def embed(
        self, audio: Audio, sample_rate_hz: int | float | None = None
    ) -> Float32[np.ndarray, "clip dim"] | Float32[np.ndarray, " dim"]:
        """One vector for each recording, or one vector for a single recording; see `AudioEncoder.embed`."""

        def batches() -> Iterator[Batch]:
            waves = enumerate(wave for _, wave in waveforms(audio, sample_rate_hz, self.sample_rate_hz))
            while some := list(islice(waves, self.max_batch)):
                yield from self._batches(some)

        vectors = self._embedded(batches())
        return vectors[0] if is_one(audio) else vectors

    def embed_store(
        self, store: Store, rows: Sequence[int] | None = None, progress: Progress = no_progress
    ) -> Float32[np.ndarray, "clip dim"]:
        """One vector for each of the store's recordings, decoded from their files.

        Raises:
            ValueError: a file has gone since the store was made, or the encoder breaks its contract.
        """
        chosen = range(len(store)) if rows is None else rows

        def num_frames(number: int) -> int:
            return int(store.clips.num_frames[chosen[number]])

        def batches() -> Iterator[Batch]:
            # Recordings of few frames first, and only those of equal length together, so that few waveforms are held.
            for _, alike in groupby(sorted(range(len(chosen)), key=num_frames), num_frames):
                yield from self._batches((i, waveform(store, chosen[i], self.sample_rate_hz)) for i in alike)

        return self._embedded(batches(), lambda done: progress(done, len(chosen)))

    def _embedded(
        self, batches: Iterable[Batch], report: Callable[[int], None] = lambda done: None
    ) -> Float32[np.ndarray, "clip dim"]:
        """The mean vector of each recording's windows, in the order of the recordings' numbers."""
        vectors: dict[int, list[np.ndarray]] = defaultdict(list)
        with following_load() as threads:
            for batch in batches:
                windows = np.stack([window for _, window in batch])
                with threads.step(work=windows.size):
                    encoded = self._encode(windows)
                for (number, _), vector in zip(batch, encoded, strict=True):
                    vectors[number].append(vector)
                report(len(vectors))
        lengths = {len(vector) for windows in vectors.values() for vector in windows}
        if len(lengths) > 1:
            raise ValueError(f"{self.name} gives vectors of different lengths: {sorted(lengths)}; it must give one")
        means = [np.mean(vectors[number], axis=0, dtype=np.float64) for number in range(len(vectors))]
        return finite(np.stack(means).astype(np.float32), self.name)

    def _batches(self, waves: Iterable[tuple[int, Float32[np.ndarray, " _"]]]) -> Iterator[Batch]:
        """The windows of numbered waveforms, in batches of one length."""
        waiting: dict[int, Batch] = defaultdict(list)
        for number, wave in waves:
            for window in self._windows(wave):
                waiting[len(window)].append((number, window))
                if len(waiting[len(window)]) >= self._batch_size(len(window)):
                    yield waiting.pop(len(window))
        yield from waiting.values()

    def _batch_size(self, num_samples: int) -> int:
        return max(1, min(self.max_batch, int(BATCH_S * self.sample_rate_hz / num_samples)))

    def _windows(self, wave: Float32[np.ndarray, " sample"]) -> Iterable[np.ndarray]:
        wave = np.pad(wave, (0, max(0, math.ceil(MIN_S * self.sample_rate_hz) - len(wave))))
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


def wrap(
    obj: EncodesWaveforms, sample_rate_hz: int | None = None, *, name: str = "", identity: str = ""
) -> WaveformEncoder:
    """Any object with ``encode(batch, sample_rate)`` as an encoder to be evaluated.

    Args:
        obj: takes float32 waveforms [b, sample] of one length; gives [b, dim], as an array or a tensor.
        sample_rate_hz: the rate it takes; None for its attribute ``sample_rate_hz``, or ``sample_rate``.
        name: in tables; the name of its class if empty.
        identity: what changes whenever its vectors would, such as a hash of its weights. Empty: nothing is cached.

    Raises:
        ValueError: no rate is given, and the object has none.

    >>> class Loudness:
    ...     def encode(self, batch, sample_rate):
    ...         return np.abs(batch).mean(axis=1, keepdims=True)
    >>> wrap(Loudness(), 16_000).name
    'Loudness'
    """
    name = name or type(obj).__name__
    rate_hz = sample_rate_hz or getattr(obj, "sample_rate_hz", None) or getattr(obj, "sample_rate", None)
    if not rate_hz:
        raise ValueError(f"{name} has no attribute sample_rate_hz: give it one, or wrap it as wrap(encoder, 16_000)")

    def encode(waves: Waveforms) -> np.ndarray:
        return as_array(obj.encode(waves, int(rate_hz)))

    return WaveformEncoder(name, identity, int(rate_hz), encode)


def as_array(vectors: Any) -> np.ndarray:
    """An array of what may be a tensor, on any device and of any precision."""
    return vectors.detach().float().cpu().numpy() if isinstance(vectors, torch.Tensor) else np.asarray(vectors)
