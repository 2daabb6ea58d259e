"""Channels -> mono: their mean, unless some of them are dead or cancel each other."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from melmask.audio.facts import MAX_PEAK, OVERFLOWING, AudioError, Note, peak_fault

DEAD = 1e-6  # a channel with less than this share of the loudest one's power, -60 dB, holds none of the sound
CANCELLED = 0.2  # channels with less than this share of the power that independent ones would leave cancel each other
TOO_COARSE = 1e-3  # a share of the power, offset included, below which float32 is too coarse for what is left


class OtherChannels(Exception):
    """The mean of all channels is not the sound of the file: decode it again, with these channels only.

    Args:
        chosen: the channels to average, counted from 0.
        note: what was found.
    """

    def __init__(self, chosen: tuple[int, ...], note: Note) -> None:
        super().__init__(chosen, note)
        self.chosen, self.note = chosen, note


class Mix:
    """The mono sound of a file block by block, checked on the way.

    Args:
        path: for messages.
        rate_hz: of the samples.
        num_channels: of the file.
        chosen: the channels to average; all of them, and whether that was right is found out, if empty.
    """

    def __init__(self, path: Path, rate_hz: int, num_channels: int, chosen: Sequence[int] = ()) -> None:
        self.path, self.rate_hz, self.chosen = path, rate_hz, tuple(chosen)
        self.num_samples = 0
        self._low, self._high = math.inf, -math.inf
        self._powers = _Powers(num_channels) if num_channels > 1 and not chosen else None

    def of(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """The mean of the channels of each block [channel, sample].

        Raises:
            AudioError: NaN or infinite samples, samples far outside -1..1, none at all, or all of them equal.
            OtherChannels: channels are dead or cancel, as known at the end.
        """
        for block in blocks:
            mono = _mean(block[list(self.chosen)] if self.chosen else block)
            if self._powers is not None:
                self._powers.add(block, mono)
            self._check(mono)
            self.num_samples += len(mono)
            yield mono
        if self.num_samples == 0:
            raise AudioError("empty file", self.path, "it holds no samples. Record or export it again.")
        if self._powers is not None:
            self._powers.check()
        if self._low == self._high:
            detail = f"all {self.num_samples} samples are equal. Remove it, or record it again."
            raise AudioError("silent", self.path, detail)

    def _check(self, mono: np.ndarray) -> None:
        low, high = float(mono.min()), float(mono.max())
        self._low, self._high = min(self._low, low), max(self._high, high)
        if low >= -MAX_PEAK and high <= MAX_PEAK:  # not so for NaN
            return
        near = f"near {self.num_samples / self.rate_hz:.1f} s"
        if not (math.isfinite(low) and math.isfinite(high)):
            detail = f"the first is {near}. Export it again."
            raise AudioError("contains NaN or infinite samples", self.path, detail)
        peak = max(-low, high)
        reason = "contains NaN or infinite samples" if peak > OVERFLOWING else "samples far outside -1 to 1"
        raise AudioError(reason, self.path, f"{near}, {peak_fault(peak)}")


class _Powers:
    """Sums of squares of every channel and of their mean, without their offsets."""

    def __init__(self, num_channels: int) -> None:
        self.num_samples = 0
        self.sums, self.squares = np.zeros(num_channels + 1), np.zeros(num_channels + 1)

    def add(self, channels: np.ndarray, mean: np.ndarray) -> None:
        """Add a block of each channel, and of their mean."""
        signals = [*channels, mean]
        with np.errstate(all="ignore"):
            sums = np.array([signal.sum() for signal in signals], dtype=float)
            squares = np.array([np.einsum("i,i->", signal, signal) for signal in signals], dtype=float)
            powers = squares - sums**2 / len(mean)
            for i in np.flatnonzero(powers < TOO_COARSE * squares.max()):
                exact = signals[i].astype(float)
                sums[i], squares[i] = exact.sum(), exact @ exact
        self.num_samples += len(mean)
        self.sums += sums
        self.squares += squares

    def check(self) -> None:
        """Find out whether the mean of all channels is the sound of the file.

        Raises:
            OtherChannels: it is not.
        """
        *powers, mix = (self.squares - self.sums**2 / self.num_samples) / self.num_samples
        loudest = int(np.argmax(powers))
        if powers[loudest] <= 0:
            return
        live = [channel for channel, power in enumerate(powers) if power > DEAD * powers[loudest]]
        independent = sum(powers[channel] for channel in live) / len(powers) ** 2
        if len(live) > 1 and mix < CANCELLED * independent:
            below_db = 10 * np.log10(max(mix, 1e-30) / powers[loudest])
            depth = f"{below_db:.0f} dB" if below_db > -150 else "nothing"
            detail = f"their mean has {depth} of their power; channel {loudest + 1} of {len(powers)} was kept alone"
            raise OtherChannels((loudest,), Note("channels cancel", detail))
        if len(live) < len(powers):
            dead = ", ".join(str(channel + 1) for channel in range(len(powers)) if channel not in live)
            detail = f"no sound in channel {dead} of {len(powers)}: left out of the mean"
            raise OtherChannels(tuple(live), Note("dead channels", detail))


def _mean(channels: np.ndarray) -> np.ndarray:
    """The mean over the channels, by adding them up: NumPy's mean over so short an axis takes 30 times as long."""
    mono = channels[0]
    if len(channels) > 1:
        with np.errstate(all="ignore"):
            mono = mono + channels[1]
            for channel in channels[2:]:
                mono += channel
            mono /= len(channels)
    return mono
