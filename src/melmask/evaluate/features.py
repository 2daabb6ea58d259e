"""Which features are taken from an encoder."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

Layers = Literal["last", "all"] | tuple[int, ...]
Pooling = Literal["mean", "mean+max", "mean+std"]


@dataclass(frozen=True)
class FeatureSettings:
    """Which layers of an encoder are read, and how the time steps of a clip become one vector.

    Args:
        layers: the last; all, from the first on, side by side; or some by number, 1 being the first block's output.
            The last passes through the encoder's own norm, others through one without weights.
        pooling: statistics over all time steps of the whole clip, side by side.
        unit_s: hear only the middle so many seconds of longer clips, as protocols with a unit length do; 0 for all of
            every clip. Shorter clips are heard whole, and never padded.

    Raises:
        ValueError: no such layers or pooling, or a negative length.

    >>> str(FeatureSettings((3, 6), "mean+std"))
    'layers 3, 6, mean+std'
    """

    layers: Layers = "last"
    pooling: Pooling = "mean"
    unit_s: float = 0.0

    def __post_init__(self) -> None:
        if self.pooling not in get_args(Pooling):
            raise ValueError(f"no pooling {self.pooling!r}: choose from {list(get_args(Pooling))}")
        if not 0.0 <= self.unit_s < math.inf:
            raise ValueError(f"unit_s is a length in seconds, or 0 for whole clips: got {self.unit_s}")
        if isinstance(self.layers, str):
            if self.layers not in ("last", "all"):
                raise ValueError(f"no layers {self.layers!r}: choose last, all, or numbers from 1 on")
        elif not self.layers or min(self.layers) < 1 or list(self.layers) != sorted(set(self.layers)):
            raise ValueError(f"layers {self.layers}: name each once, in ascending order, from 1 on")

    def numbers(self, depth: int) -> tuple[int, ...]:
        """The layers' numbers in an encoder of ``depth`` blocks.

        Raises:
            ValueError: the encoder has no such layer.
        """
        if self.layers == "last":
            return (depth,)
        if isinstance(self.layers, str):
            return tuple(range(1, depth + 1))
        if self.layers[-1] > depth:
            raise ValueError(f"layer {self.layers[-1]} of an encoder of {depth} layers: choose from 1 to {depth}")
        return self.layers

    def heard(self, num_frames: int, frames_per_s: float) -> tuple[int, int]:
        """First frame and number of frames of what is heard of a clip.

        >>> FeatureSettings(unit_s=2.0).heard(500, 100.0), FeatureSettings().heard(500, 100.0)
        ((150, 200), (0, 500))
        """
        length = min(num_frames, max(1, round(self.unit_s * frames_per_s))) if self.unit_s else num_frames
        return (num_frames - length) // 2, length

    def __str__(self) -> str:
        unit = f", middle {self.unit_s:g} s" if self.unit_s else ""
        if isinstance(self.layers, str):
            return f"{self.layers} layer{'s' if self.layers == 'all' else ''}, {self.pooling}{unit}"
        word = "layer" if len(self.layers) == 1 else "layers"
        return f"{word} {', '.join(map(str, self.layers))}, {self.pooling}{unit}"
