"""The losses that a run records per patch of its data, for strategies that are guided by them."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from melmask.data.loader import Loader
from melmask.frameworks.base import counted
from melmask.train.distributed import World
from melmask.types import Batch, Mask, PatchGrid


class LossHistory:
    """The model's loss at every patch of every recording when it was last masked, smoothed over visits.

    Losses are kept on the recordings' own time axes: crops start anywhere, and a patch of a crop is recorded at the
    nearest column of patches of its recording. All processes hold the same history.

    Args:
        loader: the recordings of the training data.
        grid: of a crop of full length.
        smoothing: share of the recorded loss that is kept when a new one comes.
    """

    def __init__(self, loader: Loader, grid: PatchGrid, smoothing: float) -> None:
        if not len(loader.rows):
            raise ValueError(
                "a strategy that is guided by recorded losses needs recordings that come again: "
                f"choose another for {loader.store.place} sound"
            )
        self.grid, self.smoothing = grid, smoothing
        store, rows = loader.store, loader.rows.tolist()
        # The last column that a crop can be nearest to ends within half a patch of the recording's end.
        num_columns = [max(self._nearest(int(store.clips.num_frames[row])), grid.time) for row in rows]
        self._first_column = torch.full((len(store),), -1)
        self._first_column[torch.tensor(rows)] = torch.tensor([0, *num_columns[:-1]]).cumsum(0)
        self.loss = torch.full((sum(num_columns) * grid.freq,), torch.nan)  # NaN: never masked so far
        self._noted: list[tuple[Tensor, Tensor]] = []

    def cells(self, clip: Int[Tensor, " b"], start_frame: Int[Tensor, " b"], grid: PatchGrid) -> Int[Tensor, "b n"]:
        """Where the loss of each patch of crops of that grid is kept; the grid may be shorter than the longest."""
        first = self._first_column[clip] + self._nearest(start_frame)
        column = first[:, None] + torch.arange(grid.time)
        cell = column[:, None, :] * grid.freq + torch.arange(grid.freq)[:, None]
        return cell.flatten(1)

    def read(self, clip: Int[Tensor, " b"], start_frame: Int[Tensor, " b"], grid: PatchGrid) -> Float[Tensor, "b n 1"]:
        """The losses of crops; unknown ones are the mean of the crop's known ones, and 1 where none is known.

        Only a crop's own losses are compared with each other, so losses outside the crop are not read.
        """
        loss = self.loss[self.cells(clip, start_frame, grid)]
        loss = loss.masked_fill(~self._comes_again(clip, start_frame)[:, None], torch.nan)
        mean = loss.nanmean(dim=1, keepdim=True).nan_to_num(nan=1.0)
        return torch.where(loss.isnan(), mean, loss)[:, :, None]

    def note(self, batch: Batch, mask: Mask, loss: Float[Tensor, "b m"], valid: Bool[Tensor, "b n"] | None) -> None:
        """Record the losses of one part of a batch; padding is left out."""
        grid = self.grid.shortened(mask.num_patches)
        cell = self.cells(batch.clip, batch.start_frame, grid).to(loss.device).gather(1, mask.masked)
        is_recorded = self._comes_again(batch.clip, batch.start_frame).to(loss.device)[:, None]
        is_known = (counted(mask, valid) > 0) & loss.isfinite() & is_recorded
        # All processes note tensors of one shape, though their crops may differ in length.
        missing = (0, self.grid.num_patches - mask.masked.shape[1])
        self._noted.append((F.pad(cell.where(is_known, -1), missing, value=-1), F.pad(loss.float(), missing)))

    def after_step(self, world: World) -> None:
        """Merge what was noted in all processes. A patch that was masked more than once counts with its mean."""
        cell, loss = (world.gather(torch.cat([part[i].flatten() for part in self._noted])).cpu() for i in range(2))
        self._noted.clear()
        is_known = cell >= 0
        met, which = cell[is_known].unique(return_inverse=True)
        new = (which.bincount(loss[is_known].double()) / which.bincount()).float()
        old = self.loss[met]
        self.loss[met] = torch.where(old.isnan(), new, self.smoothing * old + (1 - self.smoothing) * new)

    @staticmethod
    def _comes_again(clip: Int[Tensor, " b"], start_frame: Int[Tensor, " b"]) -> Bool[Tensor, " b"]:
        """Whether a crop's patches are places of its recording: not if it is synthesised or stretched."""
        return (clip >= 0) & (start_frame >= 0)

    def _nearest(self, frame: Any) -> Any:
        """Frames in whole patches, halves rounded up; numbers or tensors."""
        patch_frames = self.grid.patch[1]
        return (2 * frame + patch_frames) // (2 * patch_frames)
