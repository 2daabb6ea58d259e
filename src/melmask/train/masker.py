"""What a run's strategy looks at, and the masks that come of it."""

import dataclasses
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from melmask.data.loader import Loader, random_state
from melmask.frameworks import M2D, MSMMAE
from melmask.masking import MaskingStrategy, draw
from melmask.masking.base import num_masked_of
from melmask.masking.laws import guidance
from melmask.nn.vit import Encoder
from melmask.train.distributed import World
from melmask.train.mask_state import LossMemory, ProfileMemory, memory_for
from melmask.train.recipe import Recipe
from melmask.train.timer import Timer
from melmask.types import Batch, Mask, PatchGrid


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
    encoder = None if model is None else encoder_of(strategy, model)
    return guide_through(strategy, encoder, patches, grid, losses)


@torch.no_grad()
def guide_through(
    strategy: MaskingStrategy,
    encoder: Encoder | None,
    patches: Float[Tensor, "b n p"],
    grid: PatchGrid,
    losses: Float[Tensor, "b n 1"] | None = None,
) -> Float[Tensor, "b n d"] | None:
    """What the strategy looks at, as `guide_of`, through a given encoder."""
    if strategy.needs == "nothing":
        return None
    if strategy.needs == "patches":
        return patches
    if strategy.needs == "loss":
        if losses is None:
            raise ValueError("the strategy looks at the model's past losses, and the run has not saved any yet")
        return losses
    if encoder is None:
        raise ValueError(f"the strategy looks at the encoder's {strategy.needs}, and the run has not saved one yet")
    return encoder(patches, grid)[:, 1:] if strategy.needs == "features" else encoder.class_attention(patches, grid)


def encoder_of(strategy: MaskingStrategy, model: M2D | MSMMAE) -> Encoder:
    """The encoder that the strategy looks through: the online one, or the average that M2D keeps of it."""
    if getattr(strategy, "encoder", "online") == "online":
        return model.encoder
    assert isinstance(model, M2D)  # the recipe has checked it
    return model.target


class Masker:
    """Draws a run's masks: chance from (seed, step, part), the guide from what the strategy needs.

    Args:
        recipe: strategy, ratio and schedules.
        loader: the recordings that are trained on.
        world: all processes.
    """

    def __init__(self, recipe: Recipe, loader: Loader, world: World) -> None:
        self.recipe, self.world = recipe, world
        self.grid = recipe.grid(loader.store.spec.num_mels)  # of a crop of full length
        self.timer = Timer(world.device)
        self.hints, self.exponent = recipe.hints(self.grid), recipe.exponent()
        self._strategy = recipe.make_strategy()
        self.memory = memory_for(recipe, loader)

    def settings(self, progress: float) -> tuple[float | None, float | None, float | None]:
        """Hint ratio, guidance λ and exponent at that share of the run; None where they do not apply."""
        exponent = None if self.exponent is None else self.exponent(progress)
        if not self.recipe.takes_hints:
            return None, None, exponent
        hint_ratio, num_patches = self.hints(progress), self.grid.num_patches
        num_masked = num_masked_of(num_patches, self.recipe.mask_ratio)
        return hint_ratio, guidance(num_patches, num_masked, hint_ratio), exponent

    def strategy(self, progress: float) -> MaskingStrategy:
        """The strategy as it is at that share of the run, with what it has learnt so far."""
        strategy: Any = self._strategy
        if isinstance(self.memory, ProfileMemory):
            strategy = strategy.learn(self.memory.profile)
        return strategy if self.exponent is None else dataclasses.replace(strategy, exponent=self.exponent(progress))

    def guide(
        self, model: M2D | MSMMAE | None, patches: Tensor, clip: Tensor, start_frame: Tensor
    ) -> Float[Tensor, "b n d"] | None:
        """What the strategy looks at, of crops that start there in those recordings."""
        losses, grid = None, self.grid.shortened(patches.shape[1])
        if isinstance(self.memory, LossMemory):
            losses = self.memory.read(clip, start_frame, grid).to(patches.device)
        return guide_of(self._strategy, model, patches, grid, losses)

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
        strategy = self.strategy(progress)
        with self.timer:
            seed = int(random_state(self.recipe.seed, 2, *key).integers(2**63))
            mask = draw(
                strategy,
                grid=self.grid.shortened(patches.shape[1]),
                batch_size=len(patches),
                mask_ratio=self.recipe.mask_ratio,
                rng=torch.Generator().manual_seed(seed),
                guide=self.guide(model, patches, batch.clip, batch.start_frame),
                hint_ratio=self.hints(progress),
                valid=valid,
            )
            return Mask(mask.visible.to(patches.device), mask.masked.to(patches.device))

    def note(self, batch: Batch, patches: Tensor, mask: Mask, loss: Tensor, valid: Tensor | None) -> None:
        """Hand in what came of one part of a batch; it shows in masks from the next step on."""
        if self.memory is not None:
            with self.timer:
                self.memory.note(batch, patches, mask, loss, valid)

    def after_step(self) -> None:
        """Take up what all parts of a step have taught, in all processes alike."""
        if self.memory is not None:
            with self.timer:
                self.memory.after_step(self.world)

    def state(self) -> dict[str, Tensor]:
        """What a resumed run must be given back."""
        return {} if self.memory is None else self.memory.state()

    def restore(self, state: dict[str, Tensor]) -> None:
        """Remember what `state` gave."""
        if self.memory is not None:
            self.memory.restore(state)
