"""Where a fine-tuning stands between two epochs, on disk, so that a killed one goes on to the same end."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from melmask.train.checkpoint import named, read_tensors, save_atomic

MODEL, BEST, OPTIMISER = "model.", "best.", "optimiser."


def save_halfway(
    path: Path, model: nn.Module, optimiser: Optimizer, best: dict[str, Tensor], described: dict[str, Any]
) -> None:
    """Write weights, those of the best epoch, the optimiser, and what describes them, whole or not at all."""
    tensors = {MODEL + name: tensor for name, tensor in model.state_dict().items()}
    tensors |= {BEST + name: tensor for name, tensor in best.items()}
    for name, parameter in model.named_parameters():
        state = optimiser.state.get(parameter, {})
        tensors |= {f"{OPTIMISER}{name} {key}": value for key, value in state.items() if value is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_atomic(tensors, path, {name: json.dumps(value) for name, value in described.items()})


def load_halfway(path: Path, model: nn.Module, optimiser: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Take up what `save_halfway` wrote; returns the weights of the best epoch and the description.

    Raises:
        ValueError: the file is damaged.
    """
    tensors, described = read_tensors(path)
    model.load_state_dict(named(tensors, MODEL))
    for name, parameter in model.named_parameters():
        state = named(tensors, f"{OPTIMISER}{name} ")
        if state:
            optimiser.state[parameter] = {key: value.to(parameter.device) for key, value in state.items()}
    return named(tensors, BEST), {name: json.loads(value) for name, value in described.items()}
