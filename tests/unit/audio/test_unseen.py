"""The share of a recording's energy outside of the front end's band, by tones whose share is known."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from melmask.audio import Energy, decode

BAND = (50.0, 8_000.0, 16_000)


def shares_of(
    path: Path, tones: dict[float, float], rate_hz: int, seconds: float = 4.0, offset: float = 0.0
) -> np.ndarray:
    """The shares below and above of tones, by frequency in Hz and amplitude."""
    time_s = np.arange(int(seconds * rate_hz)) / rate_hz
    wave = offset + sum(amplitude * np.sin(2 * np.pi * hz * time_s) for hz, amplitude in tones.items())
    soundfile.write(path, wave, rate_hz, subtype="FLOAT")
    energy = Energy(*BAND)
    decode(path, BAND[2], lambda blocks: sum(map(len, blocks)), energy=energy)
    assert energy.file_rate_hz == rate_hz
    return np.array(energy.shares())


@pytest.mark.parametrize(
    ("tones", "rate_hz", "expected"),
    [
        ({1000: 0.3}, 16_000, (0, 0)),
        ({60: 0.3}, 16_000, (0, 0)),
        ({1000: 0.3, 30: 0.3}, 16_000, (0.5, 0)),
        ({45_000: 0.3}, 384_000, (0, 1)),
        ({45_000: 0.3, 2000: 0.1}, 384_000, (0, 0.9)),
        ({30_000: 0.2, 2000: 0.2, 20: 0.2}, 96_000, (1 / 3, 1 / 3)),
        ({3: 0.3}, 100, (1, 0)),
        ({30: 0.3, 90: 0.3}, 250, (0.5, 0)),
    ],
)
@pytest.mark.parametrize("offset", [0.0, 0.4])
def test_tones(tmp_path: Path, tones: dict[float, float], rate_hz: int, expected: tuple, offset: float) -> None:
    assert np.abs(shares_of(tmp_path / "tones.wav", tones, rate_hz, offset=offset) - expected).max() < 0.03


def test_in_blocks_as_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tones = {1000: 0.3, 30: 0.3, 20_000: 0.2}
    whole = shares_of(tmp_path / "whole.wav", tones, 48_000)
    monkeypatch.setattr("melmask.audio.sndfile.BLOCK_VALUES", 20_000)
    assert np.abs(shares_of(tmp_path / "blocks.wav", tones, 48_000) - whole).max() < 0.03


def test_a_band_that_ends_below_half_the_rate(tmp_path: Path) -> None:
    time_s = np.arange(16_000) / 16_000
    soundfile.write(tmp_path / "two.wav", 0.2 * sum(np.sin(2 * np.pi * hz * time_s) for hz in (500, 5000)), 16_000)
    energy = Energy(0.0, 2_000.0, 16_000)
    decode(tmp_path / "two.wav", 16_000, lambda blocks: sum(map(len, blocks)), energy=energy)
    assert energy.shares() == pytest.approx((0, 0.5), abs=0.01)
