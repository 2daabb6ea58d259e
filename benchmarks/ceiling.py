"""How fast this machine multiplies matrices at best: the ceiling that everything made of matrix products has."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from timing import one_turn
from torch import Tensor

from melmask.nn.linear import as_convolution

SQUARES = (1024, 2048)
TOKENS, WIDTHS = 2048, (192, 384, 768)  # and the linear layers of the encoders, [tokens, width] by [width, 4 width]
REPEATS, ROUNDS = 5, 2


@dataclass(frozen=True)
class Ceiling:
    """The quickest product there is, to be timed again in turns with what it is the ceiling of.

    Args:
        flops: operations of a call.
        call: computes the product `REPEATS` times in a row, since the first one after other work is slower: caches hold
            something else then, and AMX has to be switched on.
    """

    flops: int
    call: Callable[[], object]

    def rates(self, taken_s: list[float]) -> list[float]:
        """Operations a second of calls that took so long."""
        return [self.flops / seconds for seconds in taken_s]


def gemm_ceilings(dtype: torch.dtype, shapes: list[tuple[int, int, int]] | None = None) -> tuple[Ceiling, Ceiling]:
    """The product with the best rate of all these, and of those that PyTorch does not compute as convolutions.

    Args:
        dtype: of both factors.
        shapes: (m, k, n) of the products; None for squares and the shapes of our layers.
    """
    both = [forms(*shape, dtype) for shape in shapes or model_shapes()]
    products = [product for pair in both for product in pair]
    # In turns, so that a moment in which other work slows the machine down decides nothing.
    turns = [[min(one_turn(product.call)) for product in products] for _ in range(ROUNDS)]
    quickest_s = [min(taken_s) for taken_s in zip(*turns, strict=True)]
    rate_of = {product: product.flops / seconds for product, seconds in zip(products, quickest_s, strict=True)}
    return max(products, key=rate_of.__getitem__), max((pair[0] for pair in both), key=rate_of.__getitem__)


def model_shapes() -> list[tuple[int, int, int]]:
    """Squares, and both linear layers of an MLP at every width."""
    wide = [shape for d in WIDTHS for shape in ((TOKENS, d, 4 * d), (TOKENS, 4 * d, d))]
    return [(side, side, side) for side in SQUARES] + wide


def forms(m: int, k: int, n: int, dtype: torch.dtype) -> list[Ceiling]:
    """A product in both forms that a linear layer may have: first PyTorch's, then the convolution."""
    tokens, weight = factor(m, k, dtype), factor(n, k, dtype)
    out = torch.empty(m, n, dtype=dtype)
    products = (lambda: torch.matmul(tokens, weight.T, out=out), lambda: as_convolution(tokens, weight, None))
    return [Ceiling(REPEATS * 2 * m * k * n, repeated(product)) for product in products]


def repeated(product: Callable[[], object]) -> Callable[[], object]:
    return lambda: [product() for _ in range(REPEATS)]


def factor(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)).to(dtype)
