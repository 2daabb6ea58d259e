"""Windows of recordings, as clips of a store."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float16

from melmask.data.clip_table import ClipTable
from melmask.data.store import Store
from melmask.encoders.fixed_length import fixed_length


@dataclass(frozen=True)
class Division:
    """What one embedding is of: a whole recording, one cut to a length, a window of it, or a time step.

    Args:
        clip_s: length in seconds that recordings are cropped or zero-padded to; 0 for whole recordings.
        window_s: length of a window in seconds; 0 for no windows.
        hop_s: from the start of a window to that of the next; 0 for window_s.
        frames: whether each time step of the encoder has an embedding of its own.

    Raises:
        ValueError: a length is negative or not finite, or two ways of dividing are asked for.
    """

    clip_s: float = 0.0
    window_s: float = 0.0
    hop_s: float = 0.0
    frames: bool = False

    def __post_init__(self) -> None:
        for name in ("clip_s", "window_s", "hop_s"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} is a length in seconds, got {getattr(self, name)}")
        if (self.clip_s > 0) + (self.window_s > 0) + self.frames > 1:
            raise ValueError("clip_s, window_s and frames exclude each other: choose one")
        if self.hop_s and not self.window_s:
            raise ValueError("hop_s is the distance of windows: give window_s too")

    @property
    def has_times(self) -> bool:
        """Whether embeddings are of parts of a recording, with a start and an end."""
        return self.window_s > 0 or self.frames

    def of(self, store: Store) -> Store:
        """The store with its clips divided; of time steps, the store as it is."""
        if self.window_s:
            return WindowedStore(store, self.window_s, self.hop_s or self.window_s)
        return fixed_length(store, self.clip_s)


class WindowedStore(Store):
    """A view of a store whose clips are windows of its recordings.

    Windows are those of `melmask predict` (`melmask.models.windows.Windows`): one every hop, the last of which ends
    with the recording; a recording shorter than a window is one window. Their starts are rounded to frames. Log-mels
    are those of the whole recording, so that the frames at the edges of a window also depend on half an analysis window
    beyond them.

    Args:
        whole: the store; nothing in it is changed.
        window_s: length of a window in seconds.
        hop_s: from the start of a window to that of the next.

    Attributes:
        row_of: the row of ``whole`` that each window is of.
        first: its first frame there.

    Raises:
        ValueError: a length is less than a frame.
    """

    def __init__(self, whole: Store, window_s: float, hop_s: float) -> None:
        self.whole, self.window_s, self.hop_s = whole, window_s, hop_s
        length, hop = round(window_s * whole.spec.frames_per_s), hop_s * whole.spec.frames_per_s
        if min(length, round(hop)) < 1:
            raise ValueError(
                f"windows of {window_s:g} s every {hop_s:g} s: give at least {1 / whole.spec.frames_per_s:g} s, a frame"
            )
        starts = [_starts(stored.num_frames, length, hop) for stored in whole.clips]
        self.row_of = np.repeat(np.arange(len(starts)), [len(own) for own in starts])
        self.first = np.concatenate([np.zeros(0, np.int64), *starts])
        clips = [
            replace(stored := whole.clips[row], num_frames=min(length, stored.num_frames - first))
            for row, first in zip(self.row_of.tolist(), self.first.tolist(), strict=True)
        ]
        info = whole.info | {"fingerprint": f"{whole.fingerprint} in windows of {window_s:g} s every {hop_s:g} s"}
        super().__init__(whole.folder, info, ClipTable.of_clips(clips), whole.rejected, whole.verify)

    def log_mel(self, index: int, start: int = 0, stop: int | None = None) -> Float16[np.ndarray, "frame mel"]:
        """See `Store.log_mel`; frames are counted from the start of the window."""
        stop = self.clips[index].num_frames if stop is None else stop
        if not 0 <= start <= stop <= self.clips[index].num_frames:
            raise IndexError(f"frames {start} to {stop} are not within window {index}")
        first = int(self.first[index])
        return self.whole.log_mel(int(self.row_of[index]), first + start, first + stop)

    def span_s(self, row: int) -> tuple[float, float | None]:
        """Start and end of a window within its recording, in seconds."""
        return times_s(
            int(self.first[row]),
            self.clips[row].num_frames,
            self.whole.clips[self.row_of[row]].num_frames,
            self.spec.frames_per_s,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its store is."""
        return WindowedStore, (self.whole, self.window_s, self.hop_s)


def times_s(first: int, num_frames: int, whole_frames: int, frames_per_s: float) -> tuple[float, float]:
    """Start and end of some frames in seconds, no later than the centre of the recording's last frame.

    >>> times_s(100, 100, 151, 100.0)
    (1.0, 1.5)
    """
    start_s = first / frames_per_s
    return start_s, max(start_s, min(first + num_frames, whole_frames - 1) / frames_per_s)


def _starts(num_frames: int, length: int, hop: float) -> np.ndarray:
    """The first frames of windows. The last window ends at the last frame's centre, and overlaps the one before.

    >>> _starts(6001, 1000, 1000.0).tolist(), _starts(331, 200, 62.5).tolist(), _starts(50, 200, 100.0).tolist()
    ([0, 1000, 2000, 3000, 4000, 5000], [0, 62, 125, 130], [0])
    """
    last = max(0, num_frames - 1 - length)
    regular = np.rint(np.arange(int(last / hop) + 2) * hop).astype(np.int64)
    return np.unique(np.append(regular[regular <= last], last))
