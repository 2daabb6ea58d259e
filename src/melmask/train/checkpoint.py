"""Trainer state and encoders on disk: safetensors only, written whole or not at all."""

from pathlib import Path

from torch import Tensor, nn
from torch.optim import AdamW

from melmask.files import read_tensors, select_prefix, write_tensors

CHECKPOINT = "checkpoint.safetensors"
OPTIMISER_KEYS = ("step", "exp_avg", "exp_avg_sq")


def save_checkpoint(
    run: Path, model: nn.Module, optimiser: AdamW, step: int, memory: dict[str, Tensor] | None = None
) -> None:
    """Save all that a resumed run needs: weights, optimiser, what masking remembers and the steps done, in one file."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors.update({f"masking.{name}": tensor for name, tensor in (memory or {}).items()})
    for name, parameter in model.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser.{key}.{name}"] = value
    write_tensors(run / CHECKPOINT, tensors, {"step": str(step)})


def load_checkpoint(run: Path, model: nn.Module, optimiser: AdamW) -> tuple[int, dict[str, Tensor]]:
    """Restore what `save_checkpoint` saved and return the number of steps done and what masking remembered.

    Raises:
        ValueError: the file is damaged or of another model.
    """
    tensors, metadata = read_tensors(run / CHECKPOINT)
    weights = select_prefix(tensors, "model.")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{run / CHECKPOINT} is of another model than the recipe's: {error}") from error
    for name, parameter in model.named_parameters():
        saved = {key: tensors.get(f"optimiser.{key}.{name}") for key in OPTIMISER_KEYS}
        if all(value is not None for value in saved.values()):
            device = parameter.device
            optimiser.state[parameter] = {key: value.to(device) for key, value in saved.items() if value is not None}
    return int(metadata["step"]), select_prefix(tensors, "masking.")
