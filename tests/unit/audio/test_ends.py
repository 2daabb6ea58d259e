"""Where the sound of a file ends, whatever its header says: nothing is left out unsaid, and no metadata is sound."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melmask.audio import AudioError, Note, read_audio
from melmask.audio.ends import LENGTH_NOTE, UNREAD_NOTE, View, corrected
from melmask.audio.formats import Content

RATE_HZ = 16_000


def samples(seconds: float = 3.0) -> np.ndarray:
    """16-bit noise that no metadata looks like."""
    return np.random.default_rng(0).integers(-9000, 9000, int(seconds * RATE_HZ), dtype=np.int16)


def written(path: Path, **kwargs: object) -> bytearray:
    soundfile.write(path, samples(), RATE_HZ, subtype="PCM_16", **kwargs)
    return bytearray(path.read_bytes())


def read(path: Path) -> tuple[np.ndarray, list[Note]]:
    notes: list[Note] = []
    return read_audio(path, RATE_HZ, notes.append), notes


def floats(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32) / 2**15


@pytest.mark.parametrize("riff_size", [None, 0, 36, 2**32 - 1])
@pytest.mark.parametrize("claimed", [0, 32_000, 95_000])
def test_wav_that_claims_less_than_it_holds(tmp_path: Path, claimed: int, riff_size: int | None) -> None:
    path = tmp_path / "less.wav"
    content = written(path)
    content[40:44] = struct.pack("<I", claimed)
    if riff_size is not None:
        content[4:8] = struct.pack("<I", riff_size)
    path.write_bytes(content)
    wave, notes = read(path)
    assert np.array_equal(wave, floats(samples()))
    (note,) = notes
    assert note.kind == LENGTH_NOTE and "96,000 bytes" in note.detail
    assert ("never finished" if claimed == 0 else f"{claimed:,} bytes") in note.detail


LIST = b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"Lavf58.45.100\0"


@pytest.mark.parametrize("after", [LIST, LIST + bytes(700), b"qqqq" + struct.pack("<I", 200) + bytes(200), bytes(4000)])
def test_metadata_and_zeros_after_the_sound_are_none(tmp_path: Path, after: bytes) -> None:
    path = tmp_path / "tagged.wav"
    path.write_bytes(written(path) + after)
    wave, notes = read(path)
    assert np.array_equal(wave, floats(samples()))
    assert notes == []


def test_sound_of_a_wrapped_size_ends_where_the_metadata_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("melmask.audio.ends.WRAP_BYTES", 64_000)  # as 2**32 of a file of more than 4 GB
    path = tmp_path / "wrapped.wav"
    content = written(path)
    content[40:44] = struct.pack("<I", 32_000)
    path.write_bytes(content + LIST)
    wave, notes = read(path)
    assert np.array_equal(wave, floats(samples()))
    assert [note.kind for note in notes] == [LENGTH_NOTE]


def test_a_view_is_the_file_with_its_patches(tmp_path: Path) -> None:
    path = tmp_path / "bytes"
    path.write_bytes(bytes(range(100)))
    with path.open("rb") as file:
        view = View(Content(file.fileno(), 100), {4: b"abcd", 98: b"yz"}, 100)
        expected = bytearray(range(100))
        expected[4:8], expected[98:] = b"abcd", b"yz"
        for size in (1, 3, 7, 100):
            view.seek(0)
            assert b"".join(iter(lambda size=size: view.read(size), b"")) == expected
        assert (view.seek(-2, 2), view.read(9), view.tell()) == (98, b"yz", 100)


def test_a_second_chunk_of_sound_is_said(tmp_path: Path) -> None:
    path = tmp_path / "two.wav"
    path.write_bytes(written(path) + b"data" + struct.pack("<I", 4000) + samples().tobytes()[:4000])
    wave, notes = read(path)
    assert np.array_equal(wave, floats(samples()))
    assert [note.kind for note in notes] == [UNREAD_NOTE] and "4,000 bytes" in notes[0].detail


def test_rf64_that_was_never_finished(tmp_path: Path) -> None:
    path = tmp_path / "long.rf64"
    content = written(path, format="RF64")
    at = content.find(b"ds64")
    content[at + 16 : at + 24] = bytes(8)
    path.write_bytes(content)
    wave, notes = read(path)
    assert np.array_equal(wave, floats(samples())) and len(notes) == 1


@pytest.mark.parametrize("claimed_s", [0.0, 1.0])
def test_aiff_caf_and_au_that_claim_less(tmp_path: Path, claimed_s: float) -> None:
    frames = int(claimed_s * RATE_HZ)
    aiff, caf, au = (written(tmp_path / f"less.{kind}") for kind in ("aiff", "caf", "au"))
    at = aiff.find(b"COMM")
    aiff[at + 10 : at + 14] = struct.pack(">I", frames)
    at = aiff.find(b"SSND")
    aiff[at + 4 : at + 8] = struct.pack(">I", 8 + 2 * frames)
    at = caf.find(b"data")
    caf[at + 4 : at + 12] = struct.pack(">q", 4 + 2 * frames)
    au[8:12] = struct.pack(">I", 2 * frames)
    for kind, content in (("aiff", aiff), ("caf", caf), ("au", au)):
        path = tmp_path / f"less.{kind}"
        path.write_bytes(content)
        wave, notes = read(path)
        assert np.array_equal(wave, floats(samples())), kind
        assert [note.kind for note in notes] == [LENGTH_NOTE]


def bit_rates(path: Path, mode: str) -> bytes:
    """An MP3 that starts loud, so that its first frame's bit rate is far from the mean; without the header of Xing."""
    time_s = np.arange(20 * 44_100) / 44_100
    noise = np.random.default_rng(0).standard_normal(len(time_s)) * (time_s < 2)
    with soundfile.SoundFile(
        path, "w", 44_100, 1, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode=mode, compression_level=0.4
    ) as file:
        file.write(0.2 * noise + 0.2 * np.sin(2 * np.pi * 440 * time_s))
    content = path.read_bytes()
    second = content.find(content[:2], 100)
    while content[second + 2] & 0x0C != content[2] & 0x0C:  # the next frame has the same sample rate
        second = content.find(content[:2], second + 1)
    return content[second:]


ID3 = b"ID3\4\0\0\0\0\0\x23TSSE\0\0\0\x0f\0\0\3Lavf58.45.100\0" + bytes(10)  # as ffmpeg writes it


@pytest.mark.parametrize("mode", ["VARIABLE", "AVERAGE", "CONSTANT"])
@pytest.mark.parametrize("tag", [b"", ID3], ids=["plain", "id3"])
def test_mp3_without_the_header_of_xing_is_decoded_to_its_end(tmp_path: Path, mode: str, tag: bytes) -> None:
    path = tmp_path / "stream.mp3"
    path.write_bytes(tag + bit_rates(path, mode))
    wave, notes = read(path)
    assert 20.0 <= len(wave) / RATE_HZ < 20.1
    assert notes == []


def test_two_mp3_files_in_one_are_read_to_the_end(tmp_path: Path) -> None:
    for number in range(2):
        soundfile.write(tmp_path / f"{number}.mp3", samples(), RATE_HZ)
    path = tmp_path / "both.mp3"
    path.write_bytes((tmp_path / "0.mp3").read_bytes() + (tmp_path / "1.mp3").read_bytes())
    wave, notes = read(path)
    assert 6.0 <= len(wave) / RATE_HZ < 6.5
    assert [note.kind for note in notes] == [LENGTH_NOTE]


@pytest.mark.parametrize(("container", "coding"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", "PCM_16")])
def test_what_follows_a_stream_is_said(tmp_path: Path, container: str, coding: str) -> None:
    path = tmp_path / "both"
    soundfile.write(path, samples(), RATE_HZ, format=container, subtype=coding)
    path.write_bytes(path.read_bytes() * 2)
    wave, notes = read(path)
    assert len(wave) == 3 * RATE_HZ
    assert [note.kind for note in notes] == [UNREAD_NOTE]


def test_flac_of_undeclared_length_is_read_to_its_last_frame(tmp_path: Path) -> None:
    path = tmp_path / "piped.flac"
    content = written(path)
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    wave, notes = read(path)
    assert np.array_equal(wave, floats(samples())) and notes == []
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError, match="truncated or damaged"):
        read(path)


@pytest.mark.parametrize("kind", ["wav", "flac", "aiff", "caf", "au", "ogg", "mp3"])
def test_an_ordinary_file_is_left_to_the_library(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"plain.{kind}"
    soundfile.write(path, samples(), RATE_HZ)
    with path.open("rb") as file:
        assert corrected(Content(file.fileno(), path.stat().st_size)) is None
    assert read(path)[1] == []
