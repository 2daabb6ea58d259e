"""Windows of a recording, cut from its blocks as they are decoded, so that a day of sound needs no more memory."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from melmask.encoders.fixed_length import middle

MIN_S = 0.001
Wave = Float32[np.ndarray, " _"]


@dataclass(frozen=True)
class Windows:
    """Which windows of a recording are read.

    Args:
        window_s: length in seconds; 0 for the whole recording as one.
        hop_s: from the start of one window to that of the next, in seconds.
        pad: a recording shorter than a window is zero-padded on both sides to its length; otherwise it is one shorter
            window.

    Raises:
        ValueError: a length is negative, or so short that windows hold nothing.
    """

    window_s: float = 0.0
    hop_s: float = 0.0
    pad: bool = False

    def __post_init__(self) -> None:
        if self.window_s < 0 or self.hop_s < 0:
            raise ValueError(f"windows of {self.window_s} s every {self.hop_s} s: give lengths above 0")
        if 0 < self.window_s < MIN_S or 0 < self.hop_s < MIN_S:
            raise ValueError(f"windows of {self.window_s} s every {self.hop_s} s: give at least {MIN_S} s for both")
        if self.hop_s and not self.window_s:
            raise ValueError(f"a hop of {self.hop_s} s without a window: give its length too")

    def of(self, blocks: Iterable[Wave], sample_rate_hz: int) -> Iterator[tuple[float, float, Wave]]:
        """The start and the end of each window in seconds, and its samples.

        The last window ends with the recording, and overlaps the one before where the length is no multiple of the hop.

        Args:
            blocks: the waveform, piece by piece.
            sample_rate_hz: its rate.

        >>> [window[:2] for window in Windows(2.0, 1.0).of([np.zeros(45, np.float32)], 10)]
        [(0.0, 2.0), (1.0, 3.0), (2.0, 4.0), (2.5, 4.5)]
        """
        if not self.window_s:
            whole = np.concatenate(list(blocks))
            yield 0.0, len(whole) / sample_rate_hz, whole
            return
        size = max(1, round(self.window_s * sample_rate_hz))
        hop_s = self.hop_s or self.window_s
        held, held_from, number, done = np.zeros(0, np.float32), 0, 0, 0
        for block in blocks:
            held = np.concatenate([held, block])
            while True:
                start = round(number * hop_s * sample_rate_hz)
                if start + size > held_from + len(held):
                    break
                yield start / sample_rate_hz, (start + size) / sample_rate_hz, held[start - held_from :][:size]
                number, done = number + 1, start + size
            spare = max(0, min(start - held_from, len(held) - size))  # the last window may still need the newest
            held, held_from = held[spare:], held_from + spare
        end = held_from + len(held)
        if not done:
            wave = middle(held, size, 0.0) if self.pad else held
            yield 0.0, end / sample_rate_hz, wave
        elif done < end:
            yield (end - size) / sample_rate_hz, end / sample_rate_hz, held[len(held) - size :]
