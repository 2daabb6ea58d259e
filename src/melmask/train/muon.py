"""Muon: momentum that is orthogonalised, for the matrices of transformer blocks; AdamW for all other parameters."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import AdamW

MOMENTUM = 0.95
RMS = 0.2  # of an update of AdamW at the same learning rate
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the iteration's quintic polynomial, steep at zero
EPS = 1e-7


class Muon(AdamW):
    """Muon for groups of parameters with ``num_parts``, and AdamW for the other groups.

    The update of a matrix is its momentum (0.95, Nesterov) with all singular values near one, times 0.2 sqrt(the longer
    side). Its root mean square is then that of AdamW's, so that one learning rate and one weight decay serve both.

    Args:
        groups: as of `AdamW`. A group of matrices names ``num_parts``, the number of matrices of equal size that each
            of its parameters holds one above the other: 3 for query, key and value, which are orthogonalised one by
            one.
        num_iterations: of `orthogonalised`, at least 1.
        dtype: of its matrix products.
        settings: of `AdamW`.

    Source: Jordan et al. (2024), "Muon: An optimizer for hidden layers in neural networks", for the update, query, key
    and value one by one, and AdamW for what is no hidden matrix; arXiv 2502.16982 for its scale and weight decay; arXiv
    2605.24770 and 2606.09658 for vision transformers. Deviates: three iterations by default and not five; products are
    in float32 where the hardware does not multiply in bfloat16, and matrices of one shape are computed together:
    `torch.optim.Muon`, in bfloat16 always and matrix by matrix, took 3.1 s for a step of three iterations at tiny on a
    processor without bfloat16.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], *, num_iterations: int, dtype: torch.dtype, **settings: Any
    ) -> None:
        super().__init__(groups, **settings)
        self.num_iterations, self.dtype = num_iterations, dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step. The gradients of the matrices are then None, so that AdamW passes over them."""
        assert closure is None, "what it computed would find no gradients"
        for group in self.param_groups:
            if "num_parts" in group:
                self._step_matrices(group)
                for parameter in group["params"]:
                    parameter.grad = None
        return super().step()

    def _step_matrices(self, group: dict[str, Any]) -> None:
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not parameters:
            return
        gradients = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        momenta = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        directions = torch._foreach_lerp(gradients, momenta, MOMENTUM)
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        for shape in dict.fromkeys(parameter.shape for parameter in parameters):
            own = [i for i, parameter in enumerate(parameters) if parameter.shape == shape]
            stacked = torch.stack([directions[i] for i in own]).unflatten(1, (group["num_parts"], -1)).flatten(0, 1)
            updates = orthogonalised(stacked.to(self.dtype), self.num_iterations).to(stacked.dtype)
            rate = group["lr"] * RMS * math.sqrt(max(updates.shape[1:]))
            torch._foreach_add_([parameters[i] for i in own], list(updates.reshape(len(own), *shape)), alpha=-rate)


def orthogonalised(matrices: Float[Tensor, "k m n"], num_iterations: int) -> Float[Tensor, "k m n"]:
    """Every matrix with the same singular vectors and singular values near one, by the Newton-Schulz iteration.

    Five iterations take a singular value of at least 0.01 of the matrix' Frobenius norm to between 0.6 and 1.3, three
    one of at least 0.03. Smaller ones grow 3.4-fold an iteration.

    Args:
        matrices: of one shape.
        num_iterations: of the polynomial, in which X becomes a X + b (X X^T) X + c (X X^T)^2 X.

    Source: Jordan et al. (2024), with their coefficients. Deviates: not at all.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalised(matrices.mT, num_iterations).mT
    a, b, c = COEFFICIENTS
    x = matrices / torch.linalg.matrix_norm(matrices, keepdim=True).clamp(min=EPS)
    for _ in range(num_iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x
