"""How many floating-point operations a training step takes, by part, counted exactly from the recipe.

Counted are matrix products, with a multiplication and an addition each: linear layers, attention, and the products
with which a strategy ranks patches. Norms, softmax, GELU and losses are excluded, as is usual for FLOPs. AdamW has no
products; of the optimiser every elementary operation is counted, and Muon's products.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from melmask.frameworks.cost import Pass, Product
from melmask.masking import MaskingStrategy
from melmask.masking.base import num_masked_of
from melmask.nn.vit import Size
from melmask.train.optimiser import muon_matrices
from melmask.train.recipe import Recipe
from melmask.types import PatchGrid

CLIP_OPERATIONS = 3  # square, add; scale: of every gradient
MUON_OPERATIONS = 12  # decay 1, momentum 3, Nesterov's form of it 3, norm 3, the step 2; and `muon_flops`
EMA_OPERATIONS = 3  # subtract, scale, add
ADAMW_OPERATIONS = 14  # decay 1, first moment 3, second moment 4, its root with epsilon 3, the step 3


@dataclass(frozen=True)
class Part:
    """Floating-point operations of one part of a step, for one sample.

    Args:
        name: of the part.
        num_tokens: that its blocks take.
        forward: operations of its forward pass.
        backward: operations of its backward pass; 0 for a part that is not trained.
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
    """Floating-point operations of one optimiser step.

    Args:
        parts: for one sample each.
        optimiser: for the whole step: gradient clipping, AdamW and Muon, the moving average of the encoder's weights,
            and the framework's `after_step`.
        batch_size: samples in the step.
    """

    parts: tuple[Part, ...]
    optimiser: int
    batch_size: int

    @property
    def per_sample(self) -> int:
        """Operations of all parts for one sample, without the optimiser's."""
        return sum(part.total for part in self.parts)

    @property
    def per_step(self) -> int:
        return self.per_sample * self.batch_size + self.optimiser


@dataclass(frozen=True)
class TokenCounts:
    """The numbers of all, of visible and of masked patches of a sample, without the class token."""

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
        ValueError: the crop is smaller than a patch, or the mask ratio leaves no patch visible or none masked.
    """
    grid = recipe.grid(num_mels)
    count = TokenCounts.of(recipe, grid)
    model = recipe.outline()
    cost = model.cost(count.visible, count.masked)
    parts = [part_of(each) for each in cost.passes]
    if recipe.checkpoint_activations:
        trained = [each for each in cost.passes if each.is_trained]
        again = sum(recomputed_flops(each) for each in trained)
        parts.append(Part("blocks again", sum(each.num_tokens for each in trained), 0, again))
    parts += guide_parts(recipe.make_strategy(), recipe, grid)
    by_muon = muon_matrices(model, recipe)
    num_by_adamw = num_parameters(recipe)[0] - sum(parameter.numel() for parameter in by_muon)
    optimiser = CLIP_OPERATIONS * num_parameters(recipe)[0] + ADAMW_OPERATIONS * num_by_adamw + cost.after_step
    optimiser += sum(muon_flops(p, num_parts, recipe.muon_iterations) for p, num_parts in by_muon.items())
    if recipe.weights_ema:
        optimiser += EMA_OPERATIONS * sum(parameter.numel() for parameter in model.encoder.parameters())
    return StepFlops(tuple(parts), optimiser, recipe.batch_size)


def muon_flops(parameter: Tensor, num_parts: int, num_iterations: int) -> int:
    """Muon's step on a parameter that holds that many matrices one above the other.

    An iteration takes three products: of the matrix with its transpose, of that with itself, and of their sum with the
    matrix.
    """
    short, long = sorted((parameter.shape[0] // num_parts, parameter.shape[1]))
    products = 2 * (2 * short**2 * long + short**3)
    sums = 2 * short**2 + 2 * short * long  # of each of the two polynomials: scale, and add
    return num_parts * (num_iterations * (products + sums) + MUON_OPERATIONS * short * long)


def part_of(each: Pass) -> Part:
    """The operations of a pass. A backward pass takes two products for each of the forward pass, or one on data."""
    forward = blocks_flops(each.size, each.num_tokens, each.num_context_tokens) + sum(map(product_flops, each.products))
    on_data = sum(product_flops(product) for product in each.products if product.of_data)
    return Part(each.name, each.num_tokens, forward, 2 * forward - on_data if each.is_trained else 0)


def guide_parts(strategy: MaskingStrategy, recipe: Recipe, grid: PatchGrid) -> list[Part]:
    """The operations of a strategy for one sample: a pass of all patches through the encoder if it needs one; ranking.

    Args:
        strategy: its ``needs`` say what guides it.
        recipe: of which only the encoder, the patches and the mask ratio are used.
        grid: of a crop.
    """
    size, num_patches, patch_values = recipe.encoder_size, grid.num_patches, recipe.patch_values
    parts = []
    if strategy.needs.guide == "features":
        parts.append(Part("guide pass", num_patches + 1, encoder_flops(size, patch_values, num_patches), 0))
    if strategy.needs.guide == "attention":
        whole, tokens = encoder_flops(size, patch_values, num_patches), num_patches + 1
        # Of the last block only the class token's attention is computed.
        last = linear_flops(tokens, size.dim, 3 * size.dim) + linear_flops(1, size.dim, tokens)
        parts.append(Part("guide pass", tokens, whole - blocks_flops(size, tokens) // size.depth + last, 0))
    ranking = ranking_flops(strategy, recipe, grid)
    if ranking:
        parts.append(Part("ranking", num_patches, ranking, 0))
    return parts


@torch.no_grad()
def ranking_flops(strategy: MaskingStrategy, recipe: Recipe, grid: PatchGrid) -> int:
    """The products with which the strategy ranks one sample's patches, counted by torch while it does so."""
    size, rng = recipe.encoder_size, torch.Generator().manual_seed(0)
    width = {"nothing": 0, "patches": recipe.patch_values, "features": size.dim, "attention": size.heads, "loss": 1}
    guide = torch.rand((1, grid.num_patches, width[strategy.needs.guide]), generator=rng)
    with FlopCounterMode(display=False) as counter:
        num_masked = num_masked_of(grid.num_patches, recipe.mask_ratio)
        strategy.priority(1, grid, num_masked, rng, None if strategy.needs.guide == "nothing" else guide)
    return counter.get_total_flops()


def num_parameters(recipe: Recipe) -> tuple[int, int]:
    """The numbers of parameters that are trained, and that are not, such as a target encoder's."""
    parameters = list(recipe.outline().parameters())
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    return trained, sum(parameter.numel() for parameter in parameters) - trained


def encoder_flops(size: Size, patch_values: int, num_patches: int) -> int:
    """A forward pass of that many patches, and the class token, through an encoder."""
    return linear_flops(num_patches, patch_values, size.dim) + blocks_flops(size, num_patches + 1)


def blocks_flops(size: Size, num_tokens: int, num_context_tokens: int | None = None) -> int:
    """A forward pass of that many tokens through all blocks: 24 d^2 a token in linear layers, 4 t^2 d in attention.

    With cross-attention, 20 d^2 a token and 4 d^2 a context token, of which keys and values are made, and 4 t c d.

    >>> blocks_flops(Size(768, 12, 12), 197) // 10**6  # a ViT-Base on 14 x 14 patches
    34894
    """
    context = num_tokens if num_context_tokens is None else num_context_tokens
    linear = sum(linear_flops(num_tokens, size.dim, wide * size.dim) for wide in (1, 1, 4, 4))
    linear += linear_flops(context, size.dim, 2 * size.dim)
    return size.depth * (linear + 4 * num_tokens * context * size.dim)


def recomputed_flops(each: Pass) -> int:
    """What activation checkpointing computes again: the blocks without their last linear layers."""
    if each.num_context_tokens is not None:  # blocks with cross-attention are not computed again
        return 0
    size, num_tokens = each.size, each.num_tokens
    return blocks_flops(size, num_tokens) - size.depth * linear_flops(num_tokens, 4 * size.dim, size.dim)


def linear_flops(num_tokens: int, fan_in: int, fan_out: int) -> int:
    """A linear layer on that many tokens; its bias is not counted."""
    return 2 * num_tokens * fan_in * fan_out


def product_flops(product: Product) -> int:
    """A linear layer outside the blocks."""
    return linear_flops(product.num_tokens, product.fan_in, product.fan_out)
