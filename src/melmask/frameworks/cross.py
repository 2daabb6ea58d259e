"""A decoder whose masked patches attend to the visible ones alone, so that any part of them can be predicted."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from melmask.frameworks.cost import Pass, Product
from melmask.nn.linear import Linear
from melmask.nn.vit import LAYER_NORM_EPS, Mlp, Positions, Size, attend, init_token, init_weights
from melmask.patches import take
from melmask.types import Mask, PatchGrid


class CrossAttention(nn.Module):
    """Multi-head attention of some tokens to others, the context."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.proj = (Linear(dim, dim) for _ in range(4))

    def forward(self, tokens: Float[Tensor, "b m d"], context: Float[Tensor, "b t d"]) -> Float[Tensor, "b m d"]:
        mixed = attend(*map(self._heads, (self.query(tokens), self.key(context), self.value(context))))
        return self.proj(mixed.transpose(1, 2).reshape(tokens.shape))

    def _heads(self, features: Float[Tensor, "b k d"]) -> Float[Tensor, "b h k e"]:
        b, k, d = features.shape
        return features.view(b, k, self.heads, d // self.heads).transpose(1, 2)


class CrossBlock(nn.Module):
    """A pre-norm transformer block with cross-attention in place of self-attention."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = CrossAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(dim)

    def forward(self, tokens: Float[Tensor, "b m d"], context: Float[Tensor, "b t d"]) -> Float[Tensor, "b m d"]:
        tokens = tokens + self.attn(self.norm1(tokens), context)
        return tokens + self.mlp(self.norm2(tokens))


class CrossDecoder(nn.Module):
    """A transformer in which each masked patch is predicted from the visible ones alone.

    The token of a masked patch, a learnt one with its position added, attends in each block to the encoder's output and
    to no other masked patch. So its prediction does not depend on which others are predicted, and only those whose
    prediction is wanted cost anything.

    Args:
        size: width, depth and heads.
        encoder_dim: feature width of the encoder's output.
        out_dim: numbers to predict for a masked patch.

    Source: CrossMAE, arXiv 2401.14391. Deviates: all blocks attend to the encoder's last layer, through one norm, where
    CrossMAE learns a weighted sum of the layers for each block.
    """

    def __init__(self, size: Size, encoder_dim: int, out_dim: int) -> None:
        super().__init__()
        self.size, self.encoder_dim, self.out_dim = size, encoder_dim, out_dim
        self.positions = Positions(size.dim)
        self.embed = Linear(encoder_dim, size.dim)
        self.context_norm = nn.LayerNorm(size.dim, eps=LAYER_NORM_EPS)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, size.dim))
        self.blocks = nn.ModuleList(CrossBlock(size.dim, size.heads) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.dim, eps=LAYER_NORM_EPS)
        self.pred = Linear(size.dim, out_dim)
        self.apply(init_weights)
        init_token(self.mask_token)

    def forward(self, latent: Float[Tensor, "b t d"], grid: PatchGrid, mask: Mask) -> Float[Tensor, "b m p"]:
        """Predictions for ``mask.masked``; arguments as of `MaskedDecoder`, but any of the other patches may lack."""
        embedded = self.embed(latent)
        position = self.positions(grid, embedded).expand(len(embedded), -1, -1)
        # The encoder's output says where its patches lie: positions were added to its input.
        context = self.context_norm(embedded)
        tokens = self.mask_token.to(embedded.dtype) + take(position, mask.masked)
        for block in self.blocks:
            tokens = block(tokens, context)
        return self.pred(self.norm(tokens))

    def cost(self, num_visible: int, num_masked: int, compared_values: int, name: str = "decoder") -> Pass:
        """Its pass for one sample; arguments as of `MaskedDecoder.cost`, with the patches that are predicted."""
        return Pass(
            name,
            self.size,
            num_masked,
            products=(
                Product(num_visible + 1, self.encoder_dim, self.size.dim),
                Product(num_masked, self.size.dim, self.out_dim),
            ),
            kept_values=num_masked * (self.size.dim + compared_values) + (num_visible + 1) * self.size.dim,
            num_context_tokens=num_visible + 1,
        )
