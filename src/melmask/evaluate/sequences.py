"""The time steps of many clips, kept in half precision: what attentive pooling and event detection read."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float16, Float32, Int


@dataclass(frozen=True, eq=False)
class Sequences:
    """Features of every time step of a number of clips, one clip after the other, without padding.

    Clips differ in length, so a padded array would be as large as its longest clip asks for; padding is only added to
    the few clips looked at together.

    Args:
        steps: features of all time steps; it may be a read-only map of a file.
        start: the first step of each clip, and the end of the last clip.
    """

    steps: Float16[np.ndarray, "step dim"]
    start: Int[np.ndarray, " clip1"]

    def __len__(self) -> int:
        return len(self.start) - 1

    def clip(self, number: int) -> Float16[np.ndarray, "time dim"]:
        """The time steps of one clip, as a view."""
        return self.steps[self.start[number] : self.start[number + 1]]

    def padded(
        self, clips: Sequence[int] | Int[np.ndarray, " clip"]
    ) -> tuple[Float32[np.ndarray, "clip time dim"], Bool[np.ndarray, "clip time"]]:
        """Some clips side by side, as long as the longest of them: features, 0 behind a clip's end, and what is valid.

        >>> two = Sequences(np.ones((3, 4), np.float16), np.array([0, 1, 3]))
        >>> two.padded([0, 1])[1].tolist()
        [[True, False], [True, True]]
        """
        lengths = np.array([self.start[number + 1] - self.start[number] for number in clips])
        features = np.zeros((len(lengths), lengths.max(), self.steps.shape[1]), np.float32)
        for row, number in enumerate(clips):
            features[row, : lengths[row]] = self.clip(number)
        return features, np.arange(lengths.max()) < lengths[:, None]
