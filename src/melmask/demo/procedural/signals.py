"""The parts that the families of sound are made of: parameters, curves, phases, damped modes, bands of noise.

What changes slowly (pitch, level, formants) is computed at one point in CONTROL samples and joined by straight lines;
at the sample rate only phases, sines and products are computed. Noise is read from one fixed table at a random place.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from jaxtyping import Complex64, Float
from torch import Tensor

CONTROL = 32  # samples from one point of a curve to the next
MODE_BLOCK = 128  # samples, of which the phasors of modes are a product of two short tables
TABLE_SIZE = 2**20  # values of the table of noise
NUM_UNIFORM = 2**16  # of the table of random numbers from [0, 1)
MAX_SHARE_OF_RATE = 0.45  # highest frequency, in sample rates

Number = int | float
Curve = Float[Tensor, "note point"]
Column = Float[Tensor, "note 1"]
Sound = Float[Tensor, "note sample"]
Law = Callable[[np.ndarray], np.ndarray]  # a random number from [0, 1) -> a parameter


def log(low: Number, high: Number) -> Law:
    """A parameter whose logarithm is uniform between those of two positive values."""
    return lambda u: low * (high / low) ** u


def linear(low: Number, high: Number) -> Law:
    """A parameter that is uniform between two values."""
    return lambda u: low + (high - low) * u


def bend(octaves: Number) -> Law:
    """A parameter between -octaves and octaves, mostly near 0."""
    return lambda u: octaves * (2 * u - 1) ** 5


def rarely(share: Number, low: Number, high: Number) -> Law:
    """0, but for that share of all notes, for which it is uniform between two values."""
    return lambda u: np.where(u < share, low + (high - low) * u / share, 0.0)


def one_of(*values: Number) -> Law:
    """One of some values, each as likely as the next."""
    return lambda u: np.array(values)[(u * len(values)).astype(np.int64)]


@lru_cache(maxsize=4)
def noise_table(device: torch.device) -> Complex64[Tensor, " _"]:
    """Complex white Gaussian noise; real and imaginary part have variance 1."""
    values = np.random.default_rng(20261128).standard_normal((TABLE_SIZE, 2), dtype=np.float32)
    return torch.view_as_complex(torch.from_numpy(values)).to(device)


@lru_cache(maxsize=1)
def uniform_table() -> np.ndarray:
    """Numbers from [0, 1)."""
    return np.random.default_rng(20261129).random(NUM_UNIFORM)


@lru_cache(maxsize=4)
def _ramp(device: torch.device) -> Float[Tensor, " sample"]:
    return torch.arange(CONTROL, device=device, dtype=torch.float32)


@dataclass(frozen=True)
class Notes:
    """Some notes of one family, to be rendered at once.

    A note's random numbers are used from the first on for its parameters (`draw`), and from the last on, counted as
    place 0, 1..., for where it reads the tables of noise and of random numbers.

    Args:
        u: each note's random numbers from [0, 1).
        duration_s: how long each sounds.
        num_samples: to render, a multiple of MODE_BLOCK; the longest note ends in them.
        rate_hz: sample rate.
        device: to compute on.
    """

    u: Float[np.ndarray, "note parameter"]
    duration_s: Column
    num_samples: int
    rate_hz: int
    device: torch.device

    @cached_property
    def time_s(self) -> Float[Tensor, " point"]:
        """The times of the points of curves, from the note's start; one more than it has spans of CONTROL samples."""
        return torch.arange(self.num_samples // CONTROL + 1, device=self.device) * (CONTROL / self.rate_hz)

    @property
    def max_hz(self) -> float:
        return MAX_SHARE_OF_RATE * self.rate_hz

    def draw(self, *laws: Law) -> tuple[Column, ...]:
        """The first parameters of each note, by their laws."""
        values = [law(self.u[:, k]) for k, law in enumerate(laws)]
        return self._tensor(np.stack(values, axis=1)).split(1, dim=1)

    def choose(self, place: int, values: Float[np.ndarray, "choice value"]) -> Float[Tensor, "note value"]:
        """One of several rows, each as likely as the next."""
        return self._tensor(values[self._start(place, len(values))])

    def more(self, place: int, number: int) -> Float[Tensor, "note number"]:
        """More random numbers from [0, 1): a row of a table."""
        start = self._start(place, NUM_UNIFORM - number)
        return self._tensor(uniform_table()[start[:, None] + np.arange(number)])

    def _start(self, place: int, num_places: int) -> np.ndarray:
        return (self.u[:, -1 - place] * num_places).astype(np.int64)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(self.device)

    def curve(self, values: Curve) -> Sound:
        """A curve at the sample rate: straight lines between its points."""
        ramp = _ramp(self.device) / CONTROL
        first = values[:, :-1, None]
        return torch.addcmul(first, values[:, 1:, None] - first, ramp).flatten(1)

    def cycles(self, frequency_hz: Tensor) -> Sound:
        """The phase in cycles, whole cycles removed at every point: the integral of a curve, or of a constant."""
        step = frequency_hz.double().expand(-1, self.num_samples // CONTROL + 1) / self.rate_hz
        whole = (step[:, :-1] + step[:, 1:]).mul_(CONTROL / 2).cumsum(1)
        start = torch.cat([torch.zeros_like(whole[:, :1]), whole[:, :-1]], dim=1).frac_().float()[:, :, None]
        slope = ((step[:, 1:] - step[:, :-1]) / (2 * CONTROL)).float()[:, :, None]
        ramp = _ramp(self.device)
        return torch.addcmul(start, ramp, torch.addcmul(step[:, :-1, None].float(), slope, ramp)).flatten(1)

    def decay(self, tau_s: Column) -> Curve:
        """exp(-t / tau)."""
        return (self.time_s / -tau_s).exp()

    def envelope(self, attack_s: Column | Number, release_s: Column | Number) -> Curve:
        """Rises linearly from the start and falls linearly to the end of each note."""
        time_s = self.time_s
        return (time_s / attack_s).clamp(max=1.0) * ((self.duration_s - time_s) / release_s).clamp(0.0, 1.0)

    def modes(self, frequency_hz: Tensor, tau_s: Tensor, amplitude: Tensor) -> Sound:
        """A sum of damped sines from phase zero: sum_m a_m exp(-t / tau_m) sin(2 pi f_m t); each [note, mode].

        As powers of poles, z^(B j + i) = z^(B j) z^i: one small matrix product a block of samples, no sine a sample.
        """
        amplitude = amplitude * (frequency_hz < self.max_hz)
        turns, loss = frequency_hz.double() / self.rate_hz, -1 / (tau_s * self.rate_hz)

        def phasors(samples: Tensor) -> tuple[Tensor, Tensor]:
            angle = (samples[:, None] * turns[:, None, :]).frac_().float().mul_(2 * math.pi)
            size = (samples[:, None] * loss[:, None, :]).exp_()
            return size * angle.cos(), size * angle.sin()

        blocks = torch.arange(self.num_samples // MODE_BLOCK, device=self.device) * MODE_BLOCK
        (real, imaginary), (cos, sin) = phasors(blocks), phasors(torch.arange(MODE_BLOCK, device=self.device))
        weights = torch.cat([real * amplitude[:, None], imaginary * amplitude[:, None]], dim=2)
        return (weights @ torch.cat([sin, cos], dim=2).mT).flatten(1)

    def slow_noise(self, place: int, bandwidth_hz: Column) -> Complex64[Tensor, "note sample"]:
        """Complex noise from 0 to about half the bandwidth, either side: the table read slowly, with straight lines."""
        step = (bandwidth_hz / self.rate_hz).clamp(max=1.0)
        return self._read(noise_table(self.device), place, step * torch.arange(self.num_samples, device=self.device))

    def wander(self, place: int, rate_hz: Column) -> Curve:
        """A random curve with about that many turns a second, at the points of curves; mean 0, deviation about 1."""
        return self._read(noise_table(self.device), place, rate_hz * self.time_s).real

    def _read(self, table: Tensor, place: int, steps: Tensor) -> Tensor:
        """The table from a note's place on, after that many steps, between its values along straight lines."""
        whole = steps.int()
        first = torch.from_numpy(self._start(place, TABLE_SIZE - self.num_samples - 2).astype(np.int32))
        index = (whole + first[:, None].to(self.device)).flatten()
        values, following = table.index_select(0, index), table.index_select(0, index.add_(1))
        part = (steps - whole).flatten()
        return torch.lerp(values, following, part.to(values.dtype)).view(steps.shape)


def sine(cycles: Tensor) -> Tensor:
    """sin(2 pi x)."""
    return (cycles * (2 * math.pi)).sin_()


def phasor(cycles: Tensor) -> Complex64[Tensor, "note sample"]:
    """exp(2 pi i x)."""
    angle = cycles * (2 * math.pi)
    return torch.complex(angle.cos(), angle.sin())


def shifted(noise: Complex64[Tensor, "note sample"], cycles: Sound) -> Sound:
    """Noise around 0 Hz, moved to the frequency of a phase: Re(n(t) exp(2 pi i x))."""
    angle = cycles * (2 * math.pi)
    return torch.addcmul(noise.real * angle.cos(), noise.imag, angle.sin_(), value=-1)
