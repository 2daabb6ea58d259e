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
EPS = 1e-7
MARGIN = 1.01  # by which singular values are below one, where the polynomials are steep
# By the number of iterations, (a, b, c) of each: the odd polynomial of degree five that is nearest to one from the
# least to the greatest value that the one before gives; for the first, from `LEAST` to one.
POLYNOMIALS = {
    1: ((5.6037, -13.8837, 9.7334),),
    2: ((7.3625, -20.7434, 15.1606), (2.9175, -2.1824, 0.4755)),
    3: ((8.0934, -23.6204, 17.4462), (3.6366, -2.7219, 0.5365), (2.6613, -1.9772, 0.4526)),
    4: ((8.3837, -24.7659, 18.3571), (4.0434, -3.0114, 0.5695), (3.5056, -2.6267, 0.5257), (2.4901, -1.8343, 0.4368)),
    5: (
        (8.4703, -25.1081, 18.6293), (4.1828, -3.1087, 0.5806), (3.9619, -2.9541, 0.5630), (3.2866, -2.4647, 0.5074),
        (2.2737, -1.6447, 0.4162),
    ),
}  # fmt: skip
LEAST = {1: 0.1, 2: 0.03, 3: 0.01, 4: 0.003, 5: 0.001}
LAST = (1.875, -1.25, 0.375)  # of further ones: Newton-Schulz, to which the polynomials tend


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
    2605.24770 and 2606.09658 for vision transformers. Deviates: three iterations by default and not five, of other
    polynomials (`orthogonalised`); products are in float32 where the hardware does not multiply in bfloat16, and
    matrices of one shape are computed together: `torch.optim.Muon`, in bfloat16 always and matrix by matrix, took 3.1 s
    for a step of three iterations at tiny on a processor without bfloat16.
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
    """Every matrix with the same singular vectors and singular values near one, by iterated polynomials.

    Singular values are taken as shares of the matrix' Schatten 4-norm, the fourth root of the sum of their fourth
    powers. Two iterations take those of at least 0.03 to between 0.6 and 1.4, three those of at least 0.01 to between
    0.7 and 1.3, five those of at least 0.001 to between 0.88 and 1.12. Smaller ones grow 21-, 78- and 1,049-fold.

    Args:
        matrices: of one shape.
        num_iterations: of a polynomial, by which X becomes a X + b (X X^T) X + c (X X^T)^2 X.

    Source: Jordan et al. (2024) for the iteration; Amsel et al. (2025), "The Polar Express", arXiv 2505.16932, for
    polynomials that are the best for each iteration in turn. Deviates: they are the best from a least singular value
    that is chosen by the number of iterations; the norm is the Schatten 4-norm, which the first product gives, and not
    the Frobenius norm, which takes more of the range. In the momenta of a run, three iterations come nearer to the
    polar factor (cosine 0.82) than three of Jordan's (0.73), and at no cost (LOG.md).
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalised(matrices.mT, num_iterations).mT
    most = max(POLYNOMIALS)
    polynomials = (*POLYNOMIALS[min(num_iterations, most)], *[LAST] * (num_iterations - most))
    x = matrices / torch.linalg.matrix_norm(matrices, keepdim=True).clamp(min=EPS)
    gram = x @ x.mT
    norm = (MARGIN * torch.linalg.matrix_norm(gram, keepdim=True).sqrt()).clamp(min=EPS)
    x, gram = x / norm, gram / norm.square()
    for number, (a, b, c) in enumerate(polynomials):
        gram = x @ x.mT if number else gram
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x
