"""One encoder in a safetensors file, with all that is needed to use it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from melmask.files import read_tensors, write_tensors
from melmask.logmel import LogMelSpec
from melmask.nn.vit import Encoder, Size

ENCODER = "encoder.safetensors"  # its name in a run's folder
FORMAT = "melmask-encoder-1"


@dataclass(frozen=True)
class FrontEnd:
    """How a waveform becomes an encoder's input: log-mel settings, and the statistics to normalise by.

    Args:
        spec: of the log-mel spectrogram.
        mean: of the log-mel values of the training data.
        std: their standard deviation.
    """

    spec: LogMelSpec
    mean: float
    std: float


@dataclass(frozen=True)
class EncoderFile:
    """The content of an encoder file.

    Args:
        encoder: the network.
        front_end: of its input.
        crop_frames: length of the crops it was trained on, in frames.
    """

    encoder: Encoder
    front_end: FrontEnd
    crop_frames: int

    def save(self, path: Path) -> None:
        """Write it, atomically."""
        size, shape = asdict(self.encoder.size), list(self.encoder.patch_shape)
        form = {"size": size, "patch_shape": shape, "crop_frames": self.crop_frames}
        front_end = {"spec": self.front_end.spec.to_dict(), "mean": self.front_end.mean, "std": self.front_end.std}
        metadata = {"format": FORMAT, "form": json.dumps(form), "front_end": json.dumps(front_end)}
        write_tensors(path, dict(self.encoder.state_dict()), metadata)

    @staticmethod
    def load(path: Path) -> "EncoderFile":
        """Read an encoder file.

        Raises:
            ValueError: the file is missing, damaged or no melmask encoder.
        """
        if not path.exists():
            raise ValueError(f"{path} does not exist: the run has not saved its first checkpoint, or is no run folder")
        tensors, metadata = read_tensors(path)
        if metadata.get("format") != FORMAT:
            raise ValueError(f"{path} is no melmask encoder (format {metadata.get('format')!r})")
        form, front_end = json.loads(metadata["form"]), json.loads(metadata["front_end"])
        encoder = Encoder(Size(**form["size"]), tuple(form["patch_shape"]))
        encoder.load_state_dict(tensors)
        spec = LogMelSpec.from_dict(front_end["spec"])
        return EncoderFile(encoder, FrontEnd(spec, front_end["mean"], front_end["std"]), form["crop_frames"])
