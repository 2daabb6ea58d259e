"""The optimiser of pre-training, and the clipping of its gradients."""

from torch import Tensor, nn
from torch.optim import AdamW

from melmask.train.recipe import Recipe


def make_optimiser(model: nn.Module, recipe: Recipe) -> AdamW:
    """AdamW with weight decay on matrices, none on norms, biases and tokens."""
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    decayed = [p for name, p in trained if p.ndim == 2]
    rest = [p for name, p in trained if p.ndim != 2]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas, fused=True)


def clip_gradients(model: nn.Module, max_norm: float) -> Tensor:
    """Scale all gradients down to a norm of ``max_norm``, and return the norm that they had.

    As `torch.nn.utils.clip_grad_norm_`, but on a CPU a smaller gradient is not multiplied by one: that takes a fifth of
    the optimiser's time, and few steps of a training are clipped. A GPU would have to be waited for to know.
    """
    parameters = list(model.parameters())
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None], foreach=True)
    if norm.is_cuda or not norm <= max_norm:
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm
