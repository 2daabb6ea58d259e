"""One encoder in a safetensors file, with all that is needed to use it."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melmask.fields import make
from melmask.files import REMEDY, parse_json, read_tensors, select_prefix, write_tensors
from melmask.logmel import LogMelSpec
from melmask.nn.foreign import holds_transformer, is_foreign
from melmask.nn.published import AS_PUBLISHED, Unstated, read_published
from melmask.nn.time_steps import Whitening
from melmask.nn.vit import Encoder, Size
from melmask.patches import PositionOrder

WHITENING, BESIDE = "whitening.", "beside."  # before the names of their tensors
ENCODER = "encoder.safetensors"  # its name in a run's folder
MAX_CROP_FRAMES = 10**6
# Files of the second format have positions in another order, which versions that know only the first would not see.
ENTRIES = {"format", "form", "front_end", "features", "beside"}  # of the metadata, beside the checksum
PREFIX = "melmask-encoder-"  # of the names of all formats
ORDERS: dict[str, PositionOrder] = {"melmask-encoder-1": "freq-time", "melmask-encoder-2": "time-freq"}


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


@dataclass(frozen=True, eq=False)
class Beside:
    """The other networks of the framework that trained an encoder, such as its decoder, for a run to continue from.

    Args:
        framework: its name.
        decoder: width, depth and heads of its decoder or predictor.
        weights: by their names in the framework's state.
    """

    framework: str
    decoder: Size
    weights: Mapping[str, Tensor]

    @property
    def form(self) -> tuple[str, Size, dict[str, torch.Size]]:
        """What must be alike for the weights to fit: framework, size and the shape of every tensor."""
        return self.framework, self.decoder, {name: tensor.shape for name, tensor in self.weights.items()}


@dataclass(frozen=True)
class EncoderFile:
    """The content of an encoder file.

    Args:
        encoder: the network.
        front_end: of its input.
        crop_frames: length of the crops it was trained on, in frames.
        layers, pooling: how its features are best read; see `melmask.encoders.features.FeatureSettings`.
        whitening: of the time steps of these layers; None if none was learned.
        beside: what was trained with the encoder; None where the file holds the encoder alone, as those of runs do.
    """

    encoder: Encoder
    front_end: FrontEnd
    crop_frames: int
    layers: str | tuple[int, ...] = "last"
    pooling: str = "mean"
    whitening: Whitening | None = None
    beside: Beside | None = None

    @property
    def stated(self) -> dict[str, Any]:
        """Layers and pooling by name, as JSON has them; empty if they are the defaults, which need not be stated."""
        features = {"layers": self.layers, "pooling": self.pooling}
        return {} if (self.layers, self.pooling) == ("last", "mean") else features

    def save(self, path: Path, dtype: torch.dtype = torch.float32) -> None:
        """Write it, atomically.

        Args:
            path: the file.
            dtype: of its tensors: float16 halves the file, and rounds weights by at most 2^-11 of their size. Whoever
                loads it computes in float32 again.

        Raises:
            ValueError: a weight is beyond the range of ``dtype``.
        """
        size, shape, order = asdict(self.encoder.size), list(self.encoder.patch_shape), self.encoder.positions.order
        form = {"size": size, "patch_shape": shape, "crop_frames": self.crop_frames}
        [written] = [name for name, known in ORDERS.items() if known == order]
        front_end = {"spec": self.front_end.spec.to_dict(), "mean": self.front_end.mean, "std": self.front_end.std}
        metadata = {"format": written, "form": json.dumps(form), "front_end": json.dumps(front_end)}
        if self.stated:
            metadata["features"] = json.dumps(self.stated)
        named = dict(self.encoder.state_dict())
        if self.whitening:
            named |= {f"{WHITENING}mean": self.whitening.mean, f"{WHITENING}matrix": self.whitening.matrix}
        if self.beside:
            metadata["beside"] = json.dumps(
                {"framework": self.beside.framework, "decoder": asdict(self.beside.decoder)}
            )
            named |= {f"{BESIDE}{name}": tensor for name, tensor in self.beside.weights.items()}
        tensors = {name: tensor.to(dtype) for name, tensor in named.items()}
        beyond = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
        if beyond and dtype != torch.float32:
            raise ValueError(f"{path}: weights of {beyond[0]} are beyond the range of {dtype}: write them as float32")
        write_tensors(path, tensors, metadata)

    @staticmethod
    def load(path: Path) -> "EncoderFile":
        """Read an encoder file, or weights that others published (`melmask.nn.published`).

        Raises:
            ValueError: the file is missing, damaged, or neither.
        """
        if not path.exists():
            raise ValueError(f"{path} does not exist: resume the run, which writes it, or check the path")
        if is_foreign(path):
            return EncoderFile.of_published(path)
        tensors, metadata = read_tensors(path)
        if metadata.get("format") not in ORDERS:
            if metadata.get("format", "").startswith(PREFIX):
                raise ValueError(f"{path} is of a later version of melmask ({metadata['format']}): install a newer one")
            if holds_transformer(tensors):
                return EncoderFile.of_published(path)
            raise ValueError(f"{path} is no melmask encoder (format {metadata.get('format')!r}): check the path")
        return _read(path, tensors, metadata)

    def holds(self, weights: Mapping[str, Tensor]) -> bool:
        """Whether its weights are these, to the bit: none more, none fewer.

        Args:
            weights: an encoder's state, on any device.
        """
        own = self.encoder.state_dict()
        return own.keys() == weights.keys() and all(torch.equal(own[name], weights[name].cpu()) for name in own)

    @staticmethod
    def of_published(path: Path, unstated: Unstated = AS_PUBLISHED) -> "EncoderFile":
        """Read the encoder of weights that others published; see `read_published`."""
        found = read_published(path, unstated)
        return EncoderFile(found.encoder, FrontEnd(found.spec, found.mean, found.std), found.crop_frames)


@dataclass(frozen=True)
class _Form:
    """What the metadata say of the form of an encoder."""

    size: Size
    patch_shape: tuple[int, int]
    crop_frames: int


@dataclass(frozen=True)
class _Stated:
    """What the metadata say of how its features are best read."""

    layers: str | tuple[int, ...] = "last"
    pooling: str = "mean"


@dataclass(frozen=True)
class _TrainedBy:
    """What the metadata say of the framework whose other networks the file holds too."""

    framework: str
    decoder: Size


def _read(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> EncoderFile:
    """The content of an encoder file.

    Raises:
        ValueError: its metadata or tensors are damaged; it names the file, the field or tensor and the remedy.
    """

    def part(name: str, fields: Mapping[str, type], default: str = "") -> dict[str, Any]:
        return parse_json(metadata.get(name, default), f"{path} is no melmask encoder, as to its {name}", fields)

    strange = set(metadata) - ENTRIES
    if strange:  # perhaps the checksum, under a damaged name
        raise ValueError(f"{path} is no melmask encoder: its metadata have an entry {min(strange)!r}; {REMEDY}")
    given = part("form", {"size": dict, "patch_shape": list, "crop_frames": int})
    front_end = part("front_end", {"spec": dict, "mean": float, "std": float})
    features = part("features", {}, "{}")
    trained_by = part("beside", {"framework": str, "decoder": dict}) if "beside" in metadata else None
    try:
        form = make(_Form, given)
        if front_end["std"] <= 0.0:
            raise ValueError(f"field 'std' is {front_end['std']}, not a positive number")
        stated = make(_Stated, features)
        if not isinstance(stated.layers, str) and max(stated.layers, default=0) > form.size.depth:
            raise ValueError(f"its features are of layer {max(stated.layers)}, and it has {form.size.depth}")
        spec = LogMelSpec.from_dict(front_end["spec"])
        _check_tensors(form, tensors)
        encoder = Encoder(form.size, form.patch_shape, ORDERS[metadata["format"]])
        own = {name: tensor for name, tensor in tensors.items() if not name.startswith((WHITENING, BESIDE))}
        encoder.load_state_dict(own)
        of_whitening = {name: tensor.float() for name, tensor in select_prefix(dict(tensors), WHITENING).items()}
        whitening = Whitening(**of_whitening) if of_whitening else None
        weights = {name: tensor.float() for name, tensor in select_prefix(dict(tensors), BESIDE).items()}
        if bool(weights) != bool(trained_by):
            raise ValueError("its tensors and its metadata differ in whether it holds more than an encoder")
        beside = Beside(**vars(make(_TrainedBy, trained_by)), weights=weights) if trained_by else None
    except (ValueError, RuntimeError, TypeError) as error:
        raise ValueError(f"{path} is no melmask encoder: {error}; {REMEDY}") from error
    front = FrontEnd(spec, front_end["mean"], front_end["std"])
    return EncoderFile(encoder, front, form.crop_frames, stated.layers, stated.pooling, whitening, beside)


def _check_tensors(form: _Form, tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError if tensors are not finite, or of another form than stated, before a network of it is made."""
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"tensor {name!r} has values that are not finite")
    depth = len({name.split(".")[1] for name in tensors if name.startswith("blocks.")})
    shapes = [tensors[name].shape if name in tensors else (0,) for name in ("norm.weight", "patch_embed.proj.weight")]
    dim, values = (shape[-1] if shape else 0 for shape in shapes)
    stated = (form.size.depth, form.size.dim, math.prod(form.patch_shape))
    if (depth, dim, values) != stated or not 1 <= form.crop_frames <= MAX_CROP_FRAMES:
        raise ValueError(f"{form} is not the form of its tensors: {depth} blocks of width {dim}, patches of {values}")


def stated_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an `EncoderFile` that say how its features are best read, of what JSON has of them and others.

    >>> stated_of({"layers": [2, 4], "path": "run"})
    {'layers': (2, 4)}
    """
    found = {name: values[name] for name in ("layers", "pooling") if name in values}
    return {name: value if isinstance(value, str) else tuple(value) for name, value in found.items()}


def is_published(path: Path) -> bool:
    """Whether a path holds weights that others published, and no melmask encoder.

    Raises:
        ValueError: it is a safetensors file that cannot be read.
    """
    if path.suffix != ".safetensors":
        return is_foreign(path)
    tensors, metadata = read_tensors(path)
    return metadata.get("format") not in ORDERS and holds_transformer(tensors)
