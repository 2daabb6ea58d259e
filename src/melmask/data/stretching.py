"""Crops read at another speed and pitch, so that one recording gives more different ones."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32

MAX_SPEED = 0.75  # octaves, up or down: 0.59 to 1.68 times as fast
MAX_SCALE = 0.4  # octaves, up or down: of the width of a mel band
MAX_SHIFT = 6.0  # mel bands, up or down


@dataclass(frozen=True)
class Stretching:
    """Which crops of a batch are stretched, and by how much: in time, and along the mel axis.

    Args:
        chosen: those that are stretched; the others stay as they are.
        speed: frames of the recording in one frame of the crop.
        scale: mel bands of the recording in one band of the crop, about the middle band.
        shift: by how many bands of the recording the middle band of the crop lies higher.
    """

    chosen: Bool[np.ndarray, " b"]
    speed: Float[np.ndarray, " b"]
    scale: Float[np.ndarray, " b"]
    shift: Float[np.ndarray, " b"]

    @staticmethod
    def draw(rng: np.random.Generator, num_crops: int, share: float) -> "Stretching":
        """Choose each crop with a probability of ``share``; speed and scale are uniform in octaves, shift in bands."""
        chosen = rng.random(num_crops) < share
        speed, scale = (2.0 ** rng.uniform(-most, most, num_crops) for most in (MAX_SPEED, MAX_SCALE))
        return Stretching(chosen, speed, scale, rng.uniform(-MAX_SHIFT, MAX_SHIFT, num_crops))

    @staticmethod
    def none(num_crops: int) -> "Stretching":
        """No crop is stretched."""
        same = np.ones(num_crops)
        return Stretching(np.zeros(num_crops, dtype=bool), same, same, np.zeros(num_crops))

    def frames_to_read(self, crop: int, length: int, num_frames: int) -> int:
        """Frames of the recording that a crop of ``length`` frames takes; at least one, at most all.

        A recording that is too short for the speed is read whole, and so is stretched less.
        """
        return min(max(round(length * float(self.speed[crop])), 1), num_frames) if self.chosen[crop] else length

    def stretch(self, crop: int, log_mel: Float[np.ndarray, "frame mel"], length: int) -> Float32[np.ndarray, "_ mel"]:
        """The frames read for a crop, brought to its length, and to its scale and shift along the mel axis.

        Values in between are interpolated linearly; bands beyond the lowest and the highest repeat these.

        Source: random resize crop of BYOL-A, arXiv 2103.06695, section III-C. It deviates: BYOL-A interpolates in both
        axes by cubic splines, takes a frame of 0.6 to 1.5 times the size in time and 0.6 to 1 in frequency, pads with
        zeros, and changes every crop.
        """
        num_frames, num_mels = log_mel.shape
        middle = (num_mels - 1) / 2
        bands = (np.arange(num_mels) - middle) * self.scale[crop] + middle + self.shift[crop]
        in_time = _between(log_mel.astype(np.float32), np.linspace(0, num_frames - 1, length))
        return _between(in_time.T, bands.clip(0, num_mels - 1)).T


def _between(rows: Float32[np.ndarray, "n d"], at: Float[np.ndarray, " m"]) -> Float32[np.ndarray, "m d"]:
    """The rows at these places between 0 and the last, interpolated linearly.

    >>> _between(np.float32([[1, 0], [3, 8]]), np.array([0, 0.25, 1])).tolist()
    [[1.0, 0.0], [1.5, 2.0], [3.0, 8.0]]
    """
    low = at.astype(int)
    high = np.minimum(low + 1, len(rows) - 1)
    part = (at - low).astype(np.float32)[:, None]
    return rows[low] + (rows[high] - rows[low]) * part
