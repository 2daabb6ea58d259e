"""What a framework's training step costs: the passes that `melmask.plan` counts operations and memory of."""

from dataclasses import dataclass

from melmask.nn.vit import Encoder, Size


@dataclass(frozen=True)
class Product:
    """A linear layer outside the transformer blocks, applied to one sample.

    Args:
        num_tokens: rows of its input.
        fan_in: width of its input.
        fan_out: width of its output.
        of_data: whether its input is data, of which the backward pass computes no gradient.
    """

    num_tokens: int
    fan_in: int
    fan_out: int
    of_data: bool = False


@dataclass(frozen=True)
class Pass:
    """One sample's forward pass through a stack of transformer blocks and the layers around it.

    Args:
        name: of the part, for tables.
        size: of the blocks.
        num_tokens: that the blocks take, the class token included.
        products: the linear layers outside the blocks.
        kept_values: float32 values that the backward pass needs besides the inputs of blocks and linear layers, such
            as the input of the last norm and what the loss compares.
        is_trained: whether a backward pass follows.
        num_context_tokens: that the blocks' tokens attend to, in place of each other; None for self-attention.
    """

    name: str
    size: Size
    num_tokens: int
    products: tuple[Product, ...]
    kept_values: int = 0
    is_trained: bool = True
    num_context_tokens: int | None = None


@dataclass(frozen=True)
class Cost:
    """What a training step of a framework computes.

    Args:
        passes: of one sample, in the order of the forward pass, the online encoder's first.
        after_step: elementary operations of `Framework.after_step`, for the whole step.
    """

    passes: tuple[Pass, ...]
    after_step: int = 0


def encoder_pass(encoder: Encoder, num_patches: int, name: str = "encoder", is_trained: bool = True) -> Pass:
    """The pass of that many patches, and the class token, through an encoder."""
    dim, patch_values = encoder.size.dim, encoder.patch_shape[0] * encoder.patch_shape[1]
    return Pass(
        name,
        encoder.size,
        num_patches + 1,
        products=(Product(num_patches, patch_values, dim, of_data=True),),
        kept_values=(num_patches + 1) * dim,
        is_trained=is_trained,
    )
