"""How an encoder gets at the log-mel frames of clips: from a store, from memory, and after a delay."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Float32

from melmask.data.store import Store

ReadFrames = Callable[[int, int, int], Float[np.ndarray, "frame mel"]]  # (clip, first frame, one past the last)


def stored_frames(store: Store, rows: Sequence[int]) -> ReadFrames:
    """Reads clips of a store, by their place among these rows."""
    return lambda clip, start, stop: store.log_mel(rows[clip], start, stop)


def frames_of(clips: Sequence[Float[np.ndarray, "_ mel"]]) -> ReadFrames:
    """Reads clips that are in memory."""
    return lambda clip, start, stop: clips[clip][start:stop]


def delayed_frames(read: ReadFrames, clips: Sequence[int], delay: int, silence: float) -> ReadFrames:
    """Reads some of the clips, each after a number of silent frames.

    Args:
        read: of all clips.
        clips: those to be read, by number; a clip is then asked for by its place among them.
        delay: frames of silence before each.
        silence: their value.
    """

    def read_delayed(i: int, start: int, stop: int) -> Float[np.ndarray, "frame mel"]:
        frames = read(clips[i], max(start - delay, 0), stop - delay)
        before = np.full((max(delay - start, 0), frames.shape[1]), silence, np.float32)
        return np.concatenate([before, frames]) if len(before) else frames

    return read_delayed


def padded(
    frames: Float[np.ndarray, "frame mel"], num_frames: int, silence: float
) -> Float32[np.ndarray, "num_frames mel"]:
    """Frames of a chunk, and silence after the clip's end."""
    longer = np.full((num_frames, frames.shape[1]), silence, np.float32)
    longer[: len(frames)] = frames
    return longer
