"""Draws the masks of a run: the guide that its strategy needs, random numbers from the step, and what it learns."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from melmask.data.loader import Loader, random_seed
from melmask.masking import MaskingStrategy, draw
from melmask.masking.base import Needs, Seen, num_masked_of
from melmask.masking.laws import guidance
from melmask.nn.vit import Encoder
from melmask.patches import grid_of, patchify, valid_patches, whole_patches
from melmask.train.distributed import World
from melmask.train.mask_state import LossHistory
from melmask.train.recipe import Recipe
from melmask.train.timer import Timer
from melmask.types import Batch, Mask, PatchGrid

LOSS = "loss"  # name of the loss history in a checkpoint; a strategy's own state may not be called so


@torch.no_grad()
def guide_of(
    needs: Needs,
    encoders: Mapping[str, Encoder],
    patches: Float[Tensor, "b n p"],
    grid: PatchGrid,
    losses: Float[Tensor, "b n 1"] | None = None,
) -> Float[Tensor, "b n d"] | None:
    """The guide that a strategy needs.

    Args:
        needs: of the strategy.
        encoders: of the framework as it is now, by name; empty if there is no model.
        patches: the input.
        grid: its layout.
        losses: the recorded losses of the model.

    Raises:
        ValueError: the encoder or the losses that it needs are missing.
    """
    if needs.guide == "nothing":
        return None
    if needs.guide == "patches":
        return patches
    if needs.guide == "loss":
        if losses is None:
            raise ValueError("the strategy needs the model's past losses, and the run has not saved any yet")
        return losses
    if needs.encoder not in encoders:
        raise ValueError(f"the strategy needs the {needs.encoder} encoder's {needs.guide}, and the run has none yet")
    encoder = encoders[needs.encoder]
    return encoder(patches, grid)[:, 1:] if needs.guide == "features" else encoder.class_attention(patches, grid)


class Masker:
    """Draws the masks of a run: random numbers from (seed, step, part), the guide from what the strategy needs.

    Args:
        recipe: strategy, ratio and schedules.
        loader: the recordings of the training data.
        world: all processes.
    """

    def __init__(self, recipe: Recipe, loader: Loader, world: World) -> None:
        self.recipe, self.loader, self.world = recipe, loader, world
        self.grid = recipe.grid(loader.store.spec.num_mels)  # of a crop of full length
        self.timer = Timer(world.device)
        self.hints, self.exponent = recipe.hints(self.grid), recipe.exponent()
        self._strategy = recipe.make_strategy()
        self._is_started = self._strategy.num_sample_crops == 0
        self.needs = self._strategy.needs
        self.history = LossHistory(loader, self.grid, self.needs.smoothing) if self.needs.guide == "loss" else None
        self._measured: list[Tensor] = []

    def settings(self, progress: float) -> tuple[float | None, float | None, float | None]:
        """Hint ratio, guidance λ and exponent at that share of the run; None where they do not apply."""
        exponent = None if self.exponent is None else self.exponent(progress)
        if not self.recipe.takes_hints:
            return None, None, exponent
        hint_ratio, num_patches = self.hints(progress), self.grid.num_patches
        num_masked = num_masked_of(num_patches, self.recipe.mask_ratio)
        return hint_ratio, guidance(num_patches, num_masked, hint_ratio), exponent

    def strategy(self, progress: float) -> MaskingStrategy:
        """The strategy at that share of the run, with what it has learnt so far."""
        strategy = self._started()
        return strategy if self.exponent is None else strategy.with_exponent(self.exponent(progress))

    def guide(
        self, encoders: Mapping[str, Encoder], patches: Tensor, clip: Tensor, start_frame: Tensor
    ) -> Float[Tensor, "b n d"] | None:
        """The strategy's guide for crops that start there in those recordings."""
        losses, grid = None, self.grid.shortened(patches.shape[1])
        if self.history is not None:
            losses = self.history.read(clip, start_frame, grid).to(patches.device)
        return guide_of(self.needs, encoders, patches, grid, losses)

    def draw(
        self, key: tuple[int, int], progress: float, encoders: Mapping[str, Encoder], batch: Batch, patches: Tensor,
        valid: Tensor | None,
    ) -> Mask:  # fmt: skip
        """The mask of one part of a batch.

        Args:
            key: step and part.
            progress: share of the run that is done.
            encoders: of the framework, by name, for the guide.
            batch: the recordings and positions of the crops.
            patches: the crops, as patches.
            valid: False for padding.
        """
        strategy = self.strategy(progress)
        with self.timer:
            seed = random_seed(self.recipe.seed, 2, *key)
            mask = draw(
                strategy,
                grid=self.grid.shortened(patches.shape[1]),
                batch_size=len(patches),
                mask_ratio=self.recipe.mask_ratio,
                rng=torch.Generator().manual_seed(seed),
                guide=self.guide(encoders, patches, batch.clip, batch.start_frame),
                hint_ratio=self.hints(progress),
                valid=valid,
            )
            return Mask(mask.visible.to(patches.device), mask.masked.to(patches.device))

    def note(self, batch: Batch, patches: Tensor, mask: Mask, loss: Tensor, valid: Tensor | None) -> None:
        """Record the result of one part of a batch; it affects masks from the next step on."""
        with self.timer:
            if self.history is not None:
                self.history.note(batch, mask, loss, valid)
            seen = Seen(patches, self.grid.shortened(patches.shape[1]), valid, mask, loss)
            measured = self._started().measure(seen)
            if measured is not None:
                self._measured.append(measured)

    def after_step(self) -> None:
        """Learn from all parts of a step, in all processes alike."""
        with self.timer:
            if self.history is not None:
                self.history.after_step(self.world)
            if self._measured:
                self._strategy = self._started().learn(self.world.gather(torch.stack(self._measured)))
                self._measured.clear()

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold of the masking.

        Raises:
            ValueError: a strategy calls a part of its state as the loss history is called.
        """
        state = dict(self._started().state())
        if LOSS in state:
            raise ValueError(
                f"{self.recipe.strategy} has a state called {LOSS!r}, which is the loss history's: rename it"
            )
        return state if self.history is None else state | {LOSS: self.history.loss}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take what `state` returned, as a run resumes."""
        state = dict(state)
        if self.history is not None:
            self.history.loss = state.pop(LOSS)
        self._strategy, self._is_started = self._strategy.restore(state), True

    def _started(self) -> MaskingStrategy:
        """The strategy; before the first step it is shown its sample of the training data."""
        if not self._is_started:
            sample, shape = self.loader.sample(self._strategy.num_sample_crops), self.recipe.patch_shape
            grid, patches = grid_of(sample.log_mel, shape), patchify(whole_patches(sample.log_mel, shape), shape)
            valid = valid_patches(sample.num_valid_frames, grid)
            self._strategy, self._is_started = self._strategy.start(Seen(patches, grid, valid)), True
        return self._strategy
