"""Formats that libsndfile does not read: by PyAV where it is installed, else named together with the extra."""

import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from melmask.audio import AUDIO_EXTENSIONS, AudioError, read_audio

RATE_HZ = 16_000
SECONDS = 2.0


def sound() -> np.ndarray:
    time_s = np.arange(int(RATE_HZ * SECONDS)) / RATE_HZ
    return (0.3 * np.sin(2 * np.pi * 440 * time_s) * np.exp(-time_s)).astype(np.float32)


def encoded(path: Path, container: str, codec: str, rate_hz: int = RATE_HZ, **options: str) -> Path:
    """The sound, written by PyAV."""
    with av.open(path, "w", format=container, options=options) as file:
        stream = file.add_stream(codec, rate=rate_hz, layout="mono")
        wanted = stream.codec_context.codec.audio_formats[0].name
        resampler = av.AudioResampler(format=wanted, layout="mono", rate=rate_hz)
        for start in range(0, len(sound()), 1024):
            frame = av.AudioFrame.from_ndarray(sound()[None, start : start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = RATE_HZ, start
            for converted in resampler.resample(frame):
                file.mux(stream.encode(converted))
        for converted in resampler.resample(None):
            file.mux(stream.encode(converted))
        file.mux(stream.encode(None))
    return path


FILES = {
    "speech.m4a": ("ipod", "aac", RATE_HZ, "MP4"),
    "film.mp4": ("mp4", "aac", RATE_HZ, "MP4"),
    "video.webm": ("webm", "libopus", 48_000, "WebM"),
    "stream.aac": ("adts", "aac", RATE_HZ, "AAC"),
    "named.mp3": ("adts", "aac", RATE_HZ, "AAC"),
    "flac.oga": ("ogg", "flac", RATE_HZ, "FLAC in Ogg"),
    "dolby.wav": ("wav", "ac3", 48_000, "AC-3 in WAV"),
    "dolby.ac3": ("ac3", "ac3", 48_000, "AC-3"),
    "pack.wv": ("wv", "wavpack", RATE_HZ, "WavPack"),
    "apple.caf": ("caf", "alac", RATE_HZ, "codec"),
}


@pytest.mark.parametrize("name", FILES)
def test_decoded_by_pyav(tmp_path: Path, name: str) -> None:
    container, codec, rate_hz, _ = FILES[name]
    wave = read_audio(encoded(tmp_path / name, container, codec, rate_hz), RATE_HZ)
    assert abs(len(wave) / RATE_HZ - SECONDS) < 0.15
    ours, theirs = (np.abs(np.fft.rfft(w[: RATE_HZ + RATE_HZ // 2])) for w in (wave, sound()))
    assert ours.argmax() == theirs.argmax()
    assert np.sqrt((ours**2).sum()) == pytest.approx(np.sqrt((theirs**2).sum()), rel=0.1)


@pytest.mark.parametrize("name", FILES)
def test_without_pyav_the_codec_and_the_extra_are_named(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    container, codec, rate_hz, called = FILES[name]
    path = encoded(tmp_path / name, container, codec, rate_hz)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioError, match="unsupported codec") as caught:
        read_audio(path, RATE_HZ)
    assert called in caught.value.detail and "melmask[av]" in caught.value.detail


def test_wma_is_named_by_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "windows.wav"
    soundfile.write(path, sound(), RATE_HZ)
    content = bytearray(path.read_bytes())
    content[20:22] = (0x0161).to_bytes(2, "little")
    path.write_bytes(content)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioError, match="unsupported codec: WMA 2 in WAV needs the extra av"):
        read_audio(path, RATE_HZ)


def test_a_truncated_m4a_is_rejected(tmp_path: Path) -> None:
    path = encoded(tmp_path / "speech.m4a", "ipod", "aac", movflags="faststart")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(AudioError, match="truncated or damaged"):
        read_audio(path, RATE_HZ)


def test_a_film_without_sound_and_text_are_no_audio(tmp_path: Path) -> None:
    path = tmp_path / "silent.mp4"
    with av.open(path, "w") as file:
        stream = file.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        for _ in range(3):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        file.mux(stream.encode(None))
    (tmp_path / "text.m4a").write_text("no audio at all\n" * 50)
    for name in ("silent.mp4", "text.m4a"):
        with pytest.raises(AudioError, match="not audio"):
            read_audio(tmp_path / name, RATE_HZ)


def test_folders_are_searched_for_what_pyav_reads() -> None:
    assert set(".wav .mp3 .m4a .mp4 .webm .aac .wma".split()) <= AUDIO_EXTENSIONS  # noqa: SIM905
