"""The legend of shapes: what a grid, a mask and a batch are, everywhere in melmask.

Axis names used in all annotations: ``b`` samples in a batch, ``n`` patches of one input, ``v`` visible and ``m`` masked
patches (v + m = n), ``p`` values in one patch, ``d`` feature width, ``mel`` mel bands, ``frame`` spectrogram frames.
"""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class PatchGrid:
    """The patches of one input, ordered (freq, time): index = f * time + t.

    Args:
        freq: patches along the frequency axis.
        time: patches along the time axis.

    Raises:
        ValueError: a side has no patches.

    >>> PatchGrid(freq=5, time=38).num_patches
    190
    """

    freq: int
    time: int

    def __post_init__(self) -> None:
        if self.freq < 1 or self.time < 1:
            raise ValueError(f"a grid needs at least one patch a side, got {self.freq} x {self.time}: use longer input")

    @property
    def num_patches(self) -> int:
        return self.freq * self.time

    def shortened(self, num_patches: int) -> "PatchGrid":
        """The grid of that many patches with as many along the frequency axis: of an input of another length."""
        return PatchGrid(self.freq, num_patches // self.freq)


@dataclass(frozen=True)
class Mask:
    """A partition of the patches of every sample: the two index sets are disjoint, together 0..n-1, each sorted.

    Args:
        visible: patches the online encoder sees.
        masked: patches to be predicted.
    """

    visible: Int[Tensor, "b v"]
    masked: Int[Tensor, "b m"]

    @property
    def num_patches(self) -> int:
        return self.visible.shape[1] + self.masked.shape[1]


@dataclass(frozen=True)
class Batch:
    """Normalised log-mel crops, with what of each is sound and not padding.

    Args:
        log_mel: crops, zero mean and unit deviation over the data set; padding has the value of silence.
        num_valid_frames: frames of each crop that come from the recording; the rest is padding at the end.
        clip: row of each crop's recording in the store's table of clips.
        start_frame: where each crop starts in its recording.
        weight: its share of the sound in the whole batch that it is a part of; 1 for a whole batch.
    """

    log_mel: Float[Tensor, "b mel frame"]
    num_valid_frames: Int[Tensor, " b"]
    clip: Int[Tensor, " b"]
    start_frame: Int[Tensor, " b"]
    weight: float = 1.0
