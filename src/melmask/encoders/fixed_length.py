"""Clips heard for the same time each, as protocols with a unit length hear them, by every encoder alike."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float16, Float32, Shaped

from melmask.audio import read_audio
from melmask.data.store import Store
from melmask.datasets.build import clip_s_of

ClipLength = Literal["task"] | float  # what the record beside a task's table says; or seconds, 0 for whole clips


class Excerpts(Store):
    """A store of which each clip is heard for so many seconds: the middle of longer ones, shorter ones amid silence.

    Silence has the value of digital silence in log-mels, before and after normalisation, and is heard as any sound is:
    an encoder looks at it, and its time steps are pooled. An excerpt depends on its clip alone.

    Args:
        whole: the store; what is cut or added is only read so, and nothing is written.
        clip_s: in seconds.

    Raises:
        ValueError: no positive, finite length.

    Source: BYOL-A (arXiv 2103.06695, IV-A1), of whose authors EVAR is: a segment of the set's average duration is
    cropped from each clip, training or test, at random, and shorter clips get zeros at head and tail. Deviates: the
    crop is the middle, so that an embedding is the same whenever it is made; zeros of what, the paper does not say:
    here of samples. A frame at the edge of a crop has heard half a window of what is cut off.
    """

    def __init__(self, whole: Store, clip_s: float) -> None:
        if not 0 < clip_s < math.inf:
            raise ValueError(f"clip_s is a length in seconds, or 0 for whole clips: got {clip_s}")
        self.whole, self.clip_s = whole, clip_s
        self.num_frames = max(1, round(clip_s * whole.spec.frames_per_s))
        clips = [replace(stored, num_frames=self.num_frames) for stored in whole.clips]
        info = whole.info | {"fingerprint": f"{whole.fingerprint} heard for {clip_s:g} s"}
        super().__init__(whole.folder, info, clips, whole.rejected)

    def log_mel(self, index: int, start: int = 0, stop: int | None = None) -> Float16[np.ndarray, "frame mel"]:
        """See `Store.log_mel`; frames are counted from the excerpt's first."""
        stop = self.num_frames if stop is None else stop
        if not 0 <= start <= stop <= self.num_frames:
            raise IndexError(f"frames {start} to {stop} are not within excerpt {index} of {self.num_frames} frames")
        return middle(self.whole.log_mel(index), self.num_frames, self.spec.silence)[start:stop]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its store is."""
        return Excerpts, (self.whole, self.clip_s)


def middle(values: Shaped[np.ndarray, "time *more"], length: int, fill: float) -> Shaped[np.ndarray, "{length} *more"]:
    """The middle of a longer row of values, or a shorter one amid equally many of ``fill`` on both sides.

    >>> middle(np.arange(5), 2, 0.0), middle(np.arange(1, 3), 5, 0.0)
    (array([1, 2]), array([0, 1, 2, 0, 0]))
    """
    excess = len(values) - length
    if excess >= 0:
        return values[excess // 2 : excess // 2 + length]
    before = -excess // 2
    return np.pad(values, [(before, -excess - before), *[(0, 0)] * (values.ndim - 1)], constant_values=fill)


def hear(stores: Sequence[Store], table: Path, unit: ClipLength) -> tuple[list[Store], float]:
    """A task's stores as they are to be heard, and the length of their excerpts in seconds; 0 if clips are whole.

    Args:
        stores: the task, prepared with one or several log-mel settings.
        table: its CSV, beside which a record may name its unit length.
        unit: that length, or another one.

    Raises:
        ValueError: the record is damaged, or a length is negative or infinite.
    """
    clip_s = clip_s_of(table) if unit == "task" else float(unit)
    return [excerpts(store, clip_s) for store in stores], clip_s


def excerpts(store: Store, clip_s: float) -> Store:
    """The store, or if the length is not 0 its excerpts."""
    return Excerpts(store, clip_s) if clip_s else store


def waveform(store: Store, row: int, sample_rate_hz: int) -> Float32[np.ndarray, " sample"]:
    """What is heard of a recording, decoded from its file.

    Raises:
        AudioError: see `read_audio`.
    """
    wave = read_audio(store.clips[row].clip.path, sample_rate_hz)
    return middle(wave, round(store.clip_s * sample_rate_hz), 0.0) if isinstance(store, Excerpts) else wave
