"""The front end: settings, shapes, known values, blocks, precision."""

import json
import math

import numpy as np
import pytest
import torch

from bounds import log_mel_with_bound
from melmask.logmel import EPSILON, LogMel, LogMelSpec, mel_filterbank

pytestmark = pytest.mark.numerical

SPECS = [
    LogMelSpec(),
    LogMelSpec(32_000, 1024, 320, 128, 50.0, 16_000.0),
    LogMelSpec(8_000, 200, 80, 32, 0.0, 4_000.0),
]


def noise(num_samples: int, batch_size: int = 1) -> torch.Tensor:
    return 0.1 * torch.randn(batch_size, num_samples, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fmax_hz": 9000.0}, "half the sample rate"),
        ({"fmin_hz": 8000.0}, "fmin_hz < fmax_hz"),
        ({"fmin_hz": -1.0}, "0 <= fmin_hz"),
        ({"fmin_hz": math.nan}, "fmin_hz"),
        ({"n_fft": 401}, "even"),
        ({"hop_length": 401}, "use at most 400"),
        ({"num_mels": 0}, "num_mels must be at least 1"),
        ({"hop_length": 0}, "hop_length must be at least 1"),
        ({"sample_rate_hz": -16_000}, "sample_rate_hz must be at least 1"),
        ({"num_mels": 200}, "fewer bands or a larger n_fft"),
    ],
)
def test_bad_settings(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LogMelSpec(**changes)


@pytest.mark.parametrize("spec", SPECS)
def test_settings_survive_json(spec: LogMelSpec) -> None:
    assert LogMelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_settings_from_strange_json() -> None:
    with pytest.raises(ValueError, match="n_mels"):
        LogMelSpec.from_dict(LogMelSpec().to_dict() | {"n_mels": 80})
    with pytest.raises(ValueError, match="has the settings"):
        LogMelSpec.from_dict({"n_fft": 400})


@pytest.mark.parametrize("spec", SPECS)
def test_filters(spec: LogMelSpec) -> None:
    filters = mel_filterbank(spec)
    assert filters.shape == (spec.num_mels, spec.n_fft // 2 + 1)
    assert (filters >= 0).all()
    assert (filters.amax(1) > 0).all()
    peaks = filters.argmax(1)
    assert (peaks[1:] >= peaks[:-1]).all()
    outside = torch.arange(spec.n_fft // 2 + 1) * spec.sample_rate_hz / spec.n_fft <= spec.fmin_hz
    assert (filters[:, outside] == 0).all()


@pytest.mark.parametrize("num_samples", [201, 400, 1599, 1600, 1601, 16_000])
def test_num_frames(num_samples: int) -> None:
    log_mel = LogMel(LogMelSpec())(noise(num_samples, 2))
    assert log_mel.shape == (2, 80, 1 + num_samples // 160)
    assert log_mel.shape[2] == LogMelSpec().num_frames(num_samples)


@pytest.mark.parametrize("num_samples", [0, 1, 200])
def test_too_short_for_reflection(num_samples: int) -> None:
    front_end = LogMel(LogMelSpec())
    with pytest.raises(ValueError, match=f"{num_samples} samples is too short"):
        front_end(torch.zeros(1, num_samples))
    with pytest.raises(ValueError, match="too short"):
        list(front_end.in_blocks([torch.zeros(1, num_samples)]))


def test_silence_has_its_value() -> None:
    spec = LogMelSpec()
    assert spec.silence == pytest.approx(math.log(EPSILON)) == pytest.approx(-15.942385)
    log_mel = LogMel(spec)(torch.zeros(1, 1600))
    assert torch.allclose(log_mel, torch.full_like(log_mel, spec.silence))


def test_tone_is_in_its_band() -> None:
    spec = LogMelSpec()
    wave = 0.5 * torch.sin(2 * math.pi * 1000 * torch.arange(16_000) / 16_000)
    log_mel = LogMel(spec)(wave[None])[0]
    loudest = log_mel.mean(1).argmax()
    bins_hz = torch.arange(201) * 40.0
    covered_hz = bins_hz[mel_filterbank(spec)[loudest] > 0]
    assert covered_hz.min() <= 1000 <= covered_hz.max()


@pytest.mark.parametrize("block_frames", [1, 7, 100, 101, 1000])
def test_blocks_equal_whole(block_frames: int) -> None:
    front_end = LogMel(LogMelSpec())
    wave = noise(16_000 + 77, 2)
    blocks = list(front_end.in_blocks([wave], block_frames))
    assert all(block.shape[2] == block_frames for block in blocks[:-1])
    whole = front_end(wave)
    assert torch.cat(blocks, dim=2).shape == whole.shape
    expected, bound = log_mel_with_bound(wave.numpy(), front_end.spec)
    for found in (torch.cat(blocks, dim=2), whole):
        assert (np.abs(found.numpy() - expected) < bound).all()


@pytest.mark.parametrize("num_samples", [201, 1600, 16_077, 160 * 100 - 1, 160 * 100, 160 * 200 + 200])
@pytest.mark.parametrize("piece", [1, 77, 160, 5000])
def test_how_a_waveform_is_cut_changes_nothing(num_samples: int, piece: int) -> None:
    front_end, wave = LogMel(LogMelSpec()), noise(num_samples)
    whole, pieces = (list(front_end.in_blocks(wave.split(size, dim=1), 100)) for size in (num_samples, piece))
    assert len(whole) == len(pieces) == -(-front_end.spec.num_frames(num_samples) // 100)
    assert all(torch.equal(a, b) for a, b in zip(whole, pieces, strict=True))


def test_each_frame_is_the_same_in_any_batch() -> None:
    front_end, waves = LogMel(LogMelSpec()), noise(8000, 3)
    alone = torch.cat([front_end(wave[None]) for wave in waves])
    expected, bound = log_mel_with_bound(waves.numpy(), front_end.spec)
    for found in (front_end(waves), alone):
        assert (np.abs(found.numpy() - expected) < bound).all()


def test_float32_for_any_input_and_under_autocast() -> None:
    front_end = LogMel(LogMelSpec())
    wave = noise(8000)
    expected = front_end(wave)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(front_end(wave), expected)
    assert torch.equal(front_end(wave.double()), expected)
    assert front_end(wave.bfloat16()).dtype == torch.float32


def test_no_state_in_checkpoints() -> None:
    assert LogMel(LogMelSpec()).state_dict() == {}
