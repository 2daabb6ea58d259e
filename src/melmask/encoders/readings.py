"""How often a clip is read to be pooled, each time shifted by parts of a patch in time or along the mel axis."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32

from melmask.encoders.features import Pooling

MIN_STEPS = 12  # of quarters, three of each: a clip of fewer time steps is read several times
DELAYS = (0.0, 0.5, 0.25, 0.75)  # of these readings, in time steps
SHIFTS = (0.0, 0.5, 0.25, 0.75)  # up the mel axis, in patches, of the readings of shifted statistics
MOST_SHIFTED = 0.15  # of the mel bands, beyond which too much would be lost at their upper end


def delays(num_steps: int, step_frames: int, pooling: Pooling) -> tuple[int, ...]:
    """By how many frames a clip is delayed, each time that it is read: once, and if it is short twice or four times.

    A clip of a few time steps, as of 0.4 s, gives little to take statistics of, and its quarters are hardly apart.
    Delayed by a part of a time step, its patches lie elsewhere, and all statistics are of the time steps of all
    readings. Of longer clips this adds nothing (LOG.md).

    Args:
        num_steps: of the clip.
        step_frames: frames of a time step.
        pooling: only "quarters" are read several times.

    Source: ours; patches that overlap, as of AST, arXiv 2104.01778, serve the same end within one reading.

    >>> [delays(num_steps, 16, "mean+std+quarters") for num_steps in (3, 6, 12)]
    [(0, 8, 4, 12), (0, 8), (0,)]
    """
    times = min(2 ** math.ceil(math.log2(max(MIN_STEPS / num_steps, 1))), len(DELAYS)) if "quarters" in pooling else 1
    return tuple(dict.fromkeys(int(delay * step_frames) for delay in DELAYS[:times]))


def shifts(patch_bands: int, num_mels: int, pooling: Pooling) -> tuple[int, ...]:
    """By how many mel bands a clip is shifted up, each time that it is read: by none, and then by parts of a patch.

    Where a sound lies among the patches of the mel axis is chance. Mean and deviation of each reading, averaged over
    readings at several places, depend less on it; quarters are of the reading that is not shifted, as the place of a
    sound on the mel axis is also its pitch.

    Args:
        patch_bands: mel bands of a patch.
        num_mels: mel bands in all.
        pooling: only of "shifted" statistics there are several such readings.

    Source: ours; LOG.md has what it gains.

    >>> shifts(16, 80, "shifted-mean+shifted-std+quarters"), shifts(16, 80, "mean+std+quarters")
    ((0, 8, 4, 12), (0,))
    """
    if "shifted" not in pooling:
        return (0,)
    return tuple(dict.fromkeys(int(min(shift * patch_bands, MOST_SHIFTED * num_mels)) for shift in SHIFTS))


def shifted_up(log_mel: Float[np.ndarray, "b frame mel"], num_bands: int) -> Float[np.ndarray, "b frame mel"]:
    """Every band's values some bands higher: the lowest band is repeated, the highest ones are lost.

    >>> shifted_up(np.array([[[1.0, 2.0, 3.0, 4.0]]]), 2).tolist()
    [[[1.0, 1.0, 1.0, 2.0]]]
    """
    lowest = np.repeat(log_mel[:, :, :1], num_bands, axis=2)
    return np.concatenate([lowest, log_mel[:, :, : log_mel.shape[2] - num_bands]], axis=2)


def averaged(readings: Sequence[Float32[np.ndarray, "clip dim"]], num_averaged: int) -> Float32[np.ndarray, "clip dim"]:
    """What was pooled of some readings: the first columns are averaged, the others those of the first reading.

    >>> averaged([np.float32([[1, 2, 3]]), np.float32([[3, 6, 0]])], 2).tolist()
    [[2.0, 4.0, 3.0]]
    """
    if len(readings) == 1:
        return readings[0]
    mean = np.mean([one[:, :num_averaged] for one in readings], axis=0, dtype=np.float32)
    return np.concatenate([mean, readings[0][:, num_averaged:]], axis=1)
