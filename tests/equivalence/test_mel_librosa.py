"""The front end against librosa and transformers."""

import librosa
import numpy as np
import pytest
import torch
from transformers.audio_utils import spectrogram, window_function

from bounds import log_mel_with_bound
from melmask.logmel import EPSILON, LogMel, LogMelSpec, mel_filterbank

pytestmark = pytest.mark.numerical

SPECS = [
    LogMelSpec(),
    LogMelSpec(32_000, 1024, 320, 128, 50.0, 16_000.0),
    LogMelSpec(44_100, 2048, 441, 128, 0.0, 22_050.0),
    LogMelSpec(16_000, 1024, 160, 64, 300.0, 7_600.0),
]


def sounds(rate_hz: int) -> np.ndarray:
    """Noise, a click, and a loud tone over fainter noise."""
    rng = np.random.default_rng(0)
    time_s = np.arange(rate_hz) / rate_hz
    noise = 0.1 * rng.standard_normal(rate_hz)
    click = np.zeros(rate_hz)
    click[rate_hz // 3] = 0.9
    tone = 0.5 * np.sin(2 * np.pi * 440 * time_s) + 2e-2 * rng.standard_normal(rate_hz)
    return np.stack([noise, click, tone]).astype(np.float32)


def mel_settings(spec: LogMelSpec) -> dict[str, float]:
    """Of librosa's functions."""
    settings = {"sr": spec.sample_rate_hz, "n_fft": spec.n_fft, "n_mels": spec.num_mels}
    return {**settings, "fmin": spec.fmin_hz, "fmax": spec.fmax_hz}


@pytest.mark.parametrize("spec", SPECS)
def test_filterbank(spec: LogMelSpec) -> None:
    expected = librosa.filters.mel(**mel_settings(spec))
    assert np.abs(mel_filterbank(spec).numpy() - expected).max() < 1e-4 * expected.max()


def power_of_librosa(waves: np.ndarray, spec: LogMelSpec) -> np.ndarray:
    return librosa.feature.melspectrogram(
        y=waves, hop_length=spec.hop_length, pad_mode="reflect", dtype=np.float64, **mel_settings(spec)
    )


def power_of_transformers(waves: np.ndarray, spec: LogMelSpec) -> np.ndarray:
    """With the filterbank of librosa, whose own spectrogram compiles for half a minute in a fresh environment."""
    filterbank = librosa.filters.mel(**mel_settings(spec), dtype=np.float64)
    settings = {"frame_length": spec.n_fft, "hop_length": spec.hop_length, "power": 2.0, "pad_mode": "reflect"}
    window = window_function(spec.n_fft, "hann")
    forms = {"mel_filters": filterbank.T, "mel_floor": 0.0, "dtype": np.float64}
    return np.stack([spectrogram(wave, window, **settings, **forms) for wave in waves])


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("power_of", [power_of_transformers, pytest.param(power_of_librosa, marks=pytest.mark.slow)])
def test_log_mel(power_of, spec: LogMelSpec) -> None:
    waves = sounds(spec.sample_rate_hz)
    power = power_of(waves.astype(np.float64), spec)
    expected, bound = log_mel_with_bound(waves, spec)
    np.testing.assert_allclose(np.log(power + EPSILON), expected, rtol=0, atol=1e-6)
    assert (np.abs(LogMel(spec)(torch.from_numpy(waves)).numpy() - expected) < bound).all()
