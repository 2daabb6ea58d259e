"""Which features are read from an encoder, and how the time steps of a clip are pooled."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from melmask.nn.encoder_file import EncoderFile
from melmask.nn.time_steps import Layers, layer_numbers
from melmask.runtime import computes_in_bf16

Statistics = Literal["mean", "mean+max", "mean+std"]  # over time
Pooling = Literal[
    "auto",
    Statistics,
    "mean+std+quarters",
    "weighted-mean+weighted-std+quarters",
    "shifted-mean+shifted-std+quarters",
]
Precision = Literal["float32", "bf16", "auto"]
Whitened = Literal["auto", "yes", "no"]

NUM_QUARTERS = 4
WHITENED = ", whitened"  # in words, which the settings of an untrained baseline lack
# Vectors of the length of a time step, by statistic.
VECTORS = {
    "mean": 1, "max": 1, "std": 1, "weighted-mean": 1, "weighted-std": 1, "shifted-mean": 1, "shifted-std": 1,
    "quarters": NUM_QUARTERS,
}  # fmt: skip


@dataclass(frozen=True)
class FeatureSettings:
    """Which layers of an encoder are read, and how the time steps of a clip become one vector.

    Args:
        layers: "last"; "all", concatenated from the first to the last; or some by number, 1 for the first block's
            output. The last passes through the encoder's own norm, others through one without weights. "auto" is what
            the encoder's file states, and "last" where it states nothing.
        pooling: statistics over all time steps of the whole clip, concatenated; "quarters" are the means of four equal
            parts of its length, which keep the order of what is heard; with them, a clip of few time steps is read
            several times, delayed (`melmask.encoders.readings.delays`). "weighted-mean" and "weighted-std" weight time
            steps by their `loudness`, so that silence between sounds counts for little. "shifted-mean" and
            "shifted-std" are the averages of these over readings that are shifted up the mel axis
            (`melmask.encoders.readings.shifts`). "auto" likewise, or "mean".
        precision: of the encoder's matrix products; "auto" is bf16 where the hardware computes in it, else float32, so
            that features differ between machines, by about a hundredth of their deviation.
        whitened: whether the whitening of the file is applied to time steps before they
            are pooled. "auto" is yes where the file has one and its layers are read.

    Raises:
        ValueError: no such layers, pooling, precision or whitening.

    >>> str(FeatureSettings((3, 6), "mean+std"))
    'layers 3, 6, mean+std'
    """

    layers: Layers = "auto"
    pooling: Pooling = "auto"
    precision: Precision = "float32"
    whitened: Whitened = "auto"

    def __post_init__(self) -> None:
        if self.pooling not in get_args(Pooling):
            raise ValueError(f"no pooling {self.pooling!r}: choose from {list(get_args(Pooling))}")
        if self.precision not in get_args(Precision):
            raise ValueError(f"no precision {self.precision!r}: choose from {list(get_args(Precision))}")
        if self.whitened not in get_args(Whitened):
            raise ValueError(f"whitened is one of {list(get_args(Whitened))}, got {self.whitened!r}")
        if isinstance(self.layers, str):
            if self.layers not in ("auto", "last", "all"):
                raise ValueError(f"no layers {self.layers!r}: choose last, all, numbers from 1 on, or auto")
        elif not self.layers or min(self.layers) < 1 or list(self.layers) != sorted(set(self.layers)):
            raise ValueError(f"layers {self.layers}: name each once, in ascending order, from 1 on")

    def numbers(self, depth: int) -> tuple[int, ...]:
        """The layers' numbers in an encoder of ``depth`` blocks, once "auto" is resolved.

        Raises:
            ValueError: the encoder has no such layer.
        """
        return layer_numbers(self.layers, depth)

    @property
    def num_vectors(self) -> int:
        """How many times as long as a time step the pooled features are, once "auto" is resolved."""
        return sum(VECTORS[statistic] for statistic in self.pooling.split("+"))

    def resolved(self, stated: "FeatureSettings", device: torch.device) -> "FeatureSettings":
        """These settings without "auto": as ``stated``, and the precision as the device has it.

        Raises:
            ValueError: to be whitened, and there is no whitening for these layers.

        >>> str(FeatureSettings(pooling="mean+max").resolved(FeatureSettings((4,), "mean"), torch.device("cpu")))
        'layer 4, mean+max'
        """
        layers = stated.layers if self.layers == "auto" else self.layers
        pooling = stated.pooling if self.pooling == "auto" else self.pooling
        whitened: Whitened = "yes" if stated.whitened == "yes" and layers == stated.layers else "no"
        if self.whitened == "yes" and whitened == "no":
            raise ValueError(f"the encoder has no whitening of layers {layers}: leave whitened at auto")
        precision: Precision = self.precision
        if precision == "auto":
            precision = "bf16" if computes_in_bf16(device) else "float32"
        return FeatureSettings(layers, pooling, precision, "no" if self.whitened == "no" else whitened)

    def __str__(self) -> str:
        ending = WHITENED if self.whitened == "yes" else ""
        ending += "" if self.precision == "float32" else f", {self.precision}"
        if isinstance(self.layers, str):
            return f"{self.layers} layer{'s' if self.layers == 'all' else ''}, {self.pooling}{ending}"
        word = "layer" if len(self.layers) == 1 else "layers"
        return f"{word} {', '.join(map(str, self.layers))}, {self.pooling}{ending}"


DEFAULT_SETTINGS = FeatureSettings()
UNSTATED = FeatureSettings("last", "mean", whitened="no")  # what "auto" is for an encoder whose file states nothing


def stated_by(saved: EncoderFile, file: Path) -> FeatureSettings:
    """The layers, pooling and whitening that an encoder file states.

    Raises:
        ValueError: there are no such.
    """
    try:
        whitened: Whitened = "yes" if saved.whitening else "no"
        return FeatureSettings(saved.layers, saved.pooling, whitened=whitened)  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"{file} is of another version of melmask: {error}") from error


def loudness(log_mel: Float[np.ndarray, "b frame mel"], step_frames: int) -> Float[np.ndarray, "b time"]:
    """How loud each time step is: the mean of the fourth root of power over its frames and mel bands.

    Only the ratios between the time steps of a clip matter: 40 dB less are a tenth of the weight.

    Args:
        log_mel: natural logarithms of power, not normalised; padding has the value of silence.
        step_frames: frames of a time step, of which ``frame`` is a multiple.

    Source: specific loudness grows as about intensity to the power of 0.23, and loudness is its sum over critical
    bands: Fastl and Zwicker (2007), "Psychoacoustics", chapter 8. Deviates: 0.25, mel bands, and neither a threshold in
    quiet nor masking.

    >>> loudness(np.log([[[1.0, 1.0], [16.0, 16.0], [0.0001, 81.0]]]), 1).round(2).tolist()
    [[1.0, 2.0, 1.55]]
    """
    return np.exp(log_mel / 4).reshape(len(log_mel), -1, step_frames * log_mel.shape[2]).mean(axis=2)


class Pool:
    """Running statistics over the time steps of several clips, which come in pieces and in any order.

    Sums are kept in float64, in which the square of a float32 is exact.

    Args:
        num_steps: time steps of each clip, at least one, of each time that it is read.
        num_dims: of a time step.
        pooling: which statistics, concatenated; the standard deviation divides by the number of steps, or by the sum of
            their weights.
    """

    def __init__(self, num_steps: Sequence[Sequence[int]], num_dims: int, pooling: Pooling) -> None:
        self._readings = num_steps
        self._statistics = pooling.split("+")
        self.is_weighted = self._statistics[0] in ("weighted-mean", "shifted-mean")
        self._weight = np.zeros((len(num_steps), 1))
        self._sum = np.zeros((len(num_steps), num_dims))
        self._squares = np.zeros_like(self._sum) if "std" in pooling else None
        self._max = np.full(self._sum.shape, -np.inf, np.float32) if "max" in self._statistics else None
        self._quarters = np.zeros((len(num_steps), NUM_QUARTERS, num_dims)) if "quarters" in self._statistics else None

    def add(
        self,
        pieces: Sequence[tuple[int, int]],
        layers: Sequence[Float[Tensor, "b time d"]],
        reading: int = 0,
        weight: Float[np.ndarray, "b time"] | None = None,
    ) -> None:
        """Add a piece of some clips; a clip may occur several times.

        Args:
            pieces: number of the clip, and its time step that the piece starts at.
            layers: features of their time steps, a tensor a layer.
            reading: number of the time that these clips are read.
            weight: of the time steps, positive, where the pooling is weighted.
        """
        clips = [clip for clip, _ in pieces]
        wide = [layer.double() for layer in layers]
        of_each = None
        if self.is_weighted:
            assert weight is not None, "weighted statistics need a weight"
            of_each = torch.from_numpy(weight).to(wide[0].device, torch.float64)
        total = wide[0].shape[1] if of_each is None else of_each.sum(dim=1, keepdim=True).cpu().numpy()
        np.add.at(self._weight, clips, total)
        _each(np.add, self._sum, clips, [_sum(layer, of_each) for layer in wide])
        if self._squares is not None:
            _each(np.add, self._squares, clips, [_sum(layer.square(), of_each) for layer in wide])
        if self._max is not None:
            _each(np.maximum, self._max, clips, [layer.amax(dim=1) for layer in layers])
        if self._quarters is not None:
            length = layers[0].shape[1]
            share = np.stack(
                [
                    _share_of_quarters(first, length, self._readings[clip][reading]) / len(self._readings[clip])
                    for clip, first in pieces
                ]
            )
            shares = torch.from_numpy(share).to(layers[0].device)
            _each(np.add, self._quarters, clips, [shares @ layer for layer in wide])

    def pooled(self) -> Float32[np.ndarray, "clip dim"]:
        """The statistics of everything added."""
        mean = self._sum / self._weight
        columns: list[np.ndarray] = [mean]
        if self._squares is not None:
            variance = self._squares / self._weight - mean**2
            # Below this, float32 features vary by rounding only, which a scaler would turn into a feature.
            varies = variance > (np.finfo(np.float32).eps * mean) ** 2
            columns.append(np.sqrt(np.where(varies, variance, 0)))
        if self._max is not None:
            columns.append(self._max)
        if self._quarters is not None:
            columns.append((self._quarters * NUM_QUARTERS).reshape(len(mean), -1))
        return np.concatenate(columns, axis=1, dtype=np.float32)


def _share_of_quarters(first: int, length: int, num_steps: int) -> Float[np.ndarray, "quarter time"]:
    """The share of a clip that each of some time steps covers of each quarter of its length.

    A step that lies in two quarters counts in both, by its parts; so a clip of one step has four equal quarters.

    >>> _share_of_quarters(0, 2, 2).tolist()
    [[0.25, 0.0], [0.25, 0.0], [0.0, 0.25], [0.0, 0.25]]
    """
    start = np.arange(first, first + length) / num_steps
    quarter = np.arange(NUM_QUARTERS)[:, None] / NUM_QUARTERS
    overlap = np.minimum(start + 1 / num_steps, quarter + 1 / NUM_QUARTERS) - np.maximum(start, quarter)
    return np.maximum(overlap, 0.0)


def _sum(values: Float[Tensor, "b time d"], weight: Float[Tensor, "b time"] | None) -> Float[Tensor, "b d"]:
    """Over time, weighted if there is a weight."""
    return (values if weight is None else values * weight[:, :, None]).sum(dim=1)


def _each(into: np.ufunc, total: np.ndarray, clips: Sequence[int], layers: Sequence[Tensor]) -> None:
    """Accumulate new values of some clips, the layers side by side."""
    into.at(total, clips, torch.cat(list(layers), dim=-1).cpu().numpy())
