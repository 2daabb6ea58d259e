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
    """The recipe's optimiser, with weight decay on matrices, and none on norms, biases and tokens.

    With "muon", `Muon` moves the matrices of transformer blocks, which are those with "blocks" in their names, and
    AdamW all else: patch embedding, the layers before and after a decoder's blocks, norms, biases and tokens.
    """
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    settings: dict[str, Any] = {"lr": recipe.learning_rate, "betas": recipe.betas, "fused": True}
    rest = {"params": [p for name, p in trained if p.ndim != 2], "weight_decay": 0.0}
    matrices = [(name, p) for name, p in trained if p.ndim == 2]
    if recipe.optimiser == "adamw":
        return AdamW([{"params": [p for _, p in matrices], "weight_decay": recipe.weight_decay}, rest], **settings)
    parts = {name: _num_parts(name) for name, _ in matrices}
    groups = [
        {"params": [p for name, p in matrices if parts[name] == number], "weight_decay": recipe.weight_decay}
        | ({"num_parts": number} if number else {})
        for number in (0, 1, QKV)
    ]
    dtype = precision_of(recipe.precision, next(model.parameters()).device)
    return Muon([*groups, rest], num_iterations=recipe.muon_iterations, dtype=dtype, **settings)


def _num_parts(name: str) -> int:
    """How many matrices, one above the other, a parameter of a transformer's block is; 0 for any other matrix."""
    *path, layer, _ = name.split(".")
    return 0 if "blocks" not in path else QKV if layer == "qkv" else 1


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


def learning_rate(step: int, num_steps: int, peak: float, warmup: float) -> float:
    """Linear rise to ``peak`` over the first ``warmup`` share of the run, then a cosine to zero.

    Args:
        step: steps done.
        num_steps: steps of the run.
        peak: the largest learning rate.
        warmup: share of the run, in [0, 1).

    >>> [round(learning_rate(step, 100, 1.0, 0.1), 3) for step in (0, 9, 10, 55, 99)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    warmup_steps = round(num_steps * warmup)
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
