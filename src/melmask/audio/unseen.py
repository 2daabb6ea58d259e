"""How much of a recording's energy lies outside of the frequencies that a front end reads."""

import math

import numpy as np

DECIMATED = 8  # rate of the low-pass filtered sound, in multiples of the lowest frequency
FEW_SAMPLES = 2000
LOOKED_AT = 0.4  # share of the energy below half that rate, from which on its spectrum is looked at


class Energy:
    """The share of a recording's energy outside of a band, gathered block by block.

    Args:
        low_hz: the lowest frequency of the band.
        high_hz: its highest frequency.
        rate_hz: of the sound that the front end gets, after resampling.

    Everything is counted without the offset, which is no sound. What is below the band is measured on means of some
    samples each, and so is up to 5 % too small near the band's edge; a small share there is taken for 0.
    """

    def __init__(self, low_hz: float, high_hz: float, rate_hz: int) -> None:
        self.low_hz, self.high_hz, self.rate_hz = low_hz, high_hz, rate_hz
        self.num_together = max(1, int(rate_hz / (DECIMATED * low_hz))) if low_hz else 0
        self.start(rate_hz)

    def start(self, file_rate_hz: int) -> None:
        """Forget what was added: another recording of that rate, or the same anew."""
        self.file_rate_hz = file_rate_hz
        self._before, self._after = _Power(), _Power()
        self._below = self._above = 0.0
        self._num_samples = 0

    def add_before(self, block: np.ndarray) -> None:
        """Add samples as they are in the file, if they are resampled."""
        self._before.add(block)

    def add_after(self, block: np.ndarray) -> None:
        """Add samples as the front end gets them."""
        if len(block) < FEW_SAMPLES and self._after.num_samples:
            return  # the end of a resampled file: it is not worth the time
        if self.high_hz < self.rate_hz / 2 or not self.num_together or len(block) < self.num_together:
            self._after.add(block)
            if self.high_hz < self.rate_hz / 2:
                self._add_outside(block, self.rate_hz)
            return
        whole = len(block) // self.num_together * self.num_together
        means = np.einsum("ij->i", block[:whole].reshape(-1, self.num_together))  # faster than its sum along an axis
        means /= self.num_together
        power = self._after.add(block, float(means.sum()) * self.num_together)
        if _Power().add(means) < LOOKED_AT * power:
            self._num_samples += len(means)
        else:
            self._add_outside(means, self.rate_hz / self.num_together)

    def _add_outside(self, wave: np.ndarray, rate_hz: float | int) -> None:
        spectrum = np.abs(np.fft.rfft(wave)) ** 2
        low, high = (min(len(spectrum), math.ceil(hz * len(wave) / rate_hz)) for hz in (self.low_hz, self.high_hz))
        self._below += 2 * float(spectrum[1:low].sum()) / len(wave)
        self._above += 2 * float(spectrum[max(1, high) :].sum()) / len(wave)
        self._num_samples += len(wave)

    def shares(self) -> tuple[float, float]:
        """The shares of the energy below and above the band, each from 0 to 1."""
        whole = self._before.mean if self._before.num_samples else self._after.mean
        if whole <= 0:
            return 0.0, 0.0
        below, above = (power / max(1, self._num_samples) / whole for power in (self._below, self._above))
        lost = max(0.0, 1 - self._after.mean / whole)  # by resampling
        return min(1.0, below), min(1.0, above + lost)


class _Power:
    """Mean power of a sound without its offset."""

    def __init__(self) -> None:
        self.num_samples = 0
        self._sum = self._squares = 0.0

    def add(self, wave: np.ndarray, total: float | None = None) -> float:
        """Add samples, and their sum if it is known already; returns their own mean power."""
        total = float(wave.sum()) if total is None else total
        squares = float(np.einsum("i,i->", wave, wave))
        self.num_samples += len(wave)
        self._sum += total
        self._squares += squares
        return squares / len(wave) - (total / len(wave)) ** 2 if len(wave) else 0.0

    @property
    def mean(self) -> float:
        """Of all that was added."""
        if not self.num_samples:
            return 0.0
        return max(0.0, self._squares / self.num_samples - (self._sum / self.num_samples) ** 2)
