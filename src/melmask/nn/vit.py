"""The vision transformer: attention, blocks, and an encoder of any subset of the patches."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from melmask.nn.linear import Linear
from melmask.patches import PositionOrder, sincos_positions, take
from melmask.types import PatchGrid

LAYER_NORM_EPS = 1e-6


@dataclass(frozen=True)
class Size:
    """The size of a transformer.

    Args:
        dim: feature width of its tokens.
        depth: number of blocks.
        heads: attention heads of each block.

    Raises:
        ValueError: the width is no multiple of 4 and of the heads, or there is no block.
    """

    dim: int
    depth: int
    heads: int

    def __post_init__(self) -> None:
        if min(self.heads, self.dim) < 1 or self.dim % self.heads or self.dim % 4 or self.depth < 1:
            raise ValueError(f"width must be a multiple of 4 and of the heads, depth at least 1: got {self}")


SIZES = {
    "micro": Size(32, 2, 2),
    "shallow": Size(192, 6, 3),
    "tiny": Size(192, 12, 3),
    "small": Size(384, 12, 6),
    "base": Size(768, 12, 12),
}


def attend(
    query: Float[Tensor, "b h q e"], key: Float[Tensor, "b h k e"], value: Float[Tensor, "b h k e"]
) -> Float[Tensor, "b h q e"]:
    """Scaled dot-product attention, by the faster of two forms: explicit products on a CPU, else the fused kernel.

    On a CPU with 20 to 1,000 tokens in bfloat16, the explicit products take half the fused kernel's time in a forward
    pass and a third to a fifth of it with the backward pass; in float32 they are no slower.
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    return scores.softmax(dim=-1).to(value.dtype) @ value


class Attention(nn.Module):
    """Multi-head self-attention over all tokens."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)

    def forward(self, tokens: Float[Tensor, "b k d"]) -> Float[Tensor, "b k d"]:
        mixed = attend(*self._heads(tokens))
        return self.proj(mixed.transpose(1, 2).reshape(tokens.shape))

    def of_first(self, tokens: Float[Tensor, "b k d"]) -> Float[Tensor, "b k h"]:
        """The first token's attention to every token, by head, in float32; it sums to one over the tokens."""
        query, key, _ = self._heads(tokens)
        scores = (query[:, :, :1] * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        return scores[:, :, 0].float().softmax(dim=-1).transpose(1, 2)

    def _heads(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """Query, key and value [b, h, k, e]."""
        b, k, d = tokens.shape
        return self.qkv(tokens).view(b, k, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4).unbind()


class Mlp(nn.Module):
    """Two linear layers with GELU between them, where they are four times as wide."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, 4 * dim)
        self.fc2 = Linear(4 * dim, dim)

    def forward(self, tokens: Float[Tensor, "b k d"]) -> Float[Tensor, "b k d"]:
        return self.fc2(F.gelu(self.fc1(tokens)))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(dim)

    def forward(self, tokens: Float[Tensor, "b k d"]) -> Float[Tensor, "b k d"]:
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class Blocks(nn.ModuleList):
    """A stack of blocks.

    Args:
        size: width, depth and heads.

    Attributes:
        are_recomputed: activation checkpointing: in training, keep only the input of each block and compute the rest
            again in the backward pass. Takes a fraction of the memory and about a third more time.
    """

    def __init__(self, size: Size) -> None:
        super().__init__(Block(size.dim, size.heads) for _ in range(size.depth))
        self.are_recomputed = False

    def forward(self, tokens: Float[Tensor, "b k d"]) -> Float[Tensor, "b k d"]:
        recomputed = self.are_recomputed and torch.is_grad_enabled()
        for block in self:
            tokens = checkpoint(block, tokens, use_reentrant=False) if recomputed else block(tokens)
        return tokens


class PatchEmbed(nn.Module):
    """A linear map of a flattened patch: timm's strided convolution, under its parameter names."""

    def __init__(self, patch_values: int, dim: int) -> None:
        super().__init__()
        self.proj = Linear(patch_values, dim)

    def forward(self, patches: Float[Tensor, "b k p"]) -> Float[Tensor, "b k d"]:
        return self.proj(patches)


@lru_cache(maxsize=64)
def _positions(grid: PatchGrid, dim: int, order: PositionOrder, device: torch.device) -> Tensor:
    # A cached tensor made under inference mode could not be used for training later.
    with torch.inference_mode(False):
        return sincos_positions(grid, dim, order).to(device)


class Positions(nn.Module):
    """Fixed 2-D position embeddings; nothing of them is learnt or saved.

    Args:
        dim: their width.
        order: which axis the first half of the width says.
    """

    def __init__(self, dim: int, order: PositionOrder = "freq-time") -> None:
        super().__init__()
        self.dim, self.order = dim, order

    def forward(self, grid: PatchGrid, like: Tensor) -> Float[Tensor, "1 n d"]:
        """The positions of a grid, for one sample, on the device of ``like``."""
        return _positions(grid, self.dim, self.order, like.device)[None]


class Encoder(nn.Module):
    """A ViT on patches of a log-mel spectrogram, with fixed 2-D positions and a class token.

    Only the selected patches are embedded, so that the others cost nothing and cannot leak. Parameter names follow
    timm's ViT.

    Args:
        size: width, depth and heads.
        patch_shape: (freq, time) of a patch, in mel bands and frames.
        position_order: which axis the first half of the positions says.
    """

    def __init__(self, size: Size, patch_shape: tuple[int, int], position_order: PositionOrder = "freq-time") -> None:
        super().__init__()
        self.size, self.patch_shape = size, patch_shape
        self.positions = Positions(size.dim, position_order)
        self.patch_embed = PatchEmbed(patch_shape[0] * patch_shape[1], size.dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.dim))
        self.blocks = Blocks(size)
        self.norm = nn.LayerNorm(size.dim, eps=LAYER_NORM_EPS)
        self.apply(init_weights)
        init_token(self.cls_token)

    def forward(
        self, patches: Float[Tensor, "b n p"], grid: PatchGrid, index: Int[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b t d"]:
        """Encode the patches at ``index``, or all of them.

        Args:
            patches: all patches of the input.
            grid: their layout.
            index: the patches to encode; None for all.

        Returns:
            The class token and then the features of those patches: t = k + 1.
        """
        return self.norm(self.blocks(self._embed(patches, grid, index)))

    def layers(
        self, patches: Float[Tensor, "b n p"], grid: PatchGrid, index: Int[Tensor, "b k"] | None = None
    ) -> list[Float[Tensor, "b t d"]]:
        """The output of each block, first to last, without the final norm; arguments as `forward`."""
        tokens = self._embed(patches, grid, index)
        outputs = []
        for block in self.blocks:
            tokens = block(tokens)
            outputs.append(tokens)
        return outputs

    def class_attention(self, patches: Float[Tensor, "b n p"], grid: PatchGrid) -> Float[Tensor, "b n h"]:
        """The class token's attention to every patch in the last block, by head.

        Its attention to itself is excluded, so that a head's column sums to less than one.
        """
        tokens = self._embed(patches, grid)
        *before, last = self.blocks
        for block in before:
            tokens = block(tokens)
        assert isinstance(last, Block)
        return last.attn.of_first(last.norm1(tokens))[:, 1:]

    def _embed(self, patches: Tensor, grid: PatchGrid, index: Tensor | None = None) -> Tensor:
        """The class token and the embedded patches at ``index``, with their positions."""
        position = self.positions(grid, patches).expand(len(patches), -1, -1)
        if index is not None:
            patches, position = take(patches, index), take(position, index)
        tokens = self.patch_embed(patches) + position
        return torch.cat([self.cls_token.to(tokens.dtype).expand(len(tokens), -1, -1), tokens], dim=1)


def random_encoder(
    size: Size, patch_shape: tuple[int, int], seed: int = 0, order: PositionOrder = "freq-time"
) -> Encoder:
    """An encoder of random weights, drawn from the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(size, patch_shape, order)


def init_weights(module: nn.Module) -> None:
    """Initialise linear layers with Xavier-uniform weights and zero biases; norms keep the identity."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def init_token(token: nn.Parameter) -> None:
    """Initialise a learnt token with normal values; on the meta device, that would import torch's compiler for it."""
    if not token.is_meta:
        nn.init.normal_(token, std=0.02)
