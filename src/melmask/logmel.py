"""The front end: waveform -> log-mel spectrogram. Its constants are defined only here."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float16
from torch import Tensor, nn

from melmask.fields import make

EPSILON = float(torch.finfo(torch.float32).eps)
BANDS_AT_ONCE = 16  # mel bands in one matrix product: one vector register of float32 is as wide


MAX_FILTERS, MAX_RATE_HZ = 2**25, 10**8  # values of the filterbank, which takes 128 MB then


@dataclass(frozen=True)
class LogMelSpec:
    """All settings of the front end.

    Args:
        sample_rate_hz: of the waveform, in Hz.
        n_fft: samples in the Hann window and its Fourier transform; even.
        hop_length: samples from one frame to the next.
        num_mels: number of mel bands.
        fmin_hz: lower edge of the lowest band, in Hz.
        fmax_hz: upper edge of the highest band, in Hz.

    Raises:
        ValueError: a setting is out of range, or the bands are too narrow for n_fft.

    >>> LogMelSpec().frames_per_s
    100.0
    """

    sample_rate_hz: int = 16_000
    n_fft: int = 400
    hop_length: int = 160
    num_mels: int = 80
    fmin_hz: float = 50.0
    fmax_hz: float = 8_000.0

    def __post_init__(self) -> None:
        for name in ("sample_rate_hz", "n_fft", "hop_length", "num_mels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.n_fft * self.num_mels > MAX_FILTERS or self.sample_rate_hz > MAX_RATE_HZ:
            raise ValueError(
                f"n_fft {self.n_fft} times num_mels {self.num_mels} is at most {MAX_FILTERS:,}, and sample_rate_hz "
                f"{self.sample_rate_hz} at most {MAX_RATE_HZ:,}"
            )
        if self.n_fft % 2:
            raise ValueError(f"n_fft must be even, so that frames are centred, got {self.n_fft}: use {self.n_fft + 1}")
        if self.hop_length > self.n_fft:
            raise ValueError(
                f"hop_length {self.hop_length} exceeds n_fft {self.n_fft}, so that samples between frames are ignored: "
                f"use at most {self.n_fft}"
            )
        if not 0 <= self.fmin_hz < self.fmax_hz:
            raise ValueError(f"need 0 <= fmin_hz < fmax_hz, got {self.fmin_hz} and {self.fmax_hz}")
        if self.fmax_hz > self.sample_rate_hz / 2:
            raise ValueError(
                f"fmax_hz {self.fmax_hz} exceeds half the sample rate of {self.sample_rate_hz} Hz: "
                f"use at most {self.sample_rate_hz / 2}"
            )
        num_empty = int((_triangles(self).max(axis=1) == 0).sum())
        if num_empty:
            raise ValueError(
                f"{num_empty} of {self.num_mels} mel bands fall between the bins of n_fft {self.n_fft}: "
                "use fewer bands or a larger n_fft"
            )

    @property
    def frames_per_s(self) -> float:
        return self.sample_rate_hz / self.hop_length

    @property
    def silence(self) -> float:
        """The log-mel value of digital silence, which is the minimum."""
        return math.log(EPSILON)

    def num_frames(self, num_samples: int) -> int:
        """Number of frames of a waveform with ``num_samples`` samples."""
        return 1 + num_samples // self.hop_length

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LogMelSpec":
        """The inverse of `to_dict`, for values read from JSON.

        Raises:
            ValueError: a name is missing or unknown, or its value is of another type or out of range.
        """
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            raise ValueError(f"a LogMelSpec has the settings {sorted(names)}, got {sorted(values)}")
        return make(cls, values)


def mel_filterbank(spec: LogMelSpec) -> Float[Tensor, "mel bin"]:
    """Triangular mel filters, as a matrix on power spectra.

    Args:
        spec: sample_rate_hz and fmin_hz in Hz; n_fft in samples.

    Returns:
        Non-negative weights; mel = num_mels, bin = n_fft // 2 + 1. Each band has the same area.

    Source: Slaney (1998), "Auditory Toolbox". Deviates: not at all.

    >>> mel_filterbank(LogMelSpec()).shape
    torch.Size([80, 201])
    """
    return torch.from_numpy(_triangles(spec)).float()


class LogMel(nn.Module):
    """Waveforms -> natural logarithm of the mel power; computed in float32, also under autocast.

    Args:
        spec: the settings.
    """

    window: Tensor
    filterbank: Tensor

    def __init__(self, spec: LogMelSpec) -> None:
        super().__init__()
        self.spec = spec
        window = torch.hann_window(spec.n_fft, dtype=torch.float64).float()  # more accurate than in float32
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filterbank", mel_filterbank(spec).T.contiguous(), persistent=False)
        self._bands = _neighbouring_bands(self.filterbank)

    def forward(self, wave: Float[Tensor, "b sample"]) -> Float[Tensor, "b mel frame"]:
        """Log-mel spectrograms; frame i is centred on sample i * hop_length, with reflect padding at both ends.

        Returns:
            Log-mel values; frame = 1 + sample // hop_length.

        Raises:
            ValueError: the waveform is too short for the padding.
        """
        return self._log_mel(self._pad(wave))

    def in_blocks(
        self, pieces: Iterable[Float[Tensor, "b _"]], block_frames: int = 2**13
    ) -> Iterator[Float[Tensor, "b mel frame"]]:
        """The same frames in blocks, so that an hour of audio needs no more memory than a minute.

        Args:
            pieces: of the waveforms, one after the other, of any lengths; how they are cut changes nothing.
            block_frames: frames of a block; the last may have fewer.

        Raises:
            ValueError: the waveform is too short for the padding.
        """
        pad, hop_length, n_fft = self.spec.n_fft // 2, self.spec.hop_length, self.spec.n_fft
        num_samples, step = (block_frames - 1) * hop_length + n_fft, block_frames * hop_length
        # After a block is cut off, enough is left to be reflected, should nothing follow.
        enough = max(num_samples, step + pad + 1)
        kept, is_padded = None, False
        for piece in pieces:
            kept = piece.float() if kept is None else torch.cat([kept, piece.float()], dim=1)
            if not is_padded and kept.shape[1] > pad:
                kept, is_padded = torch.cat([kept[:, 1 : pad + 1].flip(1), kept], dim=1), True
            while is_padded and kept.shape[1] >= enough:
                yield self._log_mel(kept[:, :num_samples])
                kept = kept[:, step:]
        if kept is None or not is_padded:
            raise ValueError(self._too_short(0 if kept is None else kept.shape[1]))
        kept = torch.cat([kept, kept[:, -pad - 1 : -1].flip(1)], dim=1)
        for start in range(0, kept.shape[1] - n_fft + 1, step):
            last = min(start + num_samples, start + (kept.shape[1] - start - n_fft) // hop_length * hop_length + n_fft)
            yield self._log_mel(kept[:, start:last])

    def for_store(self, pieces: Iterable[Float[np.ndarray, " _"]]) -> Iterator[Float16[np.ndarray, "frame mel"]]:
        """The frames of one waveform in blocks, as stores keep them: frame by frame, in half precision.

        A waveform of half a window or less, which leaves nothing to reflect, is zero-padded at its end to one window.
        This is the only place that decides what is too short: nothing but an empty waveform is.

        Args:
            pieces: of the waveform, one after the other.

        Raises:
            ValueError: the waveform is empty.
        """
        for block in self.in_blocks(torch.from_numpy(piece)[None] for piece in self._long_enough(pieces)):
            yield block[0].T.half().numpy()

    def _long_enough(self, pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        num_samples = 0
        for piece in pieces:
            num_samples += len(piece)
            yield piece
        if not num_samples:
            raise ValueError("a waveform of 0 samples has no log-mels: leave it out")
        if num_samples <= self.spec.n_fft // 2:
            yield np.zeros(self.spec.n_fft - num_samples, np.float32)

    def _pad(self, wave: Tensor) -> Tensor:
        pad = self.spec.n_fft // 2
        if wave.shape[1] <= pad:
            raise ValueError(self._too_short(wave.shape[1]))
        wave = wave.float()
        # The same as F.pad with mode="reflect", in a sixth of its time.
        return torch.cat([wave[:, 1 : pad + 1].flip(1), wave, wave[:, -pad - 1 : -1].flip(1)], dim=1)

    def _too_short(self, num_samples: int) -> str:
        needed = f"reflect padding needs more than n_fft / 2 = {self.spec.n_fft // 2}"
        return f"a waveform of {num_samples} samples is too short: {needed}"

    def _log_mel(self, padded: Tensor) -> Tensor:
        # Frame-major in memory, as log-mels are stored and as the transform returns them.
        with torch.autocast(padded.device.type, enabled=False):
            spectrum = torch.stft(
                padded,
                self.spec.n_fft,
                self.spec.hop_length,
                window=self.window.float(),  # float(), since the whole model may have been cast to bfloat16
                center=False,
                return_complex=True,
            ).mT
            squares = torch.view_as_real(spectrum).square_()
            power, filterbank = squares[..., 0] + squares[..., 1], self.filterbank.float()
            mel = [power[..., bins] @ filterbank[bins, bands] for bands, bins in self._bands]
            return torch.cat(mel, dim=-1).add_(EPSILON).log_().mT


def _neighbouring_bands(filterbank: Float[Tensor, "bin mel"]) -> list[tuple[slice, slice]]:
    """Groups of adjacent bands, each with the range of bins outside of which its weights are zero."""
    groups = []
    for first in range(0, filterbank.shape[1], BANDS_AT_ONCE):
        bands = slice(first, first + BANDS_AT_ONCE)
        used = filterbank[:, bands].any(dim=1).nonzero()[:, 0].tolist()
        groups.append((bands, slice(used[0], used[-1] + 1)))
    return groups


def _triangles(spec: LogMelSpec) -> np.ndarray:
    """The filterbank in float64; in NumPy, since every LogMelSpec computes it to check itself."""
    edges_hz = _mel_to_hz(np.linspace(_hz_to_mel(spec.fmin_hz), _hz_to_mel(spec.fmax_hz), spec.num_mels + 2))
    bins_hz = np.arange(spec.n_fft // 2 + 1) * (spec.sample_rate_hz / spec.n_fft)
    low, centre, high = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    rising, falling = (bins_hz - low) / (centre - low), (high - bins_hz) / (high - centre)
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (high - low))


# Slaney's mel scale: linear up to 1 kHz with 200/3 Hz per mel, then logarithmic with 27 mels per factor of 6.4.
_LINEAR_HZ_PER_MEL, _LOG_FROM_HZ, _MELS_PER_NEPER = 200 / 3, 1000.0, 27 / math.log(6.4)
_LOG_FROM_MEL = _LOG_FROM_HZ / _LINEAR_HZ_PER_MEL


def _hz_to_mel(hz: float) -> float:
    if hz < _LOG_FROM_HZ:
        return hz / _LINEAR_HZ_PER_MEL
    return _LOG_FROM_MEL + _MELS_PER_NEPER * math.log(hz / _LOG_FROM_HZ)


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    above = _LOG_FROM_HZ * np.exp((mel - _LOG_FROM_MEL) / _MELS_PER_NEPER)
    return np.where(mel < _LOG_FROM_MEL, mel * _LINEAR_HZ_PER_MEL, above)


# The front ends that MSM-MAE and M2D publish weights for, by sample rate in Hz.
PUBLISHED_SPECS = {
    16_000: LogMelSpec(),
    32_000: LogMelSpec(sample_rate_hz=32_000, n_fft=800, hop_length=320, fmin_hz=50.0, fmax_hz=16_000.0),
}


# Front ends by name, for prepare --preset. Bands are multiples of 16, as high as a patch.
PRESETS = {
    "speech": LogMelSpec(),
    "bats": LogMelSpec(256_000, n_fft=1024, hop_length=256, num_mels=80, fmin_hz=10_000.0, fmax_hz=128_000.0),
    "heart": LogMelSpec(2_000, n_fft=128, hop_length=20, num_mels=48, fmin_hz=20.0, fmax_hz=1_000.0),
}


def front_end(
    preset: str = "speech",
    *,
    sample_rate_hz: int | None = None,
    num_mels: int | None = None,
    fmin_hz: float | None = None,
    fmax_hz: float | None = None,
    window_ms: float | None = None,
    hop_ms: float | None = None,
) -> LogMelSpec:
    """A preset with some of its settings changed, its lengths in milliseconds.

    Args:
        preset: a name in `PRESETS`.
        sample_rate_hz: another one keeps window and hop in milliseconds, and its half is the highest frequency.
        num_mels, fmin_hz, fmax_hz: see `LogMelSpec`.
        window_ms, hop_ms: rounded to samples, the window to an even number.

    Raises:
        ValueError: no such preset, or see `LogMelSpec`.

    >>> front_end(sample_rate_hz=48_000, num_mels=128, fmin_hz=20.0)
    LogMelSpec(sample_rate_hz=48000, n_fft=1200, hop_length=480, num_mels=128, fmin_hz=20.0, fmax_hz=24000.0)
    """
    if preset not in PRESETS:
        raise ValueError(f"no preset {preset!r} of a front end: choose from {', '.join(PRESETS)}")
    base = PRESETS[preset]
    rate_hz = base.sample_rate_hz if sample_rate_hz is None else sample_rate_hz
    window_s = base.n_fft / base.sample_rate_hz if window_ms is None else window_ms / 1000
    hop_s = base.hop_length / base.sample_rate_hz if hop_ms is None else hop_ms / 1000
    if fmax_hz is None:
        fmax_hz = base.fmax_hz if sample_rate_hz is None else rate_hz / 2
    return LogMelSpec(
        rate_hz,
        2 * round(window_s * rate_hz / 2),
        round(hop_s * rate_hz),
        base.num_mels if num_mels is None else num_mels,
        float(base.fmin_hz if fmin_hz is None else fmin_hz),
        float(fmax_hz),
    )
