"""Decoding: formats, rates, channels, memory, and every way in which a file can be bad."""

import errno
import os
import pickle
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from melmask.audio import AudioError, Note, decode, read_audio

RATE_HZ = 16_000


def tone(rate_hz: int, duration_s: float = 1.0, channels: int = 1) -> np.ndarray:
    """A chirp of falling level, so that a shift, a swap or a wrong scale shows; channel c has the level 1 / (c + 1)."""
    time_s = np.arange(int(rate_hz * duration_s)) / rate_hz
    wave = 0.5 * np.exp(-time_s) * np.sin(2 * np.pi * (200 + 400 * time_s) * time_s)
    return (wave[:, None] / np.arange(1, channels + 1)).astype(np.float32)


def reason_of(path: Path) -> str:
    with pytest.raises(AudioError) as caught:
        read_audio(path, RATE_HZ)
    assert str(path) in str(caught.value)
    assert caught.value.reason in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize(
    ("container", "coding", "tolerance"),
    [
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "FLOAT", 1e-6),
        ("FLAC", "PCM_16", 1e-4),
        ("AIFF", "PCM_16", 1e-4),
        ("OGG", "VORBIS", 0.03),
        ("OGG", "OPUS", 0.15),  # shifts by a part of a sample
        ("MP3", "MPEG_LAYER_III", 0.05),
    ],
)
@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_round_trip(tmp_path: Path, container: str, coding: str, tolerance: float, rate_hz: int) -> None:
    wave = tone(rate_hz)
    path = tmp_path / f"tone.{container.lower()}"
    soundfile.write(path, wave, rate_hz, format=container, subtype=coding)
    decoded = read_audio(path, RATE_HZ)
    expected = soxr.resample(wave[:, 0], rate_hz, RATE_HZ)
    assert decoded.dtype == np.float32
    assert decoded.shape == expected.shape
    assert np.abs(decoded - expected).max() < tolerance


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 44_100, 96_000])
def test_resampled_in_blocks_as_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate_hz: int) -> None:
    monkeypatch.setattr("melmask.audio.sndfile.BLOCK_VALUES", 1000)
    wave = tone(rate_hz, 0.5)
    soundfile.write(tmp_path / "tone.wav", wave, rate_hz, subtype="FLOAT")
    decoded, expected = read_audio(tmp_path / "tone.wav", RATE_HZ), soxr.resample(wave[:, 0], rate_hz, RATE_HZ)
    assert decoded.shape == expected.shape
    assert np.abs(decoded - expected).max() < 1e-6


@pytest.mark.parametrize("container", ["WAV", "FLAC", "AIFF"])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_16_bit_samples_are_the_floats_of_libsndfile(tmp_path: Path, container: str, channels: int) -> None:
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, (1000, channels), dtype=np.int16)
    samples[:2] = [[-(2**15)], [2**15 - 1]]
    path = tmp_path / f"noise.{container.lower()}"
    soundfile.write(path, samples, RATE_HZ)
    floats = soundfile.read(path, dtype="float32", always_2d=True)[0]
    assert np.array_equal(read_audio(path, RATE_HZ), floats.mean(axis=1))


def test_channels_are_averaged(tmp_path: Path) -> None:
    wave = tone(RATE_HZ, 0.2, channels=3)
    soundfile.write(tmp_path / "tone.wav", wave, RATE_HZ, subtype="FLOAT")
    assert np.abs(read_audio(tmp_path / "tone.wav", RATE_HZ) - wave.mean(axis=1)).max() < 1e-7


def test_many_channels_are_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    path, num_frames = tmp_path / "array.wav", 96_000 * 20
    with soundfile.SoundFile(path, "w", 96_000, 8, "PCM_16") as file:
        for _ in range(20):
            file.write(tone(96_000, 1.0, channels=8))
    tracemalloc.start()
    try:
        decoded = read_audio(path, RATE_HZ)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(decoded) == RATE_HZ * 20
    assert peak_bytes < 0.25 * num_frames * 8 * 4  # a quarter of the file as float32, and no more for longer files


def test_unicode_and_undecodable_names(tmp_path: Path) -> None:
    for name in ("größe ñ 音.wav", "latin-\udce9.wav"):  # the second is the byte 0xE9, no valid UTF-8
        soundfile.write(tmp_path / "plain.wav", tone(RATE_HZ, 0.1), RATE_HZ)
        (tmp_path / "plain.wav").rename(tmp_path / name)
        assert len(read_audio(tmp_path / name, RATE_HZ)) == RATE_HZ // 10


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("extension", ["flac", "wav", "aiff"])
def test_truncated(tmp_path: Path, extension: str, share: float) -> None:
    path = tmp_path / f"cut.{extension}"
    soundfile.write(path, tone(RATE_HZ, 2.0), RATE_HZ, subtype="PCM_16")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert reason_of(path) == "truncated or damaged"


def test_flac_shorter_than_declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "short.flac"
    soundfile.write(path, tone(RATE_HZ), RATE_HZ)
    content = bytearray(path.read_bytes())
    content[22:26] = (3 * RATE_HZ).to_bytes(4, "big")  # low 32 bits of the number of samples in STREAMINFO
    path.write_bytes(content)
    assert reason_of(path) == "truncated or damaged"
    content[22:26] = bytes(4)
    monkeypatch.setattr("melmask.audio.ends.MAX_FLAC_FRAME_BYTES", 4)  # no frame is found that says where it is
    path.write_bytes(content)
    assert reason_of(path) == "unknown length"


def test_wav_written_to_a_pipe_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "piped.wav"
    soundfile.write(path, tone(RATE_HZ), RATE_HZ, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff" * 4  # sizes of the RIFF and data chunks: not known
    path.write_bytes(content)
    assert len(read_audio(path, RATE_HZ)) == RATE_HZ


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinite_samples(tmp_path: Path, value: float) -> None:
    wave = tone(RATE_HZ, channels=2)
    wave[1234, 1] = value
    soundfile.write(tmp_path / "bad.wav", wave, RATE_HZ, subtype="FLOAT")
    assert reason_of(tmp_path / "bad.wav") == "contains NaN or infinite samples"


def test_nan_in_a_later_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("melmask.audio.sndfile.BLOCK_VALUES", 1000)
    wave = tone(RATE_HZ)
    wave[-5] = np.nan
    soundfile.write(tmp_path / "bad.wav", wave, RATE_HZ, subtype="FLOAT")
    assert reason_of(tmp_path / "bad.wav") == "contains NaN or infinite samples"


@pytest.mark.parametrize("level", [0.0, 0.25])
def test_constant_is_silent(tmp_path: Path, level: float) -> None:
    soundfile.write(tmp_path / "still.wav", np.full(RATE_HZ, level), 44_100)
    assert reason_of(tmp_path / "still.wav") == "silent"


def test_opposite_channels_are_one_of_them(tmp_path: Path) -> None:
    wave = tone(RATE_HZ)
    soundfile.write(tmp_path / "opposite.wav", np.hstack([wave, -wave]), RATE_HZ, subtype="FLOAT")
    assert np.array_equal(read_audio(tmp_path / "opposite.wav", RATE_HZ), wave[:, 0])


def test_one_loud_sample_is_sound(tmp_path: Path) -> None:
    wave = np.zeros(RATE_HZ)
    wave[500] = 0.5
    soundfile.write(tmp_path / "click.wav", wave, RATE_HZ)
    assert read_audio(tmp_path / "click.wav", RATE_HZ).max() == 0.5


def test_no_audio(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no audio at all\n" * 50)
    (tmp_path / "samples.raw").write_bytes(bytes(1000))  # soundfile takes this name for headerless samples
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "nothing.wav").touch()
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    soundfile.write(tmp_path / "header.wav", np.zeros(0), RATE_HZ)
    assert reason_of(tmp_path / "text.wav") == "not audio"
    assert reason_of(tmp_path / "samples.raw") == "not audio"
    assert reason_of(tmp_path / "folder.wav") == "not audio"
    assert reason_of(tmp_path / "nothing.wav") == "empty file"
    assert reason_of(tmp_path / "header.wav") == "empty file"
    assert reason_of(tmp_path / "missing.wav") == "missing file"
    assert reason_of(tmp_path / "loop.wav") == "unreadable"


def test_implausible_rate(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "slow.wav", tone(RATE_HZ, 0.1), 10)
    assert reason_of(tmp_path / "slow.wav") == "implausible sample rate"


def test_too_short_to_resample(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", np.array([0.1, -0.1]), 384_000)
    assert reason_of(tmp_path / "short.wav") == "too short"


def test_wanted_rate_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="-1 Hz"):
        read_audio(tmp_path / "any.wav", -1)


def test_error_survives_pickling() -> None:
    error = AudioError("unreadable", Path("a.wav"), "the disk does not answer", is_transient=True)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.reason, copy.path, copy.detail, str(copy)) == (error.reason, error.path, error.detail, str(error))
    assert copy.is_transient


def test_long_files_are_decoded_in_blocks_of_flat_memory(tmp_path: Path) -> None:
    peaks = []
    for minutes in (4, 16):
        with soundfile.SoundFile(tmp_path / f"{minutes}.wav", "w", 44_100, 1, "PCM_16") as file:
            for _ in range(minutes * 2):
                file.write(tone(44_100, 30.0))
        tracemalloc.start()
        try:
            num_samples = decode(tmp_path / f"{minutes}.wav", RATE_HZ, lambda blocks: sum(map(len, blocks)))
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert num_samples == minutes * 60 * RATE_HZ
    assert peaks[1] < 1.1 * peaks[0] < 40 * 2**20


def test_a_decoding_that_begins_again_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("melmask.audio.sndfile.BLOCK_VALUES", 1000)
    wave = tone(RATE_HZ)
    soundfile.write(tmp_path / "opposite.wav", np.hstack([wave, -wave]), RATE_HZ, subtype="FLOAT")
    calls = []

    def use(blocks: Iterator[np.ndarray]) -> np.ndarray:
        calls.append(0)
        return np.concatenate(list(blocks))

    notes: list[Note] = []
    assert np.array_equal(decode(tmp_path / "opposite.wav", RATE_HZ, use, notes.append), wave[:, 0])
    assert len(calls) == 2 and len(notes) == 1


def test_a_disk_that_does_not_answer_and_a_missing_permission_may_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "tone.wav", tone(RATE_HZ), RATE_HZ)

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(AudioError, match="unreadable: Input/output error") as caught:
        read_audio(tmp_path / "tone.wav", RATE_HZ)
    assert caught.value.is_transient
