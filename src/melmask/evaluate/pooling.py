"""Statistics over the time steps of a clip, whichever pieces they come in."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from melmask.evaluate.features import Pooling


class Pool:
    """The statistics of a number of clips whose time steps come in pieces, in any order.

    Sums are kept in float64, in which the square of a float32 is exact.

    Args:
        num_clips: how many.
        num_dims: of a time step.
        pooling: which statistics, side by side; the deviation is that of the steps at hand, not an estimate for others.
    """

    def __init__(self, num_clips: int, num_dims: int, pooling: Pooling) -> None:
        self.pooling = pooling
        self._num_steps = np.zeros((num_clips, 1), np.int64)
        self._sum = np.zeros((num_clips, num_dims))
        self._squares = np.zeros_like(self._sum) if pooling == "mean+std" else None
        self._max = np.full(self._sum.shape, -np.inf, np.float32) if pooling == "mean+max" else None

    def add(self, clips: Sequence[int], layers: Sequence[Float[Tensor, "b time d"]]) -> None:
        """Add a piece of each of some clips; a clip may occur several times.

        Args:
            clips: their numbers.
            layers: features of their time steps, from one layer after the other.
        """
        np.add.at(self._num_steps, clips, layers[0].shape[1])
        _each(np.add, self._sum, clips, [layer.double().sum(dim=1) for layer in layers])
        if self._squares is not None:
            _each(np.add, self._squares, clips, [layer.double().square().sum(dim=1) for layer in layers])
        if self._max is not None:
            _each(np.maximum, self._max, clips, [layer.amax(dim=1) for layer in layers])

    def pooled(self) -> Float32[np.ndarray, "clip dim"]:
        """The statistics of everything added; each clip has at least one time step."""
        mean = self._sum / self._num_steps
        columns: list[np.ndarray] = [mean]
        if self._squares is not None:
            variance = self._squares / self._num_steps - mean**2
            # Below this, float32 features vary by rounding only, which a scaler would blow up to a feature.
            varies = variance > (np.finfo(np.float32).eps * mean) ** 2
            columns.append(np.sqrt(np.where(varies, variance, 0)))
        if self._max is not None:
            columns.append(self._max)
        return np.concatenate(columns, axis=1, dtype=np.float32)


def _each(into: np.ufunc, total: np.ndarray, clips: Sequence[int], layers: Sequence[Tensor]) -> None:
    """Enter new values into the running ones of some clips."""
    into.at(total, clips, torch.cat(list(layers), dim=1).cpu().numpy())
