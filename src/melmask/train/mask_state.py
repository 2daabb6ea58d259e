"""What a run remembers of its data from step to step, for strategies that look back."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from melmask.data.loader import Loader
from melmask.data.store import Store
from melmask.frameworks.base import counted
from melmask.masking.bands import BandDispersion, FreqProfile, band_profile
from melmask.patches import grid_of, patchify, valid_patches, whole_patches
from melmask.train.distributed import World
from melmask.train.recipe import Recipe
from melmask.types import Batch, Mask, PatchGrid

PROFILE_CROPS = 1024  # of the training data, to measure a frequency profile on
PROFILE_DECAY = 0.99  # of a running profile, a step


class LossMemory:
    """The model's loss at every patch of every recording when it was last masked, smoothed over visits.

    It lies on the recordings' own time axes: crops start anywhere, and a patch of a crop stands for the nearest column
    of patches of its recording. All processes hold the same memory.

    Args:
        store: the recordings.
        rows: those that are trained on.
        grid: of a crop of full length.
        patch_frames: length of a patch.
        smoothing: how much of a remembered loss is kept when a new one comes.
    """

    def __init__(self, store: Store, rows: Sequence[int], grid: PatchGrid, patch_frames: int, smoothing: float) -> None:
        self.grid, self.patch_frames, self.smoothing = grid, patch_frames, smoothing
        # The last column that a crop can be nearest to ends within half a patch of the recording's end.
        num_columns = [max(self._nearest(store.clips[row].num_frames), grid.time) for row in rows]
        self._first_column = torch.full((len(store),), -1)
        self._first_column[torch.tensor(rows)] = torch.tensor([0, *num_columns[:-1]]).cumsum(0)
        self.loss = torch.full((sum(num_columns) * grid.freq,), torch.nan)  # NaN: never masked so far
        self._noted: list[tuple[Tensor, Tensor]] = []

    def cells(self, clip: Int[Tensor, " b"], start_frame: Int[Tensor, " b"], grid: PatchGrid) -> Int[Tensor, "b n"]:
        """Where the memory holds each patch of crops of that grid, which may be shorter than the longest."""
        first = self._first_column[clip] + self._nearest(start_frame)
        column = first[:, None] + torch.arange(grid.time)
        cell = column[:, None, :] * grid.freq + torch.arange(grid.freq)[:, None]
        return cell.flatten(1)

    def read(self, clip: Int[Tensor, " b"], start_frame: Int[Tensor, " b"], grid: PatchGrid) -> Float[Tensor, "b n 1"]:
        """The losses of crops; unknown ones are the mean of the crop's known ones, and one where none is known.

        Only a crop's own losses are weighed against each other, so nothing beyond it is asked.
        """
        loss = self.loss[self.cells(clip, start_frame, grid)]
        mean = loss.nanmean(dim=1, keepdim=True).nan_to_num(nan=1.0)
        return torch.where(loss.isnan(), mean, loss)[:, :, None]

    def note(
        self, batch: Batch, patches: Tensor, mask: Mask, loss: Float[Tensor, "b m"], valid: Bool[Tensor, "b n"] | None
    ) -> None:
        """Hand in the losses of one part of a batch; padding is not counted."""
        grid = self.grid.shortened(mask.num_patches)
        cell = self.cells(batch.clip, batch.start_frame, grid).to(loss.device).gather(1, mask.masked)
        is_known = (counted(mask, valid) > 0) & loss.isfinite()
        # All processes note tensors of one shape, though their crops may differ in length.
        missing = (0, self.grid.num_patches - mask.masked.shape[1])
        self._noted.append((F.pad(cell.where(is_known, -1), missing, value=-1), F.pad(loss.float(), missing)))

    def after_step(self, world: World) -> None:
        """Take up what was noted in all processes. A patch that was met more than once counts with its mean."""
        cell, loss = (world.gather(torch.cat([part[i].flatten() for part in self._noted])).cpu() for i in range(2))
        self._noted.clear()
        is_known = cell >= 0
        met, which = cell[is_known].unique(return_inverse=True)
        new = (which.bincount(loss[is_known].double()) / which.bincount()).float()
        old = self.loss[met]
        self.loss[met] = torch.where(old.isnan(), new, self.smoothing * old + (1 - self.smoothing) * new)

    def state(self) -> dict[str, Tensor]:
        """What a resumed run must be given back."""
        return {"loss": self.loss}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Remember what `state` gave."""
        self.loss = state["loss"]

    def _nearest(self, frame: Any) -> Any:
        """Frames in whole patches, halves rounded up; numbers or tensors."""
        return (2 * frame + self.patch_frames) // (2 * self.patch_frames)


class ProfileMemory:
    """The mean dispersion of each row of patches: of a fixed sample of the training data, and from there on running.

    All processes hold the same memory.

    Args:
        loader: of the sample.
        patch_shape: (freq, time) of a patch.
        is_running: whether batches move the profile, or it stays the sample's.
        options: of `band_profile`.
    """

    def __init__(self, loader: Loader, patch_shape: tuple[int, int], is_running: bool, **options: Any) -> None:
        self.is_running, self.options = is_running, options
        self._loader, self._patch_shape = loader, patch_shape
        self._noted: list[Tensor] = []

    @cached_property
    def profile(self) -> Float[Tensor, " freq"]:
        """As it is now; the sample's, until it is moved or restored."""
        sample, shape = self._loader.sample(PROFILE_CROPS), self._patch_shape
        grid, patches = grid_of(sample.log_mel, shape), patchify(whole_patches(sample.log_mel, shape), shape)
        valid = valid_patches(sample.num_valid_frames, grid, shape)
        return band_profile(patches, grid, valid=valid, **self.options)

    def note(
        self, batch: Batch, patches: Float[Tensor, "b n p"], mask: Mask, loss: Tensor, valid: Tensor | None
    ) -> None:
        """Hand in one part of a batch."""
        if self.is_running:
            grid = grid_of(batch.log_mel, self._patch_shape)
            self._noted.append(band_profile(patches, grid, valid=valid, **self.options))

    def after_step(self, world: World) -> None:
        """Move a little towards the mean of what was noted in all processes."""
        if self.is_running:
            profile = world.gather(torch.stack(self._noted)).cpu().mean(dim=0)
            self.profile = PROFILE_DECAY * self.profile + (1 - PROFILE_DECAY) * profile
            self._noted.clear()

    def state(self) -> dict[str, Tensor]:
        """What a resumed run must be given back."""
        return {"profile": self.profile}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Remember what `state` gave."""
        self.profile = state["profile"]


def memory_for(recipe: Recipe, loader: Loader) -> LossMemory | ProfileMemory | None:
    """A fresh memory of what the recipe's strategy looks back at; None if it does not."""
    strategy = recipe.make_strategy()
    if strategy.needs == "loss":
        grid, smoothing = recipe.grid(loader.store.spec.num_mels), getattr(strategy, "smoothing", 0.0)
        return LossMemory(loader.store, loader.rows.tolist(), grid, recipe.patch_shape[1], smoothing)
    if isinstance(strategy, BandDispersion) and strategy.bands == "running":
        options = {"statistic": strategy.statistic, "patch_time": strategy.patch_time}
        return ProfileMemory(loader, recipe.patch_shape, is_running=True, **options)
    if isinstance(strategy, FreqProfile):
        return ProfileMemory(loader, recipe.patch_shape, is_running=False)
    return None
