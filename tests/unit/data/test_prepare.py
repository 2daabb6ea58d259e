"""From files to a store: no file is lost, none is decoded twice, whatever the folder holds, whenever it is killed."""

import csv
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from melmask.audio import decode, read_audio
from melmask.data import shards
from melmask.data.manifest import STORE_MARK
from melmask.data.prepare import LITTLE_BYTES, SHARE_OF_MP3, _num_workers, prepare
from melmask.data.shards import Job, Recording, Shard
from melmask.data.store import IN_USE, Store
from melmask.logmel import LogMel, LogMelSpec

RATE_HZ = 16_000


def sound(seed: int, duration_s: float = 0.4, rate_hz: int = RATE_HZ, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 0.1 * rng.standard_normal((int(duration_s * rate_hz), channels)).clip(-5, 5)


def write_sound(path: Path, seed: int = 0, **kwargs: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rate_hz = int(kwargs.get("rate_hz", RATE_HZ))
    soundfile.write(path, sound(seed, **kwargs), rate_hz)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven short recordings of different length."""
    for number in range(7):
        write_sound(tmp_path / f"sounds/{number}.flac", number, duration_s=0.3 + 0.1 * number)
    return tmp_path / "sounds"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """How often each file name was decoded in this process, with shards of two files."""
    count: Counter = Counter()

    def spy(path: Path, *args: Any) -> Any:
        count[path.name] += 1
        return decode(path, *args)

    monkeypatch.setattr(shards, "decode", spy)
    monkeypatch.setattr("melmask.data.prepare.MAX_SHARD_FILES", 2)
    monkeypatch.setattr("melmask.data.prepare.MEAN_SHARD_FILES", 2**32)  # whatever the paths are
    return count


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_nasty(folder: Path) -> tuple[set[str], dict[str, str]]:
    """A folder with all that can go wrong; the names of its good files, and the reasons for the bad ones."""
    good = ["plain.wav", "größe ñ 音.flac", "sub/latin-\udce9.ogg", "sub/array.wav", "sub/speech.mp3", "sub/music.opus"]
    for number, name in enumerate(good[:2]):
        write_sound(folder / name, number)
    write_sound(folder / "sub/plain.ogg", 2).rename(folder / good[2])
    write_sound(folder / good[3], 3, rate_hz=96_000, channels=8)
    write_sound(folder / good[4], 4, rate_hz=44_100)
    soundfile.write(folder / good[5], sound(5, rate_hz=48_000), 48_000, format="OGG", subtype="OPUS")
    (folder / "sub/loop").symlink_to(folder)
    (folder / "again").symlink_to(folder / "sub")

    flac = write_sound(folder / "truncated.flac", 6, duration_s=2.0).read_bytes()
    (folder / "truncated.flac").write_bytes(flac[: len(flac) // 2])
    (folder / "text.wav").write_text("this is no audio\n" * 100)
    (folder / "empty.wav").touch()
    soundfile.write(folder / "nan.wav", np.where(sound(9) > 0.3, np.nan, sound(9)), RATE_HZ, subtype="FLOAT")
    soundfile.write(folder / "huge.wav", 1e30 * sound(10), RATE_HZ, subtype="FLOAT")
    soundfile.write(folder / "silence.wav", np.zeros(RATE_HZ), RATE_HZ)
    (folder / "self.wav").symlink_to("self.wav")
    (folder / "gone.wav").symlink_to("nowhere.wav")
    (folder / "README.txt").write_text("Recorded in 2024.")
    bad = {
        "truncated.flac": "truncated or damaged",
        "text.wav": "not audio",
        "empty.wav": "empty file",
        "nan.wav": "contains NaN or infinite samples",
        "huge.wav": "contains NaN or infinite samples",
        "silence.wav": "silent",
        "self.wav": "missing file",
        "gone.wav": "missing file",
        "README.txt": "not an audio file extension",
    }
    return set(good), bad


def test_nasty_folder(tmp_path: Path) -> None:
    good, bad = write_nasty(tmp_path / "nasty")
    calls = []
    store = prepare([tmp_path / "nasty"], tmp_path / "store", num_workers=0, progress=lambda *args: calls.append(args))
    assert {str(stored.clip.path.relative_to(tmp_path / "nasty")) for stored in store.clips} == good
    rows = read_rows(tmp_path / "store/rejected.csv")
    assert {row["path"].rsplit("/", 1)[1]: row["reason"] for row in rows} == bad
    assert len(rows) == len(store.rejected) == store.info["num_rejected"] == len(bad)
    assert all(row["detail"] and row["source"] == "nasty" for row in rows)
    assert {stored.num_frames for stored in store.clips} == {41}
    assert calls[-1] == (len(good) + len(bad), len(good) + len(bad), pytest.approx(0.4 * len(good)), len(bad))
    for index in range(len(store)):
        assert np.isfinite(store.log_mel(index)).all()


def test_workers_change_nothing(tmp_path: Path) -> None:
    write_nasty(tmp_path / "nasty")
    num_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for num_workers in (0, 2):
            prepare([tmp_path / "nasty"], tmp_path / f"store{num_workers}", num_workers=num_workers)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(num_threads)
    assert content(tmp_path / "store0") == content(tmp_path / "store2")


def test_log_mels_and_their_statistics(folder: Path, tmp_path: Path, decoded: Counter) -> None:
    spec = LogMelSpec(8_000, 256, 80, 32, 50.0, 4_000.0)
    store = prepare([folder], tmp_path / "store", spec=spec, num_workers=0)
    assert store.spec == spec
    front_end = LogMel(spec)
    everything = []
    for index, stored in enumerate(store.clips):
        expected = front_end(torch.from_numpy(read_audio(stored.clip.path, 8_000))[None])[0].T.half().numpy()
        assert store.log_mel(index).dtype == np.float16
        assert store.log_mel(index).shape == (stored.num_frames, 32)
        assert np.array_equal(store.log_mel(index), expected)
        assert np.array_equal(store.log_mel(index, 5, 21), expected[5:21])
        assert np.array_equal(store.log_mel(index, 5), expected[5:])
        everything.append(expected.astype(np.float64))
    assert store.mean == pytest.approx(np.concatenate(everything).mean(), rel=1e-12)
    assert store.std == pytest.approx(np.concatenate(everything).std(), rel=1e-9)
    assert store.info["num_frames"] == sum(map(len, everything))
    assert store.info["duration_s"] == pytest.approx(sum(0.3 + 0.1 * number for number in range(7)))


def test_long_recordings_are_written_in_blocks(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = prepare([folder], tmp_path / "whole", num_workers=0)
    in_blocks = LogMel.in_blocks
    monkeypatch.setattr(LogMel, "in_blocks", lambda self, pieces: in_blocks(self, pieces, block_frames=10))
    blocks = prepare([folder], tmp_path / "blocks", num_workers=0)
    for index in range(len(whole)):
        difference = whole.log_mel(index).astype(np.float32) - blocks.log_mel(index).astype(np.float32)
        assert np.abs(difference).max() <= 2**-6  # at most one step of float16
    assert blocks.mean == pytest.approx(whole.mean, abs=1e-4)


def test_store_is_a_view_and_can_be_pickled(folder: Path, tmp_path: Path) -> None:
    store = prepare([folder], tmp_path / "store", num_workers=0)
    crop = store.log_mel(3, 2, 20)
    assert not crop.flags.writeable
    assert not crop.flags.owndata
    message = pickle.dumps(store)
    assert len(message) < 1000  # its folder, not its data
    copy = pickle.loads(message)
    assert np.array_equal(copy.log_mel(3, 2, 20), crop)
    assert (copy.clips, copy.rejected, copy.info) == (store.clips, store.rejected, store.info)
    with pytest.raises(IndexError, match="not within clip 3"):
        store.log_mel(3, 0, 1000)


def test_second_call_does_nothing(folder: Path, tmp_path: Path, decoded: Counter) -> None:
    first = prepare([folder], tmp_path / "store", num_workers=0)
    assert set(decoded.values()) == {1}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")}
    calls = []
    second = prepare([folder], tmp_path / "store", num_workers=0, progress=lambda *args: calls.append(args))
    assert set(decoded.values()) == {1}
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")} == before
    assert (second.clips, second.fingerprint) == (first.clips, first.fingerprint)
    assert calls[-1][:2] == (7, 7)


def test_changed_file_is_decoded_again(folder: Path, tmp_path: Path, decoded: Counter) -> None:
    first = prepare([folder], tmp_path / "store", num_workers=0)
    write_sound(folder / "2.flac", seed=99, duration_s=0.9)
    second = prepare([folder], tmp_path / "store", num_workers=0)
    again = {name for name, times in decoded.items() if times > 1}
    assert "2.flac" in again
    assert len(again) <= 2  # its shard
    assert second.clips[2].num_frames == 91
    assert second.fingerprint != first.fingerprint
    shards = {path.name for path in (tmp_path / "store/shards").glob("*.npy")}
    assert {stored.shard for stored in second.clips} == shards
    fresh = prepare([folder], tmp_path / "fresh", num_workers=0)
    assert content(tmp_path / "store") == content(tmp_path / "fresh")
    assert fresh.fingerprint == second.fingerprint


def test_another_spec_is_another_store(folder: Path, tmp_path: Path, decoded: Counter) -> None:
    prepare([folder], tmp_path / "store", num_workers=0)
    store = prepare([folder], tmp_path / "store", spec=LogMelSpec(num_mels=64), num_workers=0)
    assert set(decoded.values()) == {2}
    assert store.log_mel(0).shape[1] == 64


def test_new_files_change_few_shards(tmp_path: Path, decoded: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("melmask.data.prepare.MAX_SHARD_FILES", 1000)
    monkeypatch.setattr("melmask.data.prepare.MEAN_SHARD_FILES", 4)
    for number in range(10, 50):
        write_sound(tmp_path / f"sounds/{number}.wav", number, duration_s=0.2)
    prepare([tmp_path / "sounds"], tmp_path / "store", num_workers=0)
    write_sound(tmp_path / "sounds/0.wav", 0)  # comes before all others
    prepare([tmp_path / "sounds"], tmp_path / "store", num_workers=0)
    assert sum(times > 1 for times in decoded.values()) < 20


def test_fingerprint_depends_on_content_and_labels_but_not_on_paths(folder: Path, tmp_path: Path) -> None:
    def fingerprint(name: str, rows: str, **kwargs: object) -> str:
        manifest = tmp_path / name / "set.csv"
        manifest.parent.mkdir()
        if name == "moved":
            folder.rename(manifest.parent / "sounds")
        else:
            (manifest.parent / "sounds").symlink_to(folder)
        manifest.write_text(f"path,label\n{rows}")
        return prepare([manifest], tmp_path / f"store-{name}", num_workers=0, **kwargs).fingerprint

    rows = "sounds/1.flac,a\nsounds/2.flac,b\n"
    first = fingerprint("first", rows)
    assert fingerprint("same", rows) == first
    assert fingerprint("label", rows.replace(",b", ",c")) != first
    assert fingerprint("order", "sounds/2.flac,b\nsounds/1.flac,a\n") != first
    assert fingerprint("fewer", "sounds/1.flac,a\n") != first
    assert fingerprint("spec", rows, spec=LogMelSpec(num_mels=64)) != first
    assert fingerprint("moved", rows) == first


def test_listed_often_decoded_once(folder: Path, tmp_path: Path, decoded: Counter) -> None:
    (tmp_path / "link.flac").symlink_to(folder / "1.flac")
    (tmp_path / "one.csv").write_text("path,label,fold\nsounds/1.flac,a,1\nsounds/0.flac,a,2\nnone.wav,a,1\n")
    (tmp_path / "two.csv").write_text("path,label,group\nlink.flac,x,g\nsounds/../sounds/1.flac,y,h\nnone.wav,a,1\n")
    store = prepare([tmp_path / "one.csv", tmp_path / "two.csv", folder], tmp_path / "store", num_workers=0)
    assert set(decoded.values()) == {1}
    listed = [(s.clip.source, s.clip.label, s.clip.fold, s.clip.group) for s in store.clips[:4]]
    assert listed == [
        ("one", "a", "1", None),
        ("one", "a", "2", None),
        ("two", "x", None, "g"),
        ("two", "y", None, "h"),
    ]
    same = [0, 2, 3, 5]
    assert len({(store.clips[i].shard, store.clips[i].start_frame, store.clips[i].num_frames) for i in same}) == 1
    assert [(r.path.name, r.source) for r in store.rejected] == [("none.wav", "one"), ("none.wav", "two")]
    assert (len(store), store.info["num_recordings"]) == (11, 7)
    frames = sum(store.clips[4 + number].num_frames for number in range(7))
    assert store.info["num_frames"] == frames


def test_interrupted_and_resumed(folder: Path, tmp_path: Path, decoded: Counter) -> None:
    def interrupt(done: int, *_: object) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare([folder], tmp_path / "store", num_workers=0, progress=interrupt)
    assert 4 <= len(decoded) < 7
    with pytest.raises(ValueError, match="no complete store"):
        Store.open(tmp_path / "store")
    prepare([folder], tmp_path / "store", num_workers=0)
    assert set(decoded.values()) == {1}
    assert len(decoded) == 7
    prepare([folder], tmp_path / "fresh", num_workers=0)
    assert content(tmp_path / "store") == content(tmp_path / "fresh")


KILLED = """
import multiprocessing, os, signal, sys
from pathlib import Path
from melmask.data import prepare as module

def kill(*_):
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    module.MAX_SHARD_FILES, module.MEAN_SHARD_FILES = 2, 2**32
    module.prepare([Path(sys.argv[1])], Path(sys.argv[2]), num_workers=1, progress=kill)
"""


def test_killed_and_resumed(folder: Path, tmp_path: Path, decoded: Counter) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    command = [sys.executable, str(tmp_path / "killed.py"), str(folder), str(tmp_path / "store")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (worker,) = map(int, killed.stdout.split())
    deadline_s = time.monotonic() + 60
    while _is_running(worker):
        assert time.monotonic() < deadline_s, "the worker outlives its parent"
        time.sleep(0.05)
    prepare([folder], tmp_path / "store", num_workers=0)
    assert len(decoded) < 7
    prepare([folder], tmp_path / "fresh", num_workers=0)
    assert content(tmp_path / "store") == content(tmp_path / "fresh")


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_worker_crash(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that takes its process down, put into the workers through Python's sitecustomize."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(
        "import os\n"
        "really_open = os.open\n"
        "def open(path, *args, **kwargs):\n"
        "    if os.fsdecode(path).endswith('3.flac'):\n"
        "        os.kill(os.getpid(), 11)\n"
        "    return really_open(path, *args, **kwargs)\n"
        "os.open = open\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    store = prepare([folder], tmp_path / "store", num_workers=1)
    assert [stored.clip.path.name for stored in store.clips] == [f"{number}.flac" for number in (0, 1, 2, 4, 5, 6)]
    assert [(r.path.name, r.reason) for r in store.rejected] == [("3.flac", "worker crash")]


def test_workers_that_cannot_start(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text("import os\nos._exit(3)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    with pytest.raises(RuntimeError, match=r"die before they read a file: see the messages above, .* by --workers 0"):
        prepare([folder], tmp_path / "store", num_workers=1)


SCRIPT = """
import sys, melmask
print("started", flush=True)
store = melmask.prepare(sys.argv[1], sys.argv[2], num_workers=2)
scores = melmask.evaluate("logmel-stats", sys.argv[3], probes=["ridge"], baselines=False, num_workers=2)
print(len(store), scores[0].task, __file__ == sys.argv[0], __spec__, flush=True)
"""


def test_a_script_needs_no_guard(folder: Path, tmp_path: Path) -> None:
    """The processes neither run the script again nor wait for what it has locked."""
    lines = [f"{folder}/{number}.flac,{'ab'[number % 2]},{'test' if number > 3 else 'train'}" for number in range(7)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,fold", *lines]))
    (tmp_path / "script.py").write_text(SCRIPT)
    arguments = [str(tmp_path / name) for name in ("script.py", "sounds", "store", "labels.csv")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "MELMASK_CACHE": str(tmp_path / "cache")}
    told = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=240)
    assert (told.returncode, told.stdout) == (0, "started\n7 labels True None\n"), told.stderr


def test_unexpected_decoder_error_rejects_a_file(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, *args: Any) -> Any:
        if path.name == "3.flac":
            raise RuntimeError("internal error 42")
        return decode(path, *args)

    monkeypatch.setattr(shards, "decode", fail)
    store = prepare([folder], tmp_path / "store", num_workers=0)
    assert len(store) == 6
    assert [(r.reason, "internal error 42" in r.detail) for r in store.rejected] == [("unreadable", True)]


def test_full_disk_does_not_reject_a_file(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards.ShardWriter, "append", fail)
    with pytest.raises(OSError, match="No space left"):
        prepare([folder], tmp_path / "store", num_workers=0)
    assert not list((tmp_path / "store/shards").glob("*.tmp"))


def test_nothing_usable(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).touch()
    (tmp_path / "set.csv").write_text("path\na.wav\nb.wav\nnone.wav\n")
    with pytest.raises(ValueError, match=r"none of 3 files is usable: empty file \(2\), missing file \(1\)"):
        prepare([tmp_path / "set.csv"], tmp_path / "store", num_workers=0)
    assert len(read_rows(tmp_path / "store/rejected.csv")) == 3
    with pytest.raises(ValueError, match="no complete store"):
        Store.open(tmp_path / "store")


def test_folder_that_is_not_a_store_is_left_unchanged(folder: Path, tmp_path: Path) -> None:
    for out in (folder, folder / "0.flac"):
        with pytest.raises(ValueError, match="choose"):
            prepare([folder], out, num_workers=0)
    assert len(list(folder.iterdir())) == 7
    (tmp_path / "new").mkdir()
    assert len(prepare([folder], tmp_path / "new", num_workers=0)) == 7  # an empty folder is accepted


def test_store_inside_its_source(folder: Path, decoded: Counter) -> None:
    first = prepare([folder], folder / "store", num_workers=0)
    second = prepare([folder], folder / "store", num_workers=0)
    assert set(decoded.values()) == {1}
    assert second.rejected == first.rejected == []


def hold(store: Store, name: str, mode: str) -> subprocess.Popen:
    """Another process that holds one of the store's locks, until its input ends."""
    code = (
        "import sys; from pathlib import Path; from melmask import locks\n"
        f"with locks.{mode}(Path(sys.argv[1])):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(store.folder / name)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(command, env=environment, text=True, **pipes)
    assert process.stdout.readline() == "held\n"
    return process


def test_two_at_once(folder: Path, tmp_path: Path) -> None:
    """A store that is up to date needs no lock; who changes one waits for writers and refuses while it is read."""
    store = prepare([folder], tmp_path / "store", num_workers=0)
    said: list[str] = []
    with hold(store, IN_USE, "shared") as reader, store.in_use():
        assert prepare([folder], store.folder, num_workers=0).clips == store.clips
        write_sound(folder / "new.flac", 8)
        with pytest.raises(RuntimeError, match=r"store is in use, by a training or an evaluation, .*another folder"):
            prepare([folder], store.folder, num_workers=0)
        reader.kill()
    with hold(store, STORE_MARK, "exclusive") as writer:
        say = lambda text: said.append(text) or writer.kill()  # noqa: E731
        assert len(prepare([folder], store.folder, num_workers=0, say=say)) == 8
    assert said == [f"waiting for another process that writes to {store.folder}"]


def test_who_waited_for_a_writer_finds_nothing_to_do_and_does_not_mind_readers(folder: Path, tmp_path: Path) -> None:
    """Of two calls at once, the first one's store may be trained on by the time that the second has waited for it."""
    other, readers = prepare([folder / "0.flac"], tmp_path / "store", num_workers=0), []

    def make_and_read(text: str) -> None:
        writer.kill()
        writer.wait()
        readers.append(hold(prepare([folder], other.folder, num_workers=0), IN_USE, "shared"))

    with hold(other, STORE_MARK, "exclusive") as writer:
        store = prepare([folder], other.folder, num_workers=0, say=make_and_read)
    assert len(store) == 7 and readers[0].poll() is None
    with readers[0] as reader:
        reader.kill()


def test_a_store_on_a_disk_that_is_only_read(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = prepare([folder], tmp_path / "store", num_workers=0)
    really_open = os.open

    def refuse(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if str(path).startswith(str(store.folder)) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(30, "Read-only file system", str(path))
        return really_open(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: pytest.fail("it makes a folder"))
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: pytest.fail("it removes a file"))
    again = prepare([folder], store.folder, num_workers=0)
    with again.in_use():
        assert np.array_equal(again.log_mel(2), store.log_mel(2))
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)
    write_sound(folder / "new.flac", 8)
    with pytest.raises(ValueError, match=r"store cannot be written to \(Read-only file system\).*another folder"):
        prepare([folder], store.folder, num_workers=0)


def test_bad_arguments(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_workers must not be negative, got -1"):
        prepare([folder], tmp_path / "store", num_workers=-1)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(("num_samples", "num_frames"), [(2, 3), (200, 3), (201, 2), (800, 6), (2399, 15), (2400, 16)])
def test_only_empty_recordings_are_too_short(tmp_path: Path, num_samples: int, num_frames: int) -> None:
    """Half a window or less is zero-padded to a window; from there on frames are those of the waveform alone."""
    (tmp_path / "sounds").mkdir()
    wave = sound(0)[:num_samples, 0].astype(np.float32)
    soundfile.write(tmp_path / "sounds/a.wav", wave, RATE_HZ, subtype="FLOAT")
    soundfile.write(tmp_path / "sounds/empty.wav", wave[:0], RATE_HZ)
    store = prepare([tmp_path / "sounds"], tmp_path / "store", num_workers=0)
    assert [(rejected.path.name, rejected.reason) for rejected in store.rejected] == [("empty.wav", "empty file")]
    padded = np.pad(wave, (0, 400 - num_samples)) if num_samples <= 200 else wave
    expected = LogMel(LogMelSpec())(torch.from_numpy(padded)[None])[0].T.half().numpy()
    assert len(expected) == num_frames and np.array_equal(store.log_mel(0), expected)


def test_one_recording_is_known_under_all_its_names_and_forms(tmp_path: Path) -> None:
    folder = tmp_path / "sounds"
    samples = np.round(sound(0)[:, 0] * 2**15) / 2**15
    for name, subtype in (("a.wav", "PCM_16"), ("deep.wav", "PCM_24"), ("float.wav", "FLOAT"), ("a.flac", "PCM_16")):
        folder.mkdir(exist_ok=True)
        soundfile.write(folder / name, samples, RATE_HZ, subtype=subtype)
    soundfile.write(folder / "stereo.wav", np.stack([samples, samples], axis=1), RATE_HZ)
    (folder / "copy.wav").write_bytes((folder / "a.wav").read_bytes())
    (folder / "linked.wav").symlink_to("a.wav")
    write_sound(folder / "other.wav", 1)
    names = [*sorted(path.name for path in folder.iterdir()), "../sounds/a.wav"]
    (tmp_path / "all.csv").write_text("path\n" + "".join(f"sounds/{name}\n" for name in names))
    store = prepare([tmp_path / "all.csv"], tmp_path / "store", num_workers=0)
    other = names.index("other.wav")
    assert store.recordings().tolist() == [int(number == other) for number in range(len(names))]


def test_other_format_version(folder: Path, tmp_path: Path) -> None:
    prepare([folder], tmp_path / "store", num_workers=0)
    path = tmp_path / "store/store.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 0}))
    with pytest.raises(ValueError, match="has format 0"):
        Store.open(tmp_path / "store")


def test_few_recordings_are_decoded_without_processes(folder, tmp_path, decoded, monkeypatch):
    store = prepare([folder], tmp_path / "store")
    assert sum(decoded.values()) == len(store.clips) == 7
    monkeypatch.setattr("melmask.data.prepare.LITTLE_BYTES", 1000)
    assert len(prepare([folder], tmp_path / "by-processes").clips) == 7
    assert sum(decoded.values()) == 7  # all others were decoded elsewhere


@pytest.mark.parametrize(("name", "num_workers"), [("a.WAV", 0), ("a.flac", 0), ("a.mp3", 3), ("a.wav.ogg", 3)])
def test_little_is_said_of_the_time_that_a_format_takes(tmp_path, monkeypatch, name, num_workers):
    monkeypatch.setattr("melmask.data.prepare.num_cores", lambda: 3)
    size_bytes = round(LITTLE_BYTES / SHARE_OF_MP3)
    job = Job(tmp_path, LogMelSpec())
    recordings = tuple(Recording(tmp_path / name, size_bytes // 2, i) for i in range(2))
    assert _num_workers(job, [Shard("key", recordings)]) == num_workers
    one_more = Shard("key", (*recordings, Recording(tmp_path / name, 100, 2)))
    assert _num_workers(job, [one_more]) == 3


def test_what_killed_this_process_is_decoded_by_another(folder, tmp_path, decoded, monkeypatch):
    made = shards.make_shard

    def killed(job, shard, crashed=frozenset()):
        job.marker(shard).write_text("0")
        raise KeyboardInterrupt  # stands for the end of the process: nothing is cleaned up

    monkeypatch.setattr(shards, "make_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare([folder], tmp_path / "store")
    monkeypatch.setattr(shards, "make_shard", made)
    assert len(prepare([folder], tmp_path / "store").clips) == 7
    assert not decoded


def test_what_is_retried_is_retried_by_another_process(folder, tmp_path, decoded, monkeypatch):
    """It may have killed the process that decoded it, which must not be this one."""
    monkeypatch.setattr("melmask.data.prepare.LITTLE_BYTES", 0)
    monkeypatch.setattr("melmask.data.prepare.MAX_SHARD_FILES", 100)
    store = prepare([folder], tmp_path / "store")
    [description] = (store.folder / "shards").glob("*.json")
    description.with_suffix(".retry").touch()
    monkeypatch.setattr("melmask.data.prepare.LITTLE_BYTES", 2**20)
    assert len(prepare([folder], tmp_path / "store").clips) == 7
    assert not decoded
