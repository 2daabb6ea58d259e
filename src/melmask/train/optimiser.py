"""The optimiser of pre-training, and the clipping of its gradients."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from melmask.runtime import precision_of
from melmask.train.muon import Muon
from melmask.train.recipe import Recipe

QKV = 3  # query, key and value, one above the other in the parameter "qkv"
LARGE = 2**18  # values; for fewer, starting the threads takes longer than it saves


def make_optimiser(model: nn.Module, recipe: Recipe) -> AdamW:
    """The recipe's optimiser, with weight decay on matrices, and none on norms, biases and tokens."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    num_parts = muon_matrices(model, recipe)
    matrices = [(parameter, num_parts.get(parameter, 0)) for parameter in trained if parameter.ndim == 2]
    groups: list[dict[str, Any]] = [
        {"params": [p for p, own in matrices if own == number], "weight_decay": recipe.weight_decay}
        | ({"num_parts": number} if number else {})
        for number in sorted({0, *num_parts.values()})
    ]
    groups.append({"params": [p for p in trained if p.ndim != 2], "weight_decay": 0.0})
    settings: dict[str, Any] = {"lr": recipe.learning_rate, "betas": recipe.betas, "fused": True}
    if recipe.optimiser == "adamw":
        return AdamW(groups, **settings)
    dtype = precision_of(recipe.precision, next(model.parameters()).device)
    return Muon(groups, num_iterations=recipe.muon_iterations, dtype=dtype, **settings)


def muon_matrices(model: nn.Module, recipe: Recipe) -> dict[nn.Parameter, int]:
    """The parameters that Muon moves, those of matrices in transformer blocks; none with "adamw".

    The blocks are those with "blocks" in their names. AdamW moves all else: patch embedding, the layers before and
    after a decoder's blocks, norms, biases and tokens.

    Returns:
        For each the number of matrices that it holds one above the other: query, key and value, or one.
    """
    named = model.named_parameters() if recipe.optimiser == "muon" else ()
    paths = {parameter: name.split(".") for name, parameter in named if parameter.requires_grad and parameter.ndim == 2}
    return {parameter: QKV if path[-2] == "qkv" else 1 for parameter, path in paths.items() if "blocks" in path[:-2]}


def clip_gradients(model: nn.Module, max_norm: float) -> Tensor:
    """Scale all gradients down to a norm of at most ``max_norm``.

    As `torch.nn.utils.clip_grad_norm_`, in half its time on a CPU: there, gradients within the bound are not multiplied
    by one (on a GPU, to know would mean to wait for it), and the norm of a large matrix is that of the norms of its
    rows, which torch computes on all threads, unlike the norm of a whole tensor.

    Returns:
        The norm before clipping.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    norm = nn.utils.get_total_norm([_norm_of_rows(parameter) for parameter in parameters], foreach=True)
    if norm.device.type != "cpu" or not norm <= max_norm:
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm


def _norm_of_rows(parameter: nn.Parameter) -> Tensor:
    """A tensor of the same norm as the gradient: the gradient, or, of a large one on a CPU, the norms of its rows."""
    assert parameter.grad is not None
    is_large = parameter.grad.numel() >= LARGE and parameter.grad.device.type == "cpu"
    return torch.linalg.vector_norm(parameter.grad, dim=-1) if is_large else parameter.grad


def learning_rate(step: int, num_steps: int, peak: float, warmup: float, decay: float | None = None) -> float:
    """Linear rise to ``peak``, and then a cosine to zero, or a constant and a fall to zero as 1 - sqrt(progress).

    Args:
        step: steps done.
        num_steps: steps of the run.
        peak: the largest learning rate.
        warmup: share of the run, from its start, of the rise; in [0, 1).
        decay: share of the run, to its end, of the fall from a constant; None for the cosine.

    Source: the second form is that of arXiv 2405.18392, which finds 1 - sqrt better than a linear fall, and a fall over
    20 % of the steps as good as the cosine; the name "wsd" is that of arXiv 2404.06395. Deviates: not at all.

    >>> [round(learning_rate(step, 100, 1.0, 0.1), 3) for step in (0, 9, 10, 55, 99)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    >>> [round(learning_rate(step, 100, 1.0, 0.1, decay=0.16), 3) for step in (0, 9, 84, 88, 93, 99)]
    [0.1, 1.0, 1.0, 0.5, 0.25, 0.032]
    """
    rise = warmup_steps(num_steps, warmup)
    if step < rise:
        return peak * (step + 1) / rise
    if decay is not None:
        falls = decay_start(num_steps, decay)
        return peak * (1.0 - math.sqrt(max(0, step - falls) / max(1, num_steps - falls)))
    progress = (step - rise) / max(1, num_steps - rise)
    return peak * 0.5 * (1.0 + math.cos(math.pi * progress))


def warmup_steps(num_steps: int, warmup: float) -> int:
    """The steps in which the learning rate rises, of a run of that many."""
    return round(num_steps * warmup)


def decay_start(num_steps: int, decay: float) -> int:
    """The step from which on the learning rate falls from its constant, in a run of that many."""
    return num_steps - round(num_steps * decay)
