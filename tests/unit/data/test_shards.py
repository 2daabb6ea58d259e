"""Keys of shards change with SHARD_VERSION alone, so stores are made again only if they must be; failures may pass."""

import io
import os
import sys
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pytest
import soundfile
import torch

from melmask.audio import AudioError, no_access, sha256_of
from melmask.audio import decode as really_decode
from melmask.audio.places import _opened_hdf5
from melmask.data import shards
from melmask.data.manifest import Clip, Rejected
from melmask.data.prepare import _plan_shards, digest, prepare
from melmask.data.shards import Job, Recording
from melmask.logmel import LogMelSpec
from melmask.plan.trial import peak_memory, reset_peak_memory


def test_shards_are_divided_as_by_earlier_versions_and_named_by_this_one():
    recordings = [Recording(Path(f"/data/{i:03}.wav"), 1000 + i, 5 * 10**18 + i) for i in range(600)]
    planned = _plan_shards(recordings, Job(Path("shards"), LogMelSpec()))
    assert [(shard.key, len(shard.recordings)) for shard in planned] == [
        ("07e6b854944d25b75d82", 176),
        ("0ca948d7ab843a5f6fae", 15),
        ("fbd02509528f53a8f55e", 248),
        ("c819d9e3975b7b67442b", 85),
        ("cdcfb11fcb54ee95218e", 76),
    ]
    assert [recording for shard in planned for recording in shard.recordings] == recordings


def test_listings_are_hashed_as_by_earlier_versions():
    clip = Clip(Path("/data/a.wav"), "dog", "1", None, "set")
    rejected = Rejected(Path("/data/b.wav"), "missing file", "gone", "set")
    expected = "6733dce9cd9692334121a282ae3b015b15214d6fc74b9c6d1e44a9f7cef4ce0b"
    assert digest([repr(clip), repr(rejected)]) == expected


def test_the_files_of_a_shard_keep_their_names():
    job = Job(Path("shards"), LogMelSpec())
    [shard] = _plan_shards([Recording(Path("/data/a.wav"), 1, 1)], job)
    files = (job.log_mels(shard), job.description(shard), job.marker(shard))
    assert [path.name for path in files] == [f"{shard.key}{extension}" for extension in (".npy", ".json", ".now")]


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """Six short recordings."""
    folder, rng = tmp_path / "sounds", np.random.default_rng(0)
    folder.mkdir()
    for number in range(6):
        soundfile.write(folder / f"{number}.wav", 0.1 * rng.standard_normal(8000), 16_000)
    return folder


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception, times: int) -> list[str]:
    """Lets the decoding of 2.wav fail some times, in shards of two files; returns the names as they are decoded."""
    decoded: list[str] = []

    def decode(path: Path, *args: Any) -> Any:
        decoded.append(path.name)
        if path.name == "2.wav" and decoded.count("2.wav") <= times:
            raise error
        return really_decode(path, *args)

    monkeypatch.setattr(shards, "decode", decode)
    monkeypatch.setattr("melmask.data.prepare.MAX_SHARD_FILES", 2)
    monkeypatch.setattr("melmask.data.prepare.MEAN_SHARD_FILES", 2**32)  # whatever the paths are
    return decoded


TRANSIENT = [
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
    AudioError("unreadable", Path("2.wav"), "Stale file handle. Check its disk.", is_transient=True),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=["memory", "torch", "disk"])
def test_what_may_pass_is_retried_when_the_others_are_done(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    expected = prepare([sounds], tmp_path / "expected", num_workers=0)
    decoded = failing(monkeypatch, error, times=1)
    store = prepare([sounds], tmp_path / "store", num_workers=0)
    assert len(store) == 6 and not store.rejected
    assert decoded == [f"{number}.wav" for number in (0, 1, 2, 4, 5, 2, 3)]
    assert store.fingerprint == expected.fingerprint


@pytest.mark.parametrize("error", TRANSIENT, ids=["memory", "torch", "disk"])
def test_what_did_not_pass_is_retried_by_the_next_call(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    decoded = failing(monkeypatch, error, times=2)
    store = prepare([sounds], tmp_path / "store", num_workers=0)
    assert [rejected.path.name for rejected in store.rejected] == ["2.wav"]
    assert "convert" not in store.rejected[0].detail.lower()
    decoded.clear()
    failing(monkeypatch, error, times=0)
    store = prepare([sounds], tmp_path / "store", num_workers=0)
    assert len(store) == 6 and not store.rejected
    fresh = prepare([sounds], tmp_path / "fresh", num_workers=0)
    assert {path.name for path in (tmp_path / "store/shards").iterdir()} == {
        path.name for path in (tmp_path / "fresh/shards").iterdir()
    }
    assert (store.info, len(store.clips)) == (fresh.info, len(fresh.clips))


def test_a_file_is_read_once_its_package_is_there(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sounds / "6.oga").write_bytes(ogg_flac())
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "av", None)
        store = prepare([sounds], tmp_path / "store", num_workers=0)
    assert [(rejected.path.name, rejected.reason) for rejected in store.rejected] == [("6.oga", "unsupported codec")]
    store = prepare([sounds], tmp_path / "store", num_workers=0)
    assert len(store) == 7 and not store.rejected


def ogg_flac() -> bytes:
    """Half a second of noise as FLAC in Ogg."""
    file, noise = io.BytesIO(), np.random.default_rng(0).integers(-9000, 9000, (1, 8000), dtype=np.int16)
    with av.open(file, "w", format="ogg") as container:
        stream = container.add_stream("flac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(noise, format="s16", layout="mono")
        frame.sample_rate, frame.pts = 16_000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


KILLER = """
import os
really_open = os.open
def open(path, *args, **kwargs):
    if os.fsdecode(path).endswith("2.wav"):
        tries = os.path.join({folder!r}, "tries")
        with really_fopen(tries, "a") as file:
            file.write("x")
        if os.path.getsize(tries) <= {times}:
            os.kill(os.getpid(), 9)
    return really_open(path, *args, **kwargs)
really_fopen = __builtins__["open"] if isinstance(__builtins__, dict) else __builtins__.open
os.open = open
"""


@pytest.mark.slow
@pytest.mark.parametrize(("times", "num_lost"), [(1, 0), (2, 1)])
def test_a_killed_worker_is_no_fault_of_the_file(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int, num_lost: int
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(KILLER.format(folder=str(tmp_path), times=times))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr("melmask.data.prepare.MAX_SHARD_FILES", 2)
    monkeypatch.setattr("melmask.data.prepare.MEAN_SHARD_FILES", 2**32)  # whatever the paths are
    store = prepare([sounds], tmp_path / "store", num_workers=2)
    assert [rejected.reason for rejected in store.rejected] == ["worker crash"] * num_lost
    if num_lost:
        store = prepare([sounds], tmp_path / "store", num_workers=1)
    assert len(store) == 6 and not store.rejected


def no_disk(path: Path) -> str:
    if path.name == "2.wav":
        raise no_access(path, OSError(5, "Input/output error"))
    return sha256_of(path)


def cut_off(path: Path, *args: Any) -> Any:
    if path.name == "2.wav":  # what a decoder makes of it
        raise AudioError("truncated or damaged", path, "3 of 8000 samples could be decoded.")
    return really_decode(path, *args)


def no_file(*_: object, **__: object) -> None:
    raise OSError(24, "Too many open files")


@pytest.mark.parametrize(
    ("name", "fails"),
    [
        ("2.wav", {"melmask.data.shards.sha256_of": no_disk, "melmask.data.shards.decode": cut_off}),
        ("6.oga", {"av.open": lambda *_, **__: no_permission()}),
        ("6.oga", {"av.open": no_file}),
        ("6.h5/a", {"h5py.File": no_file}),
        ("6.npy", {"numpy.fromfile": no_file}),
    ],
    ids=["EIO", "permission", "descriptors", "hdf5", "log-mels"],
)
def test_what_the_system_refused_is_no_verdict(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, fails: dict[str, Any]
) -> None:
    """A decoder takes what cannot be read for damage; the next call reads the file, though nothing of it changed."""
    (sounds / "6.oga").write_bytes(ogg_flac())
    with h5py.File(sounds / "6.h5", "w") as file:
        file["a"] = 0.1 * np.random.default_rng(0).standard_normal(8000)
    np.save(sounds / "6.npy", np.random.default_rng(0).uniform(-15, 1, (80, 51)).astype(np.float32))
    with monkeypatch.context() as patch:
        _opened_hdf5.cache_clear()
        for what, failing in fails.items():
            patch.setattr(what, failing)
        store = prepare([sounds], tmp_path / "store", num_workers=0)
    found = {str(rejected.path.relative_to(sounds)): rejected.reason for rejected in store.rejected}
    assert found.get(name, found.get("6.h5")) == "unreadable" and len(store) + len(found) == 9
    store = prepare([sounds], tmp_path / "store", num_workers=0)
    assert len(store) == 9 and not store.rejected


def no_permission() -> None:
    raise av.error.PermissionError(13, "Permission denied")


def test_nearly_silent_recordings_are_refused_with_the_cause(tmp_path: Path) -> None:
    pulse = np.zeros(8000)
    pulse[0] = 1e-9
    (tmp_path / "quiet").mkdir()
    soundfile.write(tmp_path / "quiet/a.wav", pulse, 16_000, subtype="FLOAT")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"the 1 recordings, such as .*a\.wav, are nearly silent: .* higher level"):
            prepare([tmp_path / "quiet"], tmp_path / "store", num_workers=0)


def test_memory_is_that_of_a_short_recording(tmp_path: Path) -> None:
    """Of 1 kHz, of which a block of a minute was resampled to sixteen times as much at once."""
    folders = [tmp_path / "short", tmp_path / "long"]
    for folder, minutes in zip(folders, (8, 24), strict=True):
        folder.mkdir()
        with soundfile.SoundFile(folder / "a.flac", "w", 1000, 1) as file:
            file.write(np.array([9, -9, 99], np.int16))
            for _ in range(minutes):
                file.write(np.zeros(60_000, np.int16))
    growth = []
    for folder in folders:
        before = reset_peak_memory(torch.device("cpu"))
        prepare([folder], tmp_path / f"store-{folder.name}", num_workers=0)
        growth.append((peak_memory(torch.device("cpu")) - before) / 2**20)
    assert growth[1] < growth[0] + 60
    with pytest.raises(ValueError, match=r"0\.1 GiB of memory is too little"):
        prepare(folders[:1], tmp_path / "store", max_memory_gib=0.1)
