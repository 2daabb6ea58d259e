"""The peak speeds of devices, by their data sheets, and of this machine, measured."""

import time
from dataclasses import dataclass

import torch

from melmask.nn.linear import product

GIB = 2**30
CEILING_SIZE, CEILING_S = {"cpu": 1536, "cuda": 8192}, 0.4  # rows of the square matrices; seconds of measuring

_DATA_CENTER = "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/"


@dataclass(frozen=True)
class Device:
    """An accelerator, with the peaks of its data sheet and an assumed utilisation.

    The utilisations are assumptions for eager training of a ViT on some hundred tokens, not measurements: lower where
    the bf16 peak is high for the memory's bandwidth, higher for float32, whose peak is easier to reach.

    Args:
        name: for tables.
        memory: in bytes.
        bf16_flops: dense peak of bf16 products with float32 sums, in operations a second; None without bf16.
        float32_flops: peak in float32 without TF32, in operations a second.
        bf16_utilisation: assumed share of the bf16 peak that training reaches.
        source: of memory and peaks.
    """

    name: str
    memory: int
    bf16_flops: float | None
    float32_flops: float
    bf16_utilisation: float
    source: str

    float32_utilisation = 0.6

    def computes_in_bf16(self, precision: str) -> bool:
        """Whether a recipe of that precision computes its products in bf16 here."""
        return precision != "float32" and self.bf16_flops is not None

    def peak_flops(self, precision: str) -> float:
        """The peak for a recipe of that precision, in operations a second."""
        assert self.bf16_flops is not None or not self.computes_in_bf16(precision)
        return self.bf16_flops or 0.0 if self.computes_in_bf16(precision) else self.float32_flops

    def utilisation(self, precision: str) -> float:
        """The assumed share of that peak that training reaches."""
        return self.bf16_utilisation if self.computes_in_bf16(precision) else self.float32_utilisation


DEVICES = {
    "a100-40gb": Device(
        "A100 SXM 40 GB", 40 * GIB, 312e12, 19.5e12, 0.30,
        f"NVIDIA A100 data sheet, {_DATA_CENTER}a100/pdf/nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf",
    ),
    "a100-80gb": Device(
        "A100 SXM 80 GB", 80 * GIB, 312e12, 19.5e12, 0.30,
        f"NVIDIA A100 data sheet, {_DATA_CENTER}a100/pdf/nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf",
    ),
    "h100": Device(
        "H100 SXM", 80 * GIB, 989e12, 67e12, 0.20,
        "NVIDIA H100 data sheet: 1,979 TFLOPS bf16 with sparsity, half of it dense; "
        "https://resources.nvidia.com/en-us-tensor-core/nvidia-tensor-core-gpu-datasheet",
    ),
    "h200": Device(
        "H200 SXM", 141 * 10**9, 989e12, 67e12, 0.25,
        "NVIDIA H200 data sheet: 1,979 TFLOPS bf16 with sparsity, half of it dense; "
        "https://www.nvidia.com/en-us/data-center/h200/",
    ),
    "v100": Device(
        "V100 SXM2 32 GB", 32 * GIB, None, 15.7e12, 0.0,
        "NVIDIA V100 data sheet: 125 TFLOPS are for fp16, which melmask does not train in; float32 15.7; "
        "https://www.nvidia.com/en-us/data-center/v100/",
    ),
    "t4": Device(
        "T4", 16 * GIB, None, 8.1e12, 0.0,
        "NVIDIA T4 data sheet: 65 TFLOPS are for fp16, which melmask does not train in; float32 8.1; "
        "https://www.nvidia.com/en-us/data-center/tesla-t4/",
    ),
    "l4": Device(
        "L4", 24 * GIB, 121e12, 30.3e12, 0.20,
        "NVIDIA L4 data sheet: 242 TFLOPS bf16 with sparsity, half of it dense; "
        "https://www.nvidia.com/en-us/data-center/l4/",
    ),
    "rtx-4090": Device(
        "GeForce RTX 4090", 24 * GIB, 165.2e12, 82.6e12, 0.30,
        "NVIDIA Ada GPU Architecture, appendix A: dense bf16 with float32 sums; "
        "https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf",
    ),
    "rtx-3090": Device(
        "GeForce RTX 3090", 24 * GIB, 71e12, 35.6e12, 0.30,
        "NVIDIA Ampere GA102 GPU Architecture, appendix A: dense bf16 with float32 sums; "
        "https://www.nvidia.com/content/PDF/nvidia-ampere-ga-102-gpu-architecture-whitepaper-v2.pdf",
    ),
}  # fmt: skip


@torch.inference_mode()
def gemm_ceiling(device: torch.device, dtype: torch.dtype, seconds: float = CEILING_S) -> float:
    """The measured speed of a product of large square matrices, in floating-point operations a second.

    Args:
        device: to measure.
        dtype: of the matrices.
        seconds: of measuring; the fastest product counts.
    """
    size = CEILING_SIZE.get(device.type, CEILING_SIZE["cpu"])
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    product(left, right, None)
    best_s, ends = float("inf"), time.perf_counter() + seconds
    while best_s == float("inf") or time.perf_counter() < ends:
        start = time.perf_counter()
        product(left, right, None)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best_s = min(best_s, time.perf_counter() - start)
    return 2 * size**3 / best_s
