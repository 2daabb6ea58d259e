"""How much memory a training step needs on one device, from the recipe."""

from dataclasses import dataclass

from melmask.data.loader import PREFETCHED_BATCHES
from melmask.nn.vit import SIZES, Size
from melmask.plan.flops import TokenCounts, num_parameters
from melmask.train.recipe import Recipe

FLOAT32, BF16 = 4, 2  # bytes of a number

# Of a block, for each token and feature: the inputs of both norms stay float32; the inputs of four linear layers (the
# last four times as wide), query, key and value, and GELU's input are kept in the precision of the products.
NORM_INPUTS, PRODUCT_INPUTS = 2, 1 + 3 + 1 + 1 + 4 + 4
TEMPORARIES = 8  # hidden layer and its gradient, while a block is worked on


@dataclass(frozen=True)
class Setting:
    """Where a step runs, as far as its memory depends on it.

    Args:
        num_devices: that share the batch.
        in_bf16: whether products are computed in bf16 beside float32 weights.
        on_gpu: where attention keeps no scores, and batches wait in another memory.
    """

    num_devices: int
    in_bf16: bool
    on_gpu: bool

    @property
    def product_bytes(self) -> int:
        """Of a number that goes into a product."""
        return BF16 if self.in_bf16 else FLOAT32


@dataclass(frozen=True)
class Footprint:
    """The bytes of a step on one device, and their peak.

    Args:
        weights: trained ones, float32.
        average: M2D's target encoder.
        moments: AdamW's two, float32.
        half_weights: bf16 copies of them for the products.
        buckets: in which devices exchange gradients.
        activations: what the forward pass keeps for the backward pass.
        batches: those that are read ahead on a CPU, and the one that is worked on.
        temporaries: of the block that is worked on.
        gradients: of the trained weights, float32.
        peak: the most at any time; gradients come as activations and copies go, so it is less than the sum.
    """

    weights: int
    average: int
    moments: int
    half_weights: int
    buckets: int
    activations: int
    batches: int
    temporaries: int
    gradients: int
    peak: int


def part_size(recipe: Recipe, num_devices: int) -> int:
    """Samples that a device works on at a time.

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
    """The memory of one step, without what the interpreter and the device's driver need themselves.

    Raises:
        ValueError: the batch does not divide by devices and accumulated parts.
    """
    batch, count = part_size(recipe, setting.num_devices), TokenCounts.of(recipe, recipe.grid(num_mels))
    trained, averaged = num_parameters(recipe)
    in_decoder = _decoder_parameters(recipe, trained)
    encoder, decoder = _kept(recipe, count, setting)
    weights, gradients = FLOAT32 * trained, FLOAT32 * trained
    # Autocast keeps copies of trained weights until the backward pass has used them, of others only for a moment.
    half = BF16 if setting.in_bf16 else 0
    buckets = gradients if setting.num_devices > 1 else 0
    temporaries = batch * _temporary(recipe, count, setting)
    # The one that is worked on lies there twice, as a spectrogram and as patches.
    num_batches = 2 if setting.on_gpu else 2 + PREFETCHED_BATCHES
    batches = num_batches * batch * recipe.crop_frames * num_mels * FLOAT32
    steady = weights + FLOAT32 * averaged + 2 * FLOAT32 * trained + buckets + batches + temporaries
    if recipe.accumulate > 1:
        growing = batch * (encoder + decoder) + half * trained + gradients  # those of earlier parts are there already
    else:
        decoded = batch * encoder + half * (trained - in_decoder) + FLOAT32 * in_decoder
        growing = max(batch * (encoder + decoder) + half * trained, decoded, gradients)
    return Footprint(
        weights=weights,
        average=FLOAT32 * averaged,
        moments=2 * FLOAT32 * trained,
        half_weights=half * trained,
        buckets=buckets,
        activations=batch * (encoder + decoder),
        batches=batches,
        temporaries=temporaries,
        gradients=gradients,
        peak=steady + growing,
    )


def _decoder_parameters(recipe: Recipe, trained: int) -> int:
    size, patch_values = SIZES[recipe.size], recipe.patch_shape[0] * recipe.patch_shape[1]
    block = 12 * size.dim**2 + 13 * size.dim
    return trained - size.depth * block - (patch_values + 4) * size.dim


def _kept(recipe: Recipe, count: TokenCounts, setting: Setting) -> tuple[int, int]:
    """What encoder and decoder keep for the backward pass, for one sample."""
    size, decoder, number = SIZES[recipe.size], recipe.decoder_size, setting.product_bytes
    patch_values = recipe.patch_shape[0] * recipe.patch_shape[1]
    # A prediction's difference from its target; for a cosine the prediction, the target and their product.
    compared = 3 * size.dim if recipe.framework == "m2d" else patch_values
    checkpoints = recipe.checkpoint_activations
    encoder = _blocks_keep(size, count.visible + 1, setting, checkpoints)
    encoder += count.visible * patch_values * number + (count.visible + 1) * size.dim * FLOAT32
    into = (count.visible + 1) * size.dim * number
    out_of = count.masked * (decoder.dim * (FLOAT32 + number) + compared * FLOAT32)
    return encoder, into + _blocks_keep(decoder, count.all + 1, setting, checkpoints) + out_of


def _blocks_keep(size: Size, num_tokens: int, setting: Setting, checkpoints: bool) -> int:
    features = num_tokens * size.dim
    scores = size.heads * num_tokens * (FLOAT32 if setting.on_gpu else num_tokens * setting.product_bytes)
    block = NORM_INPUTS * (features + 2 * num_tokens) * FLOAT32 + PRODUCT_INPUTS * features * setting.product_bytes
    if not checkpoints:
        return size.depth * (block + scores)
    return size.depth * features * FLOAT32 + block + scores  # every block's input, and one block in full


def _temporary(recipe: Recipe, count: TokenCounts, setting: Setting) -> int:
    """What comes and goes for one sample: what the largest block works with."""
    size, decoder, number = SIZES[recipe.size], recipe.decoder_size, setting.product_bytes

    def block(size: Size, num_tokens: int) -> int:
        scores = 0 if setting.on_gpu else size.heads * num_tokens**2 * number
        return max(TEMPORARIES * num_tokens * size.dim * number, 2 * scores) + 2 * num_tokens * size.dim * FLOAT32

    return max(block(size, count.masked + 1), block(decoder, count.all + 1))
