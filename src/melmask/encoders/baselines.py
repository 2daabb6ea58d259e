"""Baselines without an encoder: statistics of the log-mel spectrogram, of clips and of time steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Float32

from melmask.data.store import Store
from melmask.encoders.base import ClipEncoder, Progress, no_progress
from melmask.encoders.recordings import Audio, is_one, log_mels
from melmask.encoders.timesteps import TimeSteps, half
from melmask.logmel import LogMelSpec

NUM_SEGMENTS = 4
DEFAULT_SPEC = LogMelSpec()


@dataclass(frozen=True)
class LogMelStatistics(ClipEncoder):
    """`logmel_statistics` as an encoder; it takes a store of any log-mel settings, and recordings with the defaults."""

    name: ClassVar[str] = "log-mel statistics"
    identity: ClassVar[str] = "log-mel statistics 1"
    spec: ClassVar[LogMelSpec | None] = None

    def embed(
        self, audio: Audio, sample_rate_hz: int | float | None = None
    ) -> Float32[np.ndarray, "clip dim"] | Float32[np.ndarray, " dim"]:
        """The statistics of each recording, or of a single recording; see `AudioEncoder.embed`."""
        vectors = np.stack([logmel_statistics(log_mel) for log_mel in log_mels(audio, sample_rate_hz, DEFAULT_SPEC)])
        return vectors[0] if is_one(audio) else vectors

    def embed_store(
        self, store: Store, rows: Sequence[int] | None = None, progress: Progress = no_progress
    ) -> Float32[np.ndarray, "clip dim"]:
        """The statistics of each of the store's clips, or of those in ``rows``."""
        rows = range(len(store)) if rows is None else rows
        vectors = []
        for row in rows:
            vectors.append(logmel_statistics(store.log_mel(row)))
            progress(len(vectors), len(rows))
        return np.stack(vectors)


def logmel_statistics(log_mel: Float[np.ndarray, "frame mel"]) -> Float[np.ndarray, " dim"]:
    """Statistics of each mel band over time: features that an encoder has to surpass.

    Args:
        log_mel: one clip, frame-major as it lies in the store, in any float type; one frame is enough.

    Returns:
        float32, 7 values a band, all bands of the first kind first: mean, standard deviation, standard deviation of the
        differences of adjacent frames (0 for one frame), and the means of four equal segments in time. In clips of
        fewer than four frames segments overlap.

    Raises:
        ValueError: no frames.

    >>> logmel_statistics(np.zeros((98, 80), np.float16)).shape
    (560,)
    """
    num_frames = len(log_mel)
    if not num_frames:
        raise ValueError("log-mel statistics of a clip of 0 frames: leave empty recordings out of the table")
    values = log_mel.astype(np.float64)
    change = np.diff(values, axis=0) if num_frames > 1 else np.zeros_like(values)
    starts = np.arange(NUM_SEGMENTS) * num_frames // NUM_SEGMENTS
    stops = np.maximum((np.arange(NUM_SEGMENTS) + 1) * num_frames // NUM_SEGMENTS, starts + 1)
    segments = [values[start:stop].mean(axis=0) for start, stop in zip(starts, stops, strict=True)]
    return np.concatenate([values.mean(axis=0), values.std(axis=0), change.std(axis=0), *segments]).astype(np.float32)


def logmel_steps(store: Store, rows: Sequence[int], step_frames: int) -> TimeSteps:
    """The baseline for features of time steps: mean and standard deviation of each mel band over a step's frames.

    Args:
        store: packed log-mels.
        rows: of the store's table.
        step_frames: frames of a step; the last one of a clip may have fewer.
    """
    clips = []
    for row in rows:
        log_mel = store.log_mel(row).astype(np.float32)
        cuts = [log_mel[first : first + step_frames] for first in range(0, len(log_mel), step_frames)]
        clips.append(np.stack([np.concatenate([cut.mean(axis=0), cut.std(axis=0)]) for cut in cuts]))
    length = np.array([len(clip) for clip in clips])
    return TimeSteps(half(np.concatenate(clips), "log-mels"), np.cumsum(length) - length, length)
