"""Linear layers, with the matrix product in the form that is fastest on the processor."""

import math
import platform
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

CPU_INFO = Path("/proc/cpuinfo")
ONEDNN_IMAGES = 16  # on one thread, PyTorch leaves no smaller batch of 1 x 1 convolutions to oneDNN


class Linear(nn.Linear):
    """PyTorch's linear layer; on some processors its float32 product is computed as a 1 x 1 convolution.

    PyTorch computes matrix products in float32 by MKL and convolutions by oneDNN. On processors with AVX-512 that are
    not Intel's, MKL uses half of each vector, and the product takes half the time as a convolution, forward and
    backward. In bfloat16 oneDNN computes both, at the same speed.
    """

    def forward(self, tokens: Float[Tensor, "*b d"]) -> Float[Tensor, "*b e"]:
        return product(tokens, self.weight, self.bias)


def product(
    tokens: Float[Tensor, "*b d"], weight: Float[Tensor, "e d"], bias: Float[Tensor, " e"] | None
) -> Float[Tensor, "*b e"]:
    """The product of a linear layer, in the form that is fastest on the processor."""
    in_float32 = tokens.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if tokens.device.type == "cpu" and in_float32 and convolves_faster():
        return as_convolution(tokens, weight, bias)
    return F.linear(tokens, weight, bias)


def as_convolution(
    tokens: Float[Tensor, "*b d"], weight: Float[Tensor, "e d"], bias: Float[Tensor, " e"] | None
) -> Float[Tensor, "*b e"]:
    """The product of a linear layer as a 1 x 1 convolution whose pixels are the tokens; nothing is copied."""
    num_tokens, dim = tokens.numel() // tokens.shape[-1], tokens.shape[-1]
    images = tokens.reshape(math.gcd(num_tokens, ONEDNN_IMAGES), -1, 1, dim).permute(0, 3, 1, 2)
    return F.conv2d(images, weight[:, :, None, None], bias).permute(0, 2, 3, 1).reshape(*tokens.shape[:-1], len(weight))


@cache
def convolves_faster() -> bool:
    """Whether this is an x86 processor with AVX-512, not Intel's, and PyTorch has MKL and oneDNN."""
    return (
        torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and "AuthenticAMD" in _vendor()
    )


def _vendor() -> str:
    """Text that names the processor's vendor."""
    return CPU_INFO.read_text(errors="replace")[:1000] if CPU_INFO.exists() else platform.processor()
