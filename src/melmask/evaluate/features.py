"""Which features are taken from an encoder."""

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

    Raises:
        ValueError: no such layers or pooling.

    >>> str(FeatureSettings((3, 6), "mean+std"))
    'layers 3, 6, mean+std'
    """

    layers: Layers = "last"
    pooling: Pooling = "mean"

    def __post_init__(self) -> None:
        if self.pooling not in get_args(Pooling):
            raise ValueError(f"no pooling {self.pooling!r}: choose from {list(get_args(Pooling))}")
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

    def __str__(self) -> str:
        if isinstance(self.layers, str):
            return f"{self.layers} layer{'s' if self.layers == 'all' else ''}, {self.pooling}"
        word = "layer" if len(self.layers) == 1 else "layers"
        return f"{word} {', '.join(map(str, self.layers))}, {self.pooling}"
