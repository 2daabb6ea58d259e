"""What a run's strategy looks at, what the run remembers for it, and the masks that come of it."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from melmask.data.loader import Loader, random_state
from melmask.data.store import Store
from melmask.masking import MaskingStrategy, draw
from melmask.masking.base import num_visible_of
from melmask.masking.laws import guidance
from melmask.models import M2D, MSMMAE
from melmask.models.base import counted
from melmask.train.clock import Clock
from melmask.train.distributed import World
from melmask.train.recipe import Recipe
from melmask.types import Batch, Mask, PatchGrid
from melmask.vit import Encoder


@torch.no_grad()
def guide_of(
    strategy: MaskingStrategy,
    model: M2D | MSMMAE | None,
    patches: Float[Tensor, "b n p"],
    grid: PatchGrid,
    losses: Float[Tensor, "b n 1"] | None = None,
) -> Float[Tensor, "b n d"] | None:
    """What the strategy looks at.

    Args:
        strategy: says what it needs.
        model: of which the features or the attention are, as it is now.
        patches: the input.
        grid: its layout.
        losses: what is remembered of the model's losses.

    Raises:
        ValueError: what it needs of a model is not there.
    """
    if strategy.needs == "nothing":
        return None
    if strategy.needs == "patches":
        return patches
    if strategy.needs == "loss":
        if losses is None:
            raise ValueError("the strategy looks at the model's past losses, and the run has not saved any yet")
        return losses
    if model is None:
        raise ValueError(f"the strategy looks at the encoder's {strategy.needs}, and the run has not saved one yet")
    encoder = encoder_of(strategy, model)
    return encoder(patches, grid)[:, 1:] if strategy.needs == "features" else encoder.class_attention(patches, grid)


def encoder_of(strategy: MaskingStrategy, model: M2D | MSMMAE) -> Encoder:
    """The encoder that the strategy looks through: the online one, or the average that M2D keeps of it."""
    if getattr(strategy, "encoder", "online") == "online":
        return model.encoder
    assert isinstance(model, M2D)  # the recipe has checked it
    return model.target


class LossMemory:
    """The model's loss at every patch of every recording when it was last masked, smoothed over visits.

    It lies on the recordings' own time axes: crops start anywhere, and a patch of a crop stands for the nearest column
    of patches of its recording. All processes hold the same memory.

    Args:
        store: the recordings.
        rows: those that are trained on.
        grid: of a crop.
        patch_frames: length of a patch.
        smoothing: how much of a remembered loss is kept when a new one comes.
    """

    def __init__(self, store: Store, rows: Sequence[int], grid: PatchGrid, patch_frames: int, smoothing: float) -> None:
        self.grid, self.patch_frames, self.smoothing = grid, patch_frames, smoothing
        num_columns = [max(-(-store.clips[row].num_frames // patch_frames), grid.time) for row in rows]
        self._first_column = torch.full((len(store),), -1)
        self._first_column[torch.tensor(rows)] = torch.tensor([0, *num_columns[:-1]]).cumsum(0)
        self.loss = torch.full((sum(num_columns) * grid.freq,), torch.nan)
        self._noted: list[tuple[Tensor, Tensor]] = []

    def cells(self, clip: Int[Tensor, " b"], start_frame: Int[Tensor, " b"]) -> Int[Tensor, "b n"]:
        """Where the memory holds each patch of crops."""
        first = self._first_column[clip] + (2 * start_frame + self.patch_frames) // (2 * self.patch_frames)
        column = first[:, None] + torch.arange(self.grid.time)
        cell = column[:, None, :] * self.grid.freq + torch.arange(self.grid.freq)[:, None]
        return cell.flatten(1)

    def read(self, clip: Int[Tensor, " b"], start_frame: Int[Tensor, " b"]) -> Float[Tensor, "b n 1"]:
        """The losses of crops; unknown ones are the mean of the crop's known ones, and one where none is known."""
        loss = self.loss[self.cells(clip, start_frame)]
        mean = loss.nanmean(dim=1, keepdim=True).nan_to_num(nan=1.0)
        return torch.where(loss.isnan(), mean, loss)[:, :, None]

    def note(self, batch: Batch, mask: Mask, loss: Float[Tensor, "b m"], valid: Bool[Tensor, "b n"] | None) -> None:
        """Hand in the losses of one part of a batch; padding is not counted."""
        cell = self.cells(batch.clip, batch.start_frame).to(loss.device).gather(1, mask.masked)
        is_known = (counted(mask, valid) > 0) & loss.isfinite()
        self._noted.append((cell.where(is_known, -1), loss.float()))

    def after_step(self, world: World) -> None:
        """Take up what was noted in all processes. A patch that was met more than once counts with its mean."""
        cell, loss = (world.gather(torch.cat([part[i].flatten() for part in self._noted])).cpu() for i in range(2))
        self._noted.clear()
        is_known = cell >= 0
        met, which = cell[is_known].unique(return_inverse=True)
        new = (which.bincount(loss[is_known].double()) / which.bincount()).float()
        old = self.loss[met]
        self.loss[met] = torch.where(old.isnan(), new, self.smoothing * old + (1 - self.smoothing) * new)


def loss_memory(recipe: Recipe, loader: Loader) -> LossMemory | None:
    """An empty memory for the recipe's strategy, or None if it looks at no losses."""
    strategy, store = recipe.make_strategy(), loader.store
    if strategy.needs != "loss":
        return None
    grid, smoothing = recipe.grid(store.spec.num_mels), getattr(strategy, "smoothing", 0.0)
    return LossMemory(store, loader.rows.tolist(), grid, recipe.patch_shape[1], smoothing)


class Masker:
    """Draws a run's masks: chance from (seed, step, part), the guide from what the strategy needs.

    Args:
        recipe: strategy, ratio and schedules.
        loader: the recordings that are trained on.
        world: all processes.
    """

    def __init__(self, recipe: Recipe, loader: Loader, world: World) -> None:
        self.recipe, self.world = recipe, world
        self.grid = recipe.grid(loader.store.spec.num_mels)
        self.clock = Clock(world.device)
        self.hints, self.exponent = recipe.hints(self.grid), recipe.exponent()
        self._strategy = recipe.make_strategy()
        self._losses = loss_memory(recipe, loader)

    def settings(self, progress: float) -> tuple[float | None, float | None, float | None]:
        """Hint ratio, guidance λ and exponent at that share of the run; None where they do not apply."""
        exponent = None if self.exponent is None else self.exponent(progress)
        if not self.recipe.takes_hints:
            return None, None, exponent
        hint_ratio, num_patches = self.hints(progress), self.grid.num_patches
        num_masked = num_patches - num_visible_of(num_patches, self.recipe.mask_ratio)
        return hint_ratio, guidance(num_patches, num_masked, hint_ratio), exponent

    def strategy(self, progress: float) -> MaskingStrategy:
        """The strategy as it is at that share of the run."""
        if self.exponent is None:
            return self._strategy
        return dataclasses.replace(self._strategy, exponent=self.exponent(progress))  # type: ignore[type-var]

    def guide(
        self, progress: float, model: M2D | MSMMAE | None, patches: Tensor, clip: Tensor, start_frame: Tensor
    ) -> Float[Tensor, "b n d"] | None:
        """What the strategy looks at, of crops that start there in those recordings."""
        losses = None if self._losses is None else self._losses.read(clip, start_frame).to(patches.device)
        return guide_of(self.strategy(progress), model, patches, self.grid, losses)

    def draw(
        self, key: tuple[int, int], progress: float, model: M2D | MSMMAE, batch: Batch, patches: Tensor,
        valid: Tensor | None,
    ) -> Mask:  # fmt: skip
        """The mask of one part of a batch.

        Args:
            key: step and part.
            progress: share of the run that is done.
            model: of which the guide may be.
            batch: says where the crops are from.
            patches: the crops, cut.
            valid: False for padding.
        """
        with self.clock:
            seed = int(random_state(self.recipe.seed, 2, *key).integers(2**63))
            mask = draw(
                self.strategy(progress),
                grid=self.grid,
                batch_size=len(patches),
                mask_ratio=self.recipe.mask_ratio,
                rng=torch.Generator().manual_seed(seed),
                guide=self.guide(progress, model, patches, batch.clip, batch.start_frame),
                hint_ratio=self.hints(progress),
                valid=valid,
            )
            return Mask(mask.visible.to(patches.device), mask.masked.to(patches.device))

    def note(self, batch: Batch, mask: Mask, loss: Float[Tensor, "b m"], valid: Bool[Tensor, "b n"] | None) -> None:
        """Learn from the losses of one part of a batch; it shows in masks from the next step on."""
        if self._losses is not None:
            with self.clock:
                self._losses.note(batch, mask, loss, valid)

    def after_step(self) -> None:
        """Take up what all parts of a step have taught, in all processes alike."""
        if self._losses is not None:
            with self.clock:
                self._losses.after_step(self.world)

    def state(self) -> dict[str, Tensor]:
        """What a resumed run must remember."""
        return {} if self._losses is None else {"loss": self._losses.loss}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Remember what `state` gave."""
        if self._losses is not None:
            self._losses.loss = state["loss"]
