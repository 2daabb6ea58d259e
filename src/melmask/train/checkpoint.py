"""Trainer state and encoders on disk: safetensors only, written whole or not at all."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import AdamW

from melmask.logmel import LogMelSpec
from melmask.vit import Encoder, Size

CHECKPOINT, ENCODER = "checkpoint.safetensors", "encoder.safetensors"
OPTIMISER_KEYS = ("step", "exp_avg", "exp_avg_sq")


def save_atomic(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file so that a kill at any moment leaves the old one or the new one."""
    unfinished = path.with_suffix(".unfinished")
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, unfinished, metadata)
    with unfinished.open("rb") as handle:
        os.fsync(handle.fileno())
    unfinished.replace(path)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and the metadata of a safetensors file.

    Raises:
        ValueError: the file is missing or damaged.
    """
    try:
        with safe_open(path, "pt") as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}, handle.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from error


def save_checkpoint(
    run: Path, model: nn.Module, optimiser: AdamW, step: int, memory: dict[str, Tensor] | None = None
) -> None:
    """Save all that a resumed run needs: weights, optimiser, what masking remembers and the steps done, in one file."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors.update({f"masking.{name}": tensor for name, tensor in (memory or {}).items()})
    for name, parameter in model.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser.{key}.{name}"] = value
    save_atomic(tensors, run / CHECKPOINT, {"step": str(step)})


def load_checkpoint(run: Path, model: nn.Module, optimiser: AdamW) -> tuple[int, dict[str, Tensor]]:
    """Restore what `save_checkpoint` saved and return the number of steps done and what masking remembered.

    Raises:
        ValueError: the file is damaged or of another model.
    """
    tensors, metadata = read_tensors(run / CHECKPOINT)
    weights = named(tensors, "model.")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{run / CHECKPOINT} is of another model than the recipe's: {error}") from error
    for name, parameter in model.named_parameters():
        saved = {key: tensors.get(f"optimiser.{key}.{name}") for key in OPTIMISER_KEYS}
        if all(value is not None for value in saved.values()):
            device = parameter.device
            optimiser.state[parameter] = {key: value.to(device) for key, value in saved.items() if value is not None}
    return int(metadata["step"]), named(tensors, "masking.")


def named(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, under the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


@dataclass(frozen=True)
class FrontEnd:
    """What stands between a waveform and a trained encoder: the log-mel's settings and the data set's mean and std."""

    spec: LogMelSpec
    mean: float
    std: float


def save_encoder(path: Path, encoder: Encoder, front_end: FrontEnd, crop_frames: int) -> None:
    """Save an encoder with all that is needed to use it: its form, front end and the length it was trained on."""
    form = {"size": asdict(encoder.size), "patch_shape": list(encoder.patch_shape), "crop_frames": crop_frames}
    front = {"spec": front_end.spec.to_dict(), "mean": front_end.mean, "std": front_end.std}
    metadata = {"format": "melmask-encoder-1", "form": json.dumps(form), "front_end": json.dumps(front)}
    save_atomic(dict(encoder.state_dict()), path, metadata)


def load_encoder(path: Path) -> tuple[Encoder, FrontEnd, int]:
    """An encoder, its front end, and the number of frames it was trained on.

    Raises:
        ValueError: the file is missing, damaged or no melmask encoder.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist: the run has not saved its first checkpoint, or is no run folder")
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != "melmask-encoder-1":
        raise ValueError(f"{path} is no melmask encoder (format {metadata.get('format')!r})")
    form, front = json.loads(metadata["form"]), json.loads(metadata["front_end"])
    encoder = Encoder(Size(**form["size"]), tuple(form["patch_shape"]))
    encoder.load_state_dict(tensors)
    return encoder, FrontEnd(LogMelSpec.from_dict(front["spec"]), front["mean"], front["std"]), form["crop_frames"]
