"""Channels -> mono: dead channels, channels that cancel each other, and samples far outside -1..1."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from melmask.audio import AudioError, Note, read_audio

RATE_HZ = 16_000


def sound(seconds: float = 1.0) -> np.ndarray:
    """A tone that swells, of 0.05 root mean square, as speech has."""
    time_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return (0.1 * np.sin(2 * np.pi * 300 * time_s) * (0.2 + time_s)).astype(np.float32)


def noise(level_db: float, channels: int, seconds: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (10 ** (level_db / 20) * rng.standard_normal((int(seconds * RATE_HZ), channels))).astype(np.float32)


def read(path: Path, channels: np.ndarray, subtype: str = "FLOAT") -> tuple[np.ndarray, list[Note]]:
    notes: list[Note] = []
    soundfile.write(path, channels, RATE_HZ, subtype=subtype)
    return read_audio(path, RATE_HZ, notes.append), notes


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return abs(float(a @ b)) / float(np.linalg.norm(a) * np.linalg.norm(b))


@pytest.mark.parametrize("residue_db", [-200, -90, -70, -50])
@pytest.mark.parametrize("seconds", [1.0, 70.0])  # in one block, and in several
def test_channels_that_cancel(tmp_path: Path, residue_db: float, seconds: float) -> None:
    both = sound(seconds)[:, None] * [1, -1] + noise(residue_db, 2, seconds)
    wave, notes = read(tmp_path / "anti.wav", both.clip(-1, 1))
    assert cosine(wave, sound(seconds).clip(-1, 1)) > 0.99
    (note,) = notes
    assert note.kind == "channels cancel" and "of 2 was kept alone" in note.detail


def test_channels_that_cancel_among_others(tmp_path: Path) -> None:
    four = np.stack([sound(), -sound(), 0.01 * sound(), 0.02 * sound()], axis=1)
    wave, notes = read(tmp_path / "four.wav", four)
    assert cosine(wave, sound()) > 0.999 and wave.std() > 0.02
    assert [note.kind for note in notes] == ["channels cancel"]


@pytest.mark.parametrize("dead_db", [-400, -110])
@pytest.mark.parametrize("live", [0, 5])
def test_dead_channels_are_left_out(tmp_path: Path, live: int, dead_db: float) -> None:
    eight = noise(dead_db, 8)
    eight[:, live] = sound()
    wave, notes = read(tmp_path / "eight.wav", eight)
    assert np.array_equal(wave, eight[:, live])
    (note,) = notes
    assert note.kind == "dead channels" and " of 8" in note.detail


def test_an_offset_is_no_sound(tmp_path: Path) -> None:
    three = np.stack([sound(), np.full(RATE_HZ, 0.25), 0.5 * sound()], axis=1)
    wave, notes = read(tmp_path / "offset.wav", three)
    assert np.allclose(wave, 0.75 * sound(), atol=1e-7)
    assert "channel 2 of 3" in notes[0].detail


@pytest.mark.parametrize("channels", [2, 3, 8, 32])
def test_ordinary_channels_are_averaged_and_nothing_is_said(tmp_path: Path, channels: int) -> None:
    rng = np.random.default_rng(1)
    independent = (0.1 * rng.standard_normal((RATE_HZ, channels))).astype(np.float32)
    shared = sound()[:, None] + 0.1 * independent
    quiet = sound()[:, None] * 10.0 ** -(2 * np.arange(channels) / channels)
    for mixed in (independent, shared, quiet):
        wave, notes = read(tmp_path / "mixed.wav", mixed)
        assert np.allclose(wave, mixed.astype(np.float32).mean(axis=1), atol=1e-6)
        assert notes == []


def test_quiet_channels_beside_a_large_offset_are_averaged(tmp_path: Path) -> None:
    quiet = 0.5 + 1e-4 * np.random.default_rng(0).standard_normal((RATE_HZ, 2))
    wave, notes = read(tmp_path / "offset.wav", quiet)
    assert np.allclose(wave, quiet.mean(axis=1), atol=1e-6) and notes == []


def test_a_tone_at_a_quarter_of_the_rate_is_no_dead_channel(tmp_path: Path) -> None:
    tone = np.sin(np.pi / 2 * np.arange(RATE_HZ)) / 4
    wave, notes = read(tmp_path / "quarter.wav", np.stack([tone, sound()], axis=1))
    assert np.allclose(wave, (tone + sound()) / 2, atol=1e-6) and notes == []


def test_all_channels_silent(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="silent"):
        read(tmp_path / "still.wav", np.zeros((RATE_HZ, 2)))


@pytest.mark.parametrize(
    ("scale", "said"),
    [(2.0**15, "divide them by 32,768"), (2.0**31, "divide them by 2,147,483,648"), (1e12, "Scale it to a full scale")],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_far_outside_full_scale(tmp_path: Path, scale: float, said: str, channels: int) -> None:
    with pytest.raises(AudioError, match="samples far outside -1 to 1") as caught:
        read(tmp_path / "loud.wav", np.repeat(scale * sound()[:, None], channels, axis=1))
    assert said in caught.value.detail


def test_overdriven_floats_are_read(tmp_path: Path) -> None:
    wave, notes = read(tmp_path / "over.wav", 40 * sound())
    assert np.array_equal(wave, 40 * sound()) and wave.max() > 4 and notes == []
