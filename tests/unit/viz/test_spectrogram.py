"""Spectrograms on their axes."""

import librosa
import pytest

from melmask.logmel import LogMelSpec
from melmask.viz.spectrogram import band_centres_hz, band_of_hz

SPEC = LogMelSpec()


def test_axes_are_at_the_mel_bands() -> None:
    expected = librosa.mel_frequencies(SPEC.num_mels + 2, fmin=SPEC.fmin_hz, fmax=SPEC.fmax_hz)[1:-1]
    assert band_centres_hz(SPEC) == pytest.approx(expected, abs=0.5)
    assert band_of_hz(SPEC, float(expected[31])) == pytest.approx(31, abs=0.05)
