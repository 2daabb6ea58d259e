"""How many floating-point operations a training step takes, by part, counted exactly from the recipe.

What is counted are matrix products, a multiplication and an addition each: linear layers, attention, and what a
strategy multiplies to rank patches. Norms, softmax, GELU and losses are left out, as everywhere where FLOPs are
counted; they cost time but hardly operations. The optimiser has no products; of it every elementary operation counts.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from melmask.frameworks import M2D, Framework, make_model
from melmask.masking import MaskingStrategy
from melmask.masking.base import num_masked_of
from melmask.nn.vit import SIZES, Size
from melmask.train.recipe import Recipe
from melmask.types import PatchGrid

CLIP_OPERATIONS = 3  # square, add; scale: of every gradient
ADAMW_OPERATIONS = 14  # decay 1, first moment 3, second moment 4, its root with epsilon 3, the step 3
EMA_OPERATIONS = 3  # subtract, scale, add


@dataclass(frozen=True)
class Part:
    """What one part of a step takes for one sample, in floating-point operations.

    Args:
        name: which part.
        num_tokens: that its blocks look at.
        forward: operations of its forward pass.
        backward: of its backward pass; 0 for what is not trained.
    """

    name: str
    num_tokens: int
    forward: int
    backward: int

    @property
    def total(self) -> int:
        return self.forward + self.backward


@dataclass(frozen=True)
class StepFlops:
    """The operations of one optimiser step.

    Args:
        parts: for one sample each.
        optimiser: for the whole step: gradient clipping, AdamW, and M2D's average.
        batch_size: samples in the step.
    """

    parts: tuple[Part, ...]
    optimiser: int
    batch_size: int

    @property
    def per_sample(self) -> int:
        """All parts for one sample, without the optimiser."""
        return sum(part.total for part in self.parts)

    @property
    def per_step(self) -> int:
        return self.per_sample * self.batch_size + self.optimiser


@dataclass(frozen=True)
class TokenCounts:
    """How many patches there are, are visible and are masked; the class token comes on top of each."""

    all: int
    visible: int
    masked: int

    @staticmethod
    def of(recipe: Recipe, grid: PatchGrid) -> "TokenCounts":
        num_masked = num_masked_of(grid.num_patches, recipe.mask_ratio)
        return TokenCounts(grid.num_patches, grid.num_patches - num_masked, num_masked)


def step_flops(recipe: Recipe, num_mels: int) -> StepFlops:
    """The operations of one step of the recipe, on all devices together.

    Args:
        recipe: framework, sizes, crop, mask ratio, strategy and batch size.
        num_mels: mel bands of the store.

    Raises:
        ValueError: the crop is smaller than a patch, or the mask ratio leaves one side empty.
    """
    grid, size, patch_values = recipe.grid(num_mels), SIZES[recipe.size], recipe.patch_shape[0] * recipe.patch_shape[1]
    count = TokenCounts.of(recipe, grid)
    decoder, is_m2d = recipe.decoder_size, recipe.framework == "m2d"
    encoder_blocks, decoder_blocks = blocks_flops(size, count.visible + 1), blocks_flops(decoder, count.all + 1)
    embed = linear_flops(count.visible, patch_values, size.dim)
    into = linear_flops(count.visible + 1, size.dim, decoder.dim)
    out_of = linear_flops(count.masked, decoder.dim, size.dim if is_m2d else patch_values)
    decoded = into + decoder_blocks + out_of
    # A backward pass is two products for each of the forward pass; the patches themselves need no gradient.
    parts = [
        Part("encoder", count.visible + 1, embed + encoder_blocks, embed + 2 * encoder_blocks),
        Part("predictor" if is_m2d else "decoder", count.all + 1, decoded, 2 * decoded),
    ]
    if is_m2d:
        parts.append(Part("target", count.masked + 1, encoder_flops(size, patch_values, count.masked), 0))
    if recipe.checkpoint_activations:
        again = recomputed_flops(size, count.visible + 1) + recomputed_flops(decoder, count.all + 1)
        parts.append(Part("blocks again", count.visible + count.all + 2, 0, again))
    parts += guide_parts(recipe.make_strategy(), recipe, grid)
    return StepFlops(tuple(parts), optimiser_flops(recipe), recipe.batch_size)


def guide_parts(strategy: MaskingStrategy, recipe: Recipe, grid: PatchGrid) -> list[Part]:
    """What the strategy costs for one sample: a pass of all patches through the encoder, if it needs one; its ranking.

    Args:
        strategy: says what it looks at.
        recipe: of which only the encoder, the patches and the mask ratio matter.
        grid: of a crop.
    """
    size, num_patches = SIZES[recipe.size], grid.num_patches
    patch_values = recipe.patch_shape[0] * recipe.patch_shape[1]
    parts = []
    if strategy.needs.guide == "features":
        parts.append(Part("guide pass", num_patches + 1, encoder_flops(size, patch_values, num_patches), 0))
    if strategy.needs.guide == "attention":
        whole, tokens = encoder_flops(size, patch_values, num_patches), num_patches + 1
        # The last block stops at how much the class token attends to each.
        last = linear_flops(tokens, size.dim, 3 * size.dim) + linear_flops(1, size.dim, tokens)
        parts.append(Part("guide pass", tokens, whole - blocks_flops(size, tokens) // size.depth + last, 0))
    ranking = ranking_flops(strategy, recipe, grid)
    if ranking:
        parts.append(Part("ranking", num_patches, ranking, 0))
    return parts


@torch.no_grad()
def ranking_flops(strategy: MaskingStrategy, recipe: Recipe, grid: PatchGrid) -> int:
    """The products with which the strategy ranks one sample's patches, counted by torch while it does so."""
    size, rng = SIZES[recipe.size], torch.Generator().manual_seed(0)
    patch_values = recipe.patch_shape[0] * recipe.patch_shape[1]
    width = {"nothing": 0, "patches": patch_values, "features": size.dim, "attention": size.heads, "loss": 1}
    guide = torch.rand((1, grid.num_patches, width[strategy.needs.guide]), generator=rng)
    with FlopCounterMode(display=False) as counter:
        num_masked = num_masked_of(grid.num_patches, recipe.mask_ratio)
        strategy.priority(1, grid, num_masked, rng, None if strategy.needs.guide == "nothing" else guide)
    return counter.get_total_flops()


def optimiser_flops(recipe: Recipe) -> int:
    """Gradient clipping and AdamW on all trained parameters, and M2D's average."""
    trained, averaged = num_parameters(recipe)
    return (CLIP_OPERATIONS + ADAMW_OPERATIONS) * trained + EMA_OPERATIONS * averaged


def num_parameters(recipe: Recipe) -> tuple[int, int]:
    """How many parameters are trained, and how many follow as an average (M2D's target encoder)."""
    return _num_parameters(recipe.framework, SIZES[recipe.size], recipe.decoder_size, recipe.patch_shape)


@lru_cache(maxsize=64)
def _num_parameters(
    framework: Framework, encoder: Size, decoder: Size, patch_shape: tuple[int, int]
) -> tuple[int, int]:
    with torch.device("meta"):
        model = make_model(framework, encoder, decoder, patch_shape)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return trained, sum(p.numel() for p in model.target.parameters()) if isinstance(model, M2D) else 0


def encoder_flops(size: Size, patch_values: int, num_patches: int) -> int:
    """A forward pass of that many patches, and the class token, through an encoder."""
    return linear_flops(num_patches, patch_values, size.dim) + blocks_flops(size, num_patches + 1)


def blocks_flops(size: Size, num_tokens: int) -> int:
    """A forward pass of that many tokens through all blocks: 24 d^2 a token in linear layers, 4 t^2 d in attention.

    >>> blocks_flops(Size(768, 12, 12), 197) // 10**6  # a ViT-Base on 14 x 14 patches
    34894
    """
    linear = sum(linear_flops(num_tokens, size.dim, wide * size.dim) for wide in (3, 1, 4, 4))
    return size.depth * (linear + 4 * num_tokens**2 * size.dim)


def recomputed_flops(size: Size, num_tokens: int) -> int:
    """What checkpointing computes again: all of the blocks but their last linear layers, whose inputs are enough."""
    return blocks_flops(size, num_tokens) - size.depth * linear_flops(num_tokens, 4 * size.dim, size.dim)


def linear_flops(num_tokens: int, fan_in: int, fan_out: int) -> int:
    """A linear layer on that many tokens; its bias is not counted."""
    return 2 * num_tokens * fan_in * fan_out
