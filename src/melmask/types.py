"""The legend of shapes: what a grid, a mask and a batch are, everywhere in melmask.

Axis names used in all annotations: ``b`` samples in a batch, ``n`` patches of one input, ``v`` visible and ``m`` masked
patches (v + m = n), ``p`` values in one patch, ``d`` feature width, ``mel`` mel bands, ``frame`` spectrogram frames.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class PatchGrid:
    """The patches of one input, ordered (freq, time): index = f * time + t.

    Args:
        freq: patches along the frequency axis.
        time: patches along the time axis.
        patch: shape (freq, time) of one patch, in mel bands and frames.

    Raises:
        ValueError: a side has no patches, or a patch no values.

    >>> PatchGrid(freq=5, time=38).num_patches
    190
    """

    freq: int
    time: int
    patch: tuple[int, int] = (16, 16)

    def __post_init__(self) -> None:
        if min(self.patch) < 1:
            raise ValueError(f"a patch needs at least one mel band and one frame, got {self.patch}")
        if self.freq < 1 or self.time < 1:
            raise ValueError(f"a grid needs at least one patch a side, got {self.freq} x {self.time}: use longer input")

    @property
    def num_patches(self) -> int:
        return self.freq * self.time

    def shortened(self, num_patches: int) -> "PatchGrid":
        """The grid of an input of another length: ``num_patches``, with as many along frequency as here."""
        return PatchGrid(self.freq, num_patches // self.freq, self.patch)


@dataclass(frozen=True)
class Mask:
    """A partition of the patches of every sample: the two index sets are disjoint, together 0..n-1, each sorted.

    Args:
        visible: indices of the patches that the online encoder encodes.
        masked: indices of the patches to be predicted.

    >>> mask = Mask(visible=torch.tensor([[0, 3]]), masked=torch.tensor([[1, 2]]))
    >>> mask.as_bool().tolist(), mask.ids_restore().tolist()
    ([[False, True, True, False]], [[0, 2, 3, 1]])
    """

    visible: Int[Tensor, "b v"]
    masked: Int[Tensor, "b m"]

    @property
    def num_patches(self) -> int:
        return self.visible.shape[1] + self.masked.shape[1]

    def as_bool(self) -> Bool[Tensor, "b n"]:
        """True for masked patches, in the order of the grid."""
        visible = torch.zeros(len(self.masked), self.num_patches, dtype=torch.bool, device=self.masked.device)
        return visible.scatter(1, self.masked, True)

    def ids_restore(self) -> Int[Tensor, "b n"]:
        """For each patch of the grid its place in ``cat([visible, masked])``: gathering by it restores the order."""
        return torch.cat([self.visible, self.masked], dim=1).argsort(dim=1)


@dataclass(frozen=True)
class Batch:
    """Normalised log-mel crops, with what of each is sound and not padding.

    Args:
        log_mel: crops, zero mean and unit deviation over the data set; padding has the value of silence.
        num_valid_frames: frames of each crop that come from the recording; the rest is padding at the end.
        clip: row of each crop's recording in the store's table of clips; -1 for a synthesised crop, which has none.
        start_frame: where each crop starts in its recording; -1 for a stretched crop, whose frames are none of these.
        weight: its share of the sound in the whole batch that it is a part of; 1 for a whole batch.
    """

    log_mel: Float[Tensor, "b mel frame"]
    num_valid_frames: Int[Tensor, " b"]
    clip: Int[Tensor, " b"]
    start_frame: Int[Tensor, " b"]
    weight: float = 1.0
