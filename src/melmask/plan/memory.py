"""How much memory a training step needs on one device, from the recipe."""

import dataclasses
from dataclasses import dataclass

import torch

from melmask.data.loader import PREFETCHED_BATCHES
from melmask.frameworks.cost import Pass
from melmask.plan.flops import TokenCounts, num_parameters
from melmask.runtime import describe, memory_of, precision_of, this_device
from melmask.train.optimiser import muon_matrices
from melmask.train.recipe import Recipe

FLOAT32, BF16 = 4, 2  # bytes of a number

# Of a block, for each token and feature: the inputs of both norms are kept in float32; the inputs of four linear layers
# (the last four times as wide), query, key and value, and GELU's input in the precision of the products.
NORM_INPUTS, PRODUCT_INPUTS = 2, 1 + 3 + 1 + 1 + 4 + 4
TEMPORARIES = 8  # hidden layer and its gradient, while a block is computed


@dataclass(frozen=True)
class Setting:
    """Where a step runs, as far as its memory depends on it.

    Args:
        num_devices: that share the batch.
        in_bf16: whether products are computed in bf16, with float32 weights.
        on_gpu: whether it is a GPU, where attention keeps no scores and prefetched batches stay in the host's memory.
    """

    num_devices: int
    in_bf16: bool
    on_gpu: bool

    @property
    def product_bytes(self) -> int:
        """Bytes of a number that goes into a product."""
        return BF16 if self.in_bf16 else FLOAT32


@dataclass(frozen=True)
class Footprint:
    """The bytes of a step on one device, and their peak.

    Args:
        weights: the trained ones, float32.
        untrained_weights: the others, such as a target encoder's and an average's, float32.
        moments: AdamW's two, or Muon's one, float32.
        half_weights: bf16 copies of the weights, for products.
        buckets: in which devices exchange gradients.
        activations: what the forward pass keeps for the backward pass.
        batches: the current one, and on a CPU the prefetched ones.
        temporaries: of the block that is computed.
        gradients: of the trained weights, float32.
        peak: the most at any time; less than the sum, as gradients grow while activations and copies are freed.
    """

    weights: int
    untrained_weights: int
    moments: int
    half_weights: int
    buckets: int
    activations: int
    batches: int
    temporaries: int
    gradients: int
    peak: int


def part_size(recipe: Recipe, num_devices: int) -> int:
    """The number of samples that a device computes at a time.

    Raises:
        ValueError: the batch does not divide into that many parts.
    """
    num_parts = recipe.accumulate * num_devices
    if recipe.batch_size % num_parts:
        raise ValueError(
            f"batch_size {recipe.batch_size} does not divide into {num_parts} parts (devices x accumulate): change one"
        )
    return recipe.batch_size // num_parts


def footprint(recipe: Recipe, num_mels: int, setting: Setting) -> Footprint:
    """The memory of one step, without that of the interpreter and the device's driver.

    Raises:
        ValueError: the batch does not divide by devices and accumulated parts.
    """
    batch, count = part_size(recipe, setting.num_devices), TokenCounts.of(recipe, recipe.grid(num_mels))
    model, (trained, untrained) = recipe.outline(), num_parameters(recipe)
    passes = model.cost(count.visible, count.masked).passes
    in_encoder = sum(parameter.numel() for parameter in model.encoders()["online"].parameters())
    in_decoder = trained - in_encoder
    untrained += in_encoder if recipe.weights_ema else 0
    by_muon = sum(parameter.numel() for parameter in muon_matrices(model, recipe))
    moments = FLOAT32 * (2 * trained - by_muon)
    encoder, *decoder = (_kept(each, setting, recipe.checkpoint_activations) for each in passes if each.is_trained)
    activations = batch * (encoder + sum(decoder))
    weights, gradients = FLOAT32 * trained, FLOAT32 * trained
    # Autocast keeps copies of trained weights until the backward pass has used them; copies of others are temporary.
    half = BF16 if setting.in_bf16 else 0
    buckets = gradients if setting.num_devices > 1 else 0
    temporaries = batch * max(_temporary(each, count, setting) for each in passes)
    # The current one is held twice, as a spectrogram and as patches.
    num_batches = 2 if setting.on_gpu else 2 + PREFETCHED_BATCHES
    batches = num_batches * batch * recipe.crop_frames * num_mels * FLOAT32
    steady = weights + FLOAT32 * untrained + moments + buckets + batches + temporaries
    if recipe.accumulate > 1:
        growing = activations + half * trained + gradients  # those of earlier parts are there already
    else:
        decoded = batch * encoder + half * (trained - in_decoder) + FLOAT32 * in_decoder
        growing = max(activations + half * trained, decoded, gradients)
    return Footprint(
        weights=weights,
        untrained_weights=FLOAT32 * untrained,
        moments=moments,
        half_weights=half * trained,
        buckets=buckets,
        activations=activations,
        batches=batches,
        temporaries=temporaries,
        gradients=gradients,
        peak=steady + growing,
    )


def check_memory(recipe: Recipe, num_mels: int, num_devices: int = 1) -> None:
    """Refuse a recipe whose step takes more memory than this machine's device has, before the system ends the process.

    Args:
        recipe: to be trained here.
        num_mels: bands of its store.
        num_devices: that share the batch.

    Raises:
        ValueError: it takes more; the message says how much, and what to change.
    """
    device = this_device()
    whole = dataclasses.replace(recipe, batch_size=max(1, recipe.batch_size // num_devices), accumulate=1)
    whole = dataclasses.replace(whole, batch_size=max(1, whole.batch_size // recipe.accumulate))
    in_bf16 = precision_of(recipe.precision, device) == torch.bfloat16
    needed, has = footprint(whole, num_mels, Setting(1, in_bf16, device.type != "cpu")).peak, memory_of(device)
    if needed > has:
        raise ValueError(
            f"a step takes about {needed / 1e9:,.0f} GB of memory, and {describe(device)} has {has / 1e9:,.0f} GB: "
            f"raise --accumulate (now {recipe.accumulate}), or lower --batch-size (now {recipe.batch_size})"
        )


def _kept(each: Pass, setting: Setting, checkpoints: bool) -> int:
    """The bytes that a pass keeps for the backward pass, for one sample."""
    inputs = sum(product.num_tokens * product.fan_in for product in each.products)
    blocks = _blocks_keep(each, setting, checkpoints)
    return blocks + inputs * setting.product_bytes + each.kept_values * FLOAT32


def _blocks_keep(each: Pass, setting: Setting, checkpoints: bool) -> int:
    size, num_tokens, number = each.size, each.num_tokens, setting.product_bytes
    context = num_tokens if each.num_context_tokens is None else each.num_context_tokens
    features = num_tokens * size.dim
    scores = size.heads * num_tokens * (FLOAT32 if setting.on_gpu else context * number)
    block = NORM_INPUTS * (features + 2 * num_tokens) * FLOAT32 + PRODUCT_INPUTS * features * number
    if each.num_context_tokens is not None:  # keys and values are of the context, whose input all blocks share
        return size.depth * (block + scores + 2 * (context - num_tokens) * size.dim * number)
    if not checkpoints:
        return size.depth * (block + scores)
    return size.depth * features * FLOAT32 + block + scores  # every block's input, and one block in full


def _temporary(each: Pass, count: TokenCounts, setting: Setting) -> int:
    """The bytes that come and go for one sample while a block of the pass is computed.

    At least as many tokens as are masked are assumed: an upper bound for an encoder of visible patches.
    """
    size, number, num_tokens = each.size, setting.product_bytes, max(each.num_tokens, count.masked + 1)
    scores = 0 if setting.on_gpu else size.heads * num_tokens**2 * number
    return max(TEMPORARIES * num_tokens * size.dim * number, 2 * scores) + 2 * num_tokens * size.dim * FLOAT32
