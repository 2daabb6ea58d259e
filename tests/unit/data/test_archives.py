"""Input as owners of AudioSet have it: tars of WebDataset, HDF5 files, log-mels in .npy files; in place, resumable."""

import csv
import io
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile

from melmask.audio import AudioError, read_audio
from melmask.audio.hdf5 import RATE_NOTE
from melmask.data import shards
from melmask.data.log_mel_files import NOT_LOG_MELS, log_mel_blocks
from melmask.data.manifest import list_sources
from melmask.data.prepare import prepare
from melmask.encoders.fixed_length import waveform
from melmask.logmel import LogMelSpec

RATE_HZ = 16_000


def sound(seed: int, seconds: float = 0.5, rate_hz: int = RATE_HZ) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(int(seconds * rate_hz))).astype(np.float32)


def encoded(seed: int, container: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sound(seed), RATE_HZ, format=container)
    return file.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def webdataset(tmp_path: Path) -> Path:
    """A tar of three samples, one without a class, one beyond repair, and one file that belongs to none."""
    return write_tar(
        tmp_path / "shard-000.tar",
        {
            "./Ya.flac": encoded(0, "FLAC"),
            "./Ya.cls": b"dog\n",
            "./Ya.json": b"{}",
            "./sub/Yb.mp3": encoded(1, "MP3"),
            "./sub/Yb.cls": b"7",
            "./Yc.wav": encoded(2, "WAV"),
            "./Yd.ogg": b"no audio",
            "./README": b"a data set",
        },
    )


def test_a_tar_is_read_as_its_files_are(webdataset: Path, tmp_path: Path) -> None:
    store = prepare([webdataset], tmp_path / "store", num_workers=0)
    assert [(stored.clip.path.relative_to(webdataset).as_posix(), stored.clip.label) for stored in store.clips] == [
        ("Ya.flac", "dog"),
        ("sub/Yb.mp3", "7"),
        ("Yc.wav", None),
    ]
    assert {(rejected.path.name, rejected.reason) for rejected in store.rejected} == {
        ("Yd.ogg", "not audio"),
        ("README", "not an audio file extension"),
    }
    (tmp_path / "files").mkdir()
    with tarfile.open(webdataset) as tar:
        for name in ("./Ya.flac", "./sub/Yb.mp3", "./Yc.wav"):
            (tmp_path / "files" / Path(name).name).write_bytes(tar.extractfile(name).read())
    files = prepare([tmp_path / "files"], tmp_path / "of-files", num_workers=0)
    by_name = {stored.clip.path.name: row for row, stored in enumerate(files.clips)}
    for row, stored in enumerate(store.clips):
        assert np.array_equal(store.log_mel(row), files.log_mel(by_name[stored.clip.path.name]))
        assert len(waveform(store, row, RATE_HZ)) == pytest.approx(0.5 * RATE_HZ, abs=2000)
    both = prepare([webdataset, tmp_path / "files"], tmp_path / "both", num_workers=0)
    assert len(set(both.recordings().tolist())) == 3  # found to be copies


def test_archives_lie_in_folders_and_manifests_and_are_not_read_twice(
    webdataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    decode = shards.decode
    monkeypatch.setattr(shards, "decode", lambda path, *args: decoded.append(path.name) or decode(path, *args))
    (tmp_path / "some.csv").write_text("path,label\nshard-000.tar/Yc.wav,cat\nshard-000.tar/Ynone.wav,cat\n")
    soundfile.write(tmp_path / "plain.wav", sound(5), RATE_HZ)
    store = prepare([tmp_path, tmp_path / "some.csv"], tmp_path / "store", num_workers=1)
    assert [stored.clip.path.name for stored in store.clips] == ["plain.wav", "Ya.flac", "Yb.mp3", "Yc.wav", "Yc.wav"]
    assert ("Ynone.wav", "missing file") in {(rejected.path.name, rejected.reason) for rejected in store.rejected}
    again = prepare([tmp_path, tmp_path / "some.csv"], tmp_path / "store", num_workers=0)
    assert decoded == [] and again.info == store.info


def test_an_archive_beyond_repair_is_rejected_by_name(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "plain.wav", sound(5), RATE_HZ)
    (tmp_path / "noise.tar").write_bytes(b"no archive" * 100)
    (tmp_path / "noise.h5").write_bytes(b"no archive" * 100)
    clips, rejected = list_sources([tmp_path])
    assert [clip.path.name for clip in clips] == ["plain.wav"]
    assert {(r.path.name, r.reason) for r in rejected} == {
        (name, "truncated or damaged") for name in ("noise.tar", "noise.h5")
    }


def test_hdf5_with_a_data_set_a_clip(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "10.h5", "w") as file:
        file["Ya.wav"] = sound(0, rate_hz=32_000)
        file["Yb.wav"] = (sound(1, rate_hz=32_000) * 2**15).astype(np.int16)
        stereo = file.create_dataset("Yc.wav", data=np.stack([sound(2), sound(3)]))
        stereo.attrs["sample_rate"] = RATE_HZ
        file["targets"] = np.arange(3)
    soundfile.write(tmp_path / "a.wav", sound(0, rate_hz=32_000), 32_000, subtype="FLOAT")
    store = prepare([tmp_path / "10.h5"], tmp_path / "store", num_workers=1)
    assert [stored.clip.path.name for stored in store.clips] == ["Ya.wav", "Yb.wav", "Yc.wav"]
    assert [(noted.path.name, noted.kind) for noted in store.notes] == [("Ya.wav", RATE_NOTE), ("Yb.wav", RATE_NOTE)]
    assert [(r.path.name, r.reason) for r in store.rejected] == [("targets", "not audio")]
    assert np.array_equal(read_audio(tmp_path / "10.h5/Ya.wav", RATE_HZ), read_audio(tmp_path / "a.wav", RATE_HZ))
    assert np.allclose(read_audio(tmp_path / "10.h5/Yc.wav", RATE_HZ), (sound(2) + sound(3)) / 2)
    assert {stored.num_frames for stored in store.clips} == {51}


def test_log_mels_of_another_preparation(tmp_path: Path) -> None:
    folder, logs = tmp_path / "sounds", tmp_path / "log_mels"
    folder.mkdir()
    logs.mkdir()
    for number in range(3):
        soundfile.write(folder / f"{number}.wav", sound(number), RATE_HZ)
    store = prepare([folder], tmp_path / "store", num_workers=0)
    forms = [lambda x: x.T[None].copy(), lambda x: x.copy(), lambda x: np.asfortranarray(x)]
    for row, form in enumerate(forms):
        np.save(logs / f"{row}.npy", form(store.log_mel(row).astype(np.float32)))
    again = prepare([logs], tmp_path / "again", num_workers=1)
    assert (again.mean, again.std) == (store.mean, store.std)
    for row in range(3):
        assert np.array_equal(again.log_mel(row), store.log_mel(row))
    tar = write_tar(tmp_path / "logs.tar", {f"x/{path.name}": path.read_bytes() for path in sorted(logs.iterdir())})
    in_tar = prepare([tar], tmp_path / "in-tar", num_workers=0)
    assert np.array_equal(in_tar.log_mel(2), store.log_mel(2))


@pytest.mark.parametrize(
    ("array", "reason", "said"),
    [
        (lambda x: x.T[:64], NOT_LOG_MELS, r"shape \(64, 51\).*num_mels"),
        (lambda x: x.T * 10 / np.log(10), NOT_LOG_MELS, "decibels"),
        (lambda x: (x.T + 7.1) / 4.2, NOT_LOG_MELS, "normalised already"),
        (lambda x: x.T.astype(np.int16), NOT_LOG_MELS, "int16"),
        (lambda x: np.where(x.T < -8, np.nan, x.T), "contains NaN or infinite samples", "frame 0"),
        (lambda x: np.full((80, 51), -15.9), "silent", "equal"),
    ],
)
def test_log_mels_are_checked(array, reason: str, said: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "a.npy", array(np.clip(4.2 * rng.standard_normal((51, 80)) - 7.1, -15.9, 5)))
    with pytest.raises(AudioError, match=said) as caught:
        list(log_mel_blocks(tmp_path / "a.npy", LogMelSpec()))
    assert caught.value.reason == reason


def test_a_damaged_array_is_rejected(tmp_path: Path) -> None:
    np.save(tmp_path / "cut.npy", np.zeros((80, 100), np.float32))
    content = (tmp_path / "cut.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.npy").write_text("no array")
    soundfile.write(tmp_path / "plain.wav", sound(0), RATE_HZ)
    prepare([tmp_path], tmp_path / "store", num_workers=0)
    with (tmp_path / "store/rejected.csv").open(newline="") as file:
        reasons = {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}
    assert reasons == {"cut.npy": "truncated or damaged", "text.npy": NOT_LOG_MELS}
