"""Clips of one length for every encoder: the middle of longer clips, their head or a random part; zero-padded ones."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float16, Float32, Shaped

from melmask.audio import read_audio
from melmask.data.store import Store
from melmask.datasets.build import clip_s_of

Cut = Literal["middle", "head", "random"]  # which part of a longer clip
MAX_CLIP_S = 3 * 3600  # every clip is padded to it
ClipLength = Literal["task"] | float  # what the record beside a task's table says; or seconds, 0 for whole clips


class FixedLength(Store):
    """A view of a store in which every clip has one length: a part of longer clips; shorter ones zero-padded.

    Padding is at the tail, and with the middle split evenly between both sides. It has the log-mel value of digital
    silence, and is encoded and pooled as any other sound is. A clip depends on its recording alone.

    Args:
        whole: the store; nothing in it is changed.
        clip_s: the length in seconds.
        cut: the part of longer clips: their middle, their head, or a random part, which depends on the recording's name
            alone and so is the same for all encoders.

    Raises:
        ValueError: the length is not positive and finite.

    Source: BYOL-A (arXiv 2103.06695, IV-A1), whose authors wrote EVAR: a segment of the data set's average duration is
    cropped at random from each clip, training or test, and shorter clips are zero-padded at head and tail. EVAR itself
    crops training and validation clips at random, takes the head of test clips, and pads at the tail. Deviates: the
    crop is the middle by default, and a random one is drawn once, so that embeddings are deterministic. The paper does
    not say what is zero-padded; here it is the waveform. The outermost frames of a crop still contain half a window of
    what is cut off.
    """

    def __init__(self, whole: Store, clip_s: float, cut: Cut = "middle") -> None:
        if not 0 < clip_s <= MAX_CLIP_S:
            raise ValueError(f"clip_s is a length of at most {MAX_CLIP_S:,} s, or 0 for whole clips: got {clip_s}")
        self.whole, self.clip_s, self.cut = whole, clip_s, cut
        self.num_frames = max(1, round(clip_s * whole.spec.frames_per_s))
        clips = whole.clips.with_num_frames(self.num_frames)
        # Part of the keys of cached features: other words would make every one of them anew.
        part = "" if cut == "middle" else f", {cut}"
        info = whole.info | {"fingerprint": f"{whole.fingerprint} heard for {clip_s:g} s{part}"}
        super().__init__(whole.folder, info, clips, whole.rejected, whole.verify)

    def log_mel(self, index: int, start: int = 0, stop: int | None = None) -> Float16[np.ndarray, "frame mel"]:
        """See `Store.log_mel`; frames are counted from the first of the fixed length."""
        stop = self.num_frames if stop is None else stop
        if not 0 <= start <= stop <= self.num_frames:
            raise IndexError(f"frames {start} to {stop} are not within clip {index}, cut to {self.num_frames} frames")
        return _excerpt(self, index, self.whole.log_mel(index), self.num_frames, self.spec.silence)[start:stop]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its store is."""
        return FixedLength, (self.whole, self.clip_s, self.cut)


def middle(values: Shaped[np.ndarray, "time *more"], length: int, fill: float) -> Shaped[np.ndarray, "{length} *more"]:
    """The middle of a longer array, or a shorter one padded on both sides with ``fill``.

    >>> middle(np.arange(5), 2, 0.0), middle(np.arange(1, 3), 5, 0.0)
    (array([1, 2]), array([0, 1, 2, 0, 0]))
    """
    excess = len(values) - length
    if excess >= 0:
        return values[excess // 2 : excess // 2 + length]
    before = -excess // 2
    return np.pad(values, [(before, -excess - before), *[(0, 0)] * (values.ndim - 1)], constant_values=fill)


def part(
    values: Shaped[np.ndarray, "time *more"], length: int, fill: float, where: float
) -> Shaped[np.ndarray, "{length} *more"]:
    """A part of a longer array, or a shorter one padded at its tail with ``fill``.

    Args:
        values: along time.
        length: of the part.
        fill: the value of padding.
        where: its place, from 0 for the head to just below 1 for the tail.

    >>> part(np.arange(5), 2, 0.0, where=0.0), part(np.arange(5), 2, 0.0, where=0.9), part(np.arange(1, 3), 4, 0.0, 0.5)
    (array([0, 1]), array([3, 4]), array([1, 2, 0, 0]))
    """
    excess = len(values) - length
    if excess >= 0:
        start = int(where * (excess + 1))
        return values[start : start + length]
    return np.pad(values, [(0, -excess), *[(0, 0)] * (values.ndim - 1)], constant_values=fill)


def _excerpt(store: Store, row: int, values: np.ndarray, length: int, fill: float) -> np.ndarray:
    """The part of a clip that the store gives, of its log-mel or its waveform."""
    if store.cut == "middle":
        return middle(values, length, fill)
    return part(values, length, fill, _place_of(store.clips[row].clip.path) if store.cut == "random" else 0.0)


def _place_of(path: Path) -> float:
    """A number in [0, 1) from the last three parts of a path, so that another folder changes nothing."""
    digest = hashlib.sha256("/".join(path.parts[-3:]).encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def at_clip_length(
    stores: Sequence[Store], table: Path, clip_length: ClipLength, cut: Cut = "middle"
) -> tuple[list[Store], float]:
    """A task's stores at the clip length it is evaluated at, and that length in seconds; 0 if clips are whole.

    Args:
        stores: the task, prepared with one or several log-mel settings.
        table: its CSV, beside which a record may name the task's clip length.
        clip_length: in seconds, 0 for whole clips, or "task" for what the record says.
        cut: see `FixedLength`.

    Raises:
        ValueError: the record is damaged, or a length is negative or infinite.
    """
    clip_s = clip_s_of(table) if clip_length == "task" else float(clip_length)
    return [fixed_length(store, clip_s, cut) for store in stores], clip_s


def fixed_length(store: Store, clip_s: float, cut: Cut = "middle") -> Store:
    """The store with clips of that length in seconds, or the store itself if it is 0."""
    return FixedLength(store, clip_s, cut) if clip_s else store


def waveform(store: Store, row: int, sample_rate_hz: int) -> Float32[np.ndarray, " sample"]:
    """The waveform of a clip at the store's clip length, decoded from its file.

    Raises:
        AudioError: see `read_audio`.
    """
    path, (start_s, end_s) = store.clips[row].clip.path, store.span_s(row)
    if end_s is not None:
        return _kept(path, sample_rate_hz)[round(start_s * sample_rate_hz) : max(1, round(end_s * sample_rate_hz))]
    wave = read_audio(path, sample_rate_hz)
    return _excerpt(store, row, wave, round(store.clip_s * sample_rate_hz), 0.0) if store.clip_s else wave


@lru_cache(maxsize=1)
def _kept(path: Path, sample_rate_hz: int) -> Float32[np.ndarray, " sample"]:
    """The waveform of the recording whose windows are asked for one after the other."""
    return read_audio(path, sample_rate_hz)
