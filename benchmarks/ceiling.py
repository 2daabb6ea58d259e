"""How fast this machine multiplies matrices at best: the ceiling that everything made of matrix products has."""

import torch
from timing import one_turn
from torch import Tensor

from melmask.linear import as_convolution

SQUARES = (1024, 2048)
TOKENS, WIDTHS = 2048, (192, 384, 768)  # and the linear layers of the encoders, [tokens, width] by [width, 4 width]
REPEATS = 5


def gemm_ceiling(dtype: torch.dtype, shapes: list[tuple[int, int, int]] | None = None) -> float:
    """The best rate of all these products in GFLOP/s, on as many threads as torch uses.

    Args:
        dtype: of both factors.
        shapes: (m, k, n) of the products; None for squares and the shapes of our layers.
    """
    shapes = shapes or model_shapes()
    return max(2 * m * k * n / seconds(m, k, n, dtype) / 1e9 for m, k, n in shapes)


def model_shapes() -> list[tuple[int, int, int]]:
    """Squares, and both linear layers of an MLP at every width."""
    wide = [shape for d in WIDTHS for shape in ((TOKENS, d, 4 * d), (TOKENS, 4 * d, d))]
    return [(side, side, side) for side in SQUARES] + wide


@torch.inference_mode()
def seconds(m: int, k: int, n: int, dtype: torch.dtype) -> float:
    """The quickest of some products in each form that a linear layer may have: PyTorch's and the convolution."""
    tokens, weight = factor(m, k, dtype), factor(n, k, dtype)
    out = torch.empty(m, n, dtype=dtype)
    forms = (lambda: torch.matmul(tokens, weight.T, out=out), lambda: as_convolution(tokens, weight, None))
    return min(taken for form in forms for _ in range(REPEATS) for taken in one_turn(form))


def factor(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)).to(dtype)
