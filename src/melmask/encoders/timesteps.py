"""Features of the time steps of many clips, read by attentive pooling and event detection."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

MAX_STEPS = 32_768  # of a batch, padding included: 126 MB at 960 dimensions


@dataclass(frozen=True, eq=False)
class TimeSteps:
    """Features of every time step of a number of clips, without padding.

    Clips differ in length, and padding all of them to the longest would waste memory; only clips that are read together
    are padded.

    Args:
        steps: features of time steps, in half precision if they come from an encoder. It may be a read-only memory map,
            of which no more is read than is asked for.
        start: row of each clip's first step.
        length: number of each clip's steps.
        centre, scale: subtracted from all features, and multiplied with the difference, when they are read.
    """

    steps: Float[np.ndarray, "step dim"]
    start: Int[np.ndarray, " clip"]
    length: Int[np.ndarray, " clip"]
    centre: Float32[np.ndarray, " dim"] | float = 0.0
    scale: Float32[np.ndarray, " dim"] | float = 1.0

    def __len__(self) -> int:
        return len(self.start)

    @property
    def num_dims(self) -> int:
        return self.steps.shape[1]

    def __getitem__(self, clips: Sequence[int] | Int[np.ndarray, " some"]) -> "TimeSteps":
        """Some of the clips; nothing is copied."""
        return replace(self, start=self.start[clips], length=self.length[clips])

    def clip(self, number: int) -> Float32[np.ndarray, "time dim"]:
        """The time steps of one clip."""
        start = self.start[number]
        raw = self.steps[start : start + self.length[number]].astype(np.float32)
        return (raw - np.float32(self.centre)) * np.float32(self.scale)

    def cut(self, num_steps: int) -> "TimeSteps":
        """The same steps in the same order, as clips of at most ``num_steps``."""
        inside = [np.arange(0, length, num_steps) for length in self.length]
        start = np.concatenate([first + of_clip for first, of_clip in zip(self.start, inside, strict=True)])
        rest = np.concatenate([length - of_clip for length, of_clip in zip(self.length, inside, strict=True)])
        return replace(self, start=start, length=np.minimum(rest, num_steps))

    def padded(self) -> tuple[Float32[np.ndarray, "clip time dim"], Bool[np.ndarray, "clip time"]]:
        """All clips, zero-padded to the longest of them: features, and which time steps are valid.

        >>> two = TimeSteps(np.ones((3, 4), np.float16), np.array([0, 1]), np.array([1, 2]))
        >>> two.padded()[1].tolist()
        [[True, False], [True, True]]
        """
        valid = np.arange(self.length.max()) < self.length[:, None]
        features = np.zeros((*valid.shape, self.num_dims), np.float32)
        for number, length in enumerate(self.length):
            features[number, :length] = self.clip(number)
        return features, valid

    def batches(self, order: Int[np.ndarray, " clip"], size: int) -> Iterator[Int[np.ndarray, " some"]]:
        """Batches of at most ``size`` clips in the given order, and of at most `MAX_STEPS` with padding if possible."""
        first = 0
        while first < len(order):
            longest = np.maximum.accumulate(self.length[order[first : first + size]])
            fits = int(np.sum(longest * np.arange(1, len(longest) + 1) <= MAX_STEPS))
            yield order[first : first + max(1, fits)]
            first += max(1, fits)


def standardise(train: TimeSteps, *others: TimeSteps) -> list[TimeSteps]:
    """Zero mean and unit deviation over the time steps of the training clips; features constant there become 0."""
    total, squares = np.zeros((2, train.num_dims))
    for number in range(len(train)):
        steps = train.clip(number).astype(np.float64)
        total += steps.sum(axis=0)
        squares += np.square(steps).sum(axis=0)
    mean = total / train.length.sum()
    deviation = np.sqrt(np.maximum(squares / train.length.sum() - mean**2, 0))
    varies = deviation > np.finfo(np.float16).eps * np.abs(mean)  # below this, it is the rounding that varies
    scale = np.where(varies, 1 / np.where(varies, deviation, 1), 0).astype(np.float32)
    return [replace(some, centre=mean.astype(np.float32), scale=scale) for some in (train, *others)]


def one_step_each(features: Float32[np.ndarray, "clip dim"]) -> TimeSteps:
    """Embeddings as clips of a single time step."""
    return TimeSteps(features, np.arange(len(features)), np.ones(len(features), np.int64))


def finite(
    vectors: Float32[np.ndarray, "clip dim"],
    encoder: str,
    named: Callable[[int], object] = lambda row: f"recording {row}",
) -> Float32[np.ndarray, "clip dim"]:
    """The vectors as they are.

    Args:
        vectors: of clips.
        encoder: its name, for the message.
        named: what to call the clip of a row.

    Raises:
        ValueError: one has values that are not finite; it names encoder and clip.
    """
    rows = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(rows):
        raise ValueError(
            f"{encoder} gives NaN or infinite values for {named(int(rows[0]))}, and for {len(rows)} of {len(vectors)} "
            "recordings: its weights are damaged, or overflow in half precision; restore them from a copy"
        )
    return vectors


def half(features: np.ndarray, what: str) -> np.ndarray:
    """Features in half precision.

    Raises:
        ValueError: one exceeds its range.
    """
    if not np.abs(features).max() <= np.finfo(np.float16).max:
        raise ValueError(f"{what} of {np.abs(features).max()} do not fit half precision (65504): check the weights")
    return features.astype(np.float16)
