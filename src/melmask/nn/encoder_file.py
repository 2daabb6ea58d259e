"""One encoder in a safetensors file, with its front end."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from melmask.files import read_tensors, write_tensors
from melmask.logmel import LogMelSpec
from melmask.nn.vit import Encoder, Size

ENCODER = "encoder.safetensors"  # its name in a run's folder


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
    write_tensors(path, dict(encoder.state_dict()), metadata)


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
