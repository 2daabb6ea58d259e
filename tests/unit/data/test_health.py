"""What is damaged is found where it is read, named with its remedy, and made again by `prepare`, to the bit."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melmask.cli.main import main
from melmask.data import checks, shard_files, shards
from melmask.data.checks import Damaged, sealed
from melmask.data.clip_table import COLUMNS
from melmask.data.manifest import STORE_MARK
from melmask.data.prepare import prepare
from melmask.data.store import CLIPS, DESCRIPTION, EARLIER_CLIPS, REJECTED, Store
from melmask.files import checksum as real_checksum

NOT_PARTS = {".in-use"}


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """A manifest of six recordings in three shards, one of which is no sound."""
    rng, rows = np.random.default_rng(0), []
    for number in range(5):
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * rng.standard_normal(4000 + 400 * number), 16_000)
        rows.append(f"{number}.wav,{'ab'[number % 2]}\n")
    (tmp_path / "text.wav").write_text("no sound")
    soundfile.write(tmp_path / "dead.wav", np.stack([0.1 * rng.standard_normal(4000), np.zeros(4000)], axis=1), 16_000)
    (tmp_path / "set.csv").write_text("path,label\n" + "".join(rows) + "text.wav,a\ndead.wav,b\n")
    return tmp_path / "set.csv"


@pytest.fixture
def store(sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr("melmask.data.prepare.MAX_SHARD_FILES", 2)
    monkeypatch.setattr("melmask.data.prepare.MEAN_SHARD_FILES", 2**32)  # whatever the paths are
    return prepare([sounds], tmp_path / "store", num_workers=0)


def parts(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in NOT_PARTS]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def read_all(folder: Path) -> None:
    store = Store.open(folder)
    assert len([store.log_mel(row) for row in range(len(store))]) == 6 and len(store.notes) == 1
    store.contents()


def flipped(path: Path, offset: int = -1, bit: int = 6) -> None:
    """Flip a bit: by default the uppermost of the exponent of the last float16."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << bit
    path.write_bytes(bytes(content))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def shard(folder: Path, extension: str = ".npy") -> Path:
    return sorted((folder / "shards").glob(f"*{extension}"))[1]


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a bit of a shard": lambda store: flipped(shard(store)),
    "a bit of a shard's header": lambda store: flipped(shard(store), 1),
    "a shard cut off": lambda store: cut(shard(store)),
    "a shard of 0 bytes": lambda store: shard(store).write_bytes(b""),
    "a shard missing": lambda store: shard(store).unlink(),
    "a description edited": lambda store: edited(shard(store, ".json"), '"start_frame": 0', '"start_frame": 1'),
    "a description cut off": lambda store: cut(shard(store, ".json")),
    "a description missing": lambda store: shard(store, ".json").unlink(),
    "a bit of the clips": lambda store: flipped(store / CLIPS, 700),
    "the clips cut off": lambda store: cut(store / CLIPS),
    "the clips missing": lambda store: (store / CLIPS).unlink(),
    "rejections edited": lambda store: edited(store / REJECTED, "text.wav", "test.wav"),
    "rejections missing": lambda store: (store / REJECTED).unlink(),
    "notes cut off": lambda store: cut(store / "notes.csv"),
    "the mean": lambda store: edited(store / DESCRIPTION, '"mean": -', '"mean": -9'),
    "no frames": lambda store: edited(store / DESCRIPTION, '"num_frames": ', '"num_frames": 0, "was": '),
    "store.json cut off": lambda store: cut(store / DESCRIPTION),
    "store.json of 0 bytes": lambda store: (store / DESCRIPTION).write_bytes(b""),
}


def test_every_kind_of_damage_is_named_and_made_again_and_nothing_else(store, sounds, monkeypatch):
    before, made = parts(store.folder), []
    make = shards.make_shard
    monkeypatch.setattr(shards, "make_shard", lambda job, one, **more: made.append(one.key) or make(job, one, **more))
    for name, damage in DAMAGES.items():
        damage(store.folder)
        damaged = {path for path, content in before.items() if parts(store.folder).get(path) != content}
        assert len(damaged) == 1, name
        [path] = damaged
        with pytest.raises(Damaged) as caught:
            read_all(store.folder)
        assert str(store.folder / path) in str(caught.value) and "prepare the same sources" in str(caught.value), name
        with pytest.warns(UserWarning, match=rf"made again in .*store: {Path(path).name}: "):
            prepare([sounds], store.folder, num_workers=0)
        assert parts(store.folder) == before, name
        assert len(made) == path.startswith("shards"), name
        made.clear()
        read_all(store.folder)
    (store.folder / STORE_MARK).unlink()
    prepare([sounds], store.folder, num_workers=0)
    assert not made


def test_what_was_compared_is_not_read_again_unless_it_changed(store, monkeypatch):
    read = []
    monkeypatch.setattr(checks, "checksum", lambda path: read.append(path.name) or real_checksum(path))
    monkeypatch.setattr(checks, "SETTLED_S", 0.0)
    num_shards = len(store.info["checksums"]["shards"])
    assert num_shards >= 3
    for expected in (num_shards, 0):
        read_all(store.folder)
        assert len(read) == expected
        read.clear()
    Store.open(store.folder, "full")
    assert len(read) == num_shards
    one = shard(store.folder)
    content, status = one.read_bytes(), one.stat()
    flipped(one)
    os.utime(one, ns=(status.st_atime_ns, status.st_mtime_ns))  # as before, but not its ctime
    with pytest.raises(Damaged, match=f"{one.name} is damaged: its checksum is another; prepare"):
        read_all(store.folder)
    with pytest.raises(Damaged):
        Store.open(store.folder, "full")
    assert len(Store.open(store.folder, "none").log_mel(0)) > 0
    one.write_bytes(content)
    read_all(store.folder)


def test_a_store_of_an_earlier_version_opens_and_gets_checksums(store, sounds, tmp_path):
    folder, before = store.folder, parts(store.folder)
    clips, rejected = as_earlier(store)
    old = Store.open(folder)
    assert old.clips == clips and old.rejected == rejected and not old.has_checksums
    assert np.array_equal(old.log_mel(3), store.log_mel(3)) and old.contents() == store.contents()
    with pytest.warns(UserWarning, match=r"earlier version get checksums: 4"):
        prepare([sounds], folder, num_workers=0)
    assert parts(folder) == before
    as_earlier(store)
    flipped(shard(folder), -2, 0)  # the smallest bit of a value
    said: list[str] = []
    prepare([sounds], folder, num_workers=0, say=said.append)
    assert len(said) == 2 and "made again" in said[0] and "the sum of its values is" in said[0]
    assert parts(folder) == before
    as_earlier(store)
    edited(folder / EARLIER_CLIPS, "1.wav", "1.wav,")
    with pytest.raises(Damaged, match=r"clips\.csv is damaged: row 2 has 9 cells, not 8"):
        Store.open(folder)
    lines = (folder / EARLIER_CLIPS).read_text().splitlines(keepends=True)
    (folder / EARLIER_CLIPS).write_text("".join(lines[:2]))
    with pytest.raises(Damaged, match=r"clips\.csv is damaged: it has 1 clips, not 6"):
        Store.open(folder)


def as_earlier(store: Store) -> tuple[object, object]:
    """Write a store as the version before wrote it: without checksums, its clips in a CSV."""
    folder = store.folder
    for path in (folder / "shards").glob("*.json"):
        description = json.loads(path.read_text())
        path.write_text(json.dumps({key: description[key] for key in ("sum", "sum_of_squares", "entries")}))
    with (folder / EARLIER_CLIPS).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for item in store.clips:
            clip = (item.clip.path, item.clip.label, item.clip.fold, item.clip.group, item.clip.source)
            writer.writerow((*clip, item.shard, item.start_frame, item.num_frames))
    (folder / CLIPS).unlink()
    info = {key: value for key, value in store.info.items() if key != "checksums"} | {"format_version": 1}
    (folder / DESCRIPTION).write_text(json.dumps(info, indent=1) + "\n")
    return store.clips, store.rejected


def test_full_finds_recordings_that_changed_within_their_size_and_time(store, sounds):
    status = (path := sounds.parent / "2.wav").stat()
    flipped(path, 1000, 3)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert prepare([sounds], store.folder, num_workers=0).fingerprint == store.fingerprint
    with pytest.warns(UserWarning, match=r"changed within their size and time are read again: 1, such as .*2\.wav"):
        changed = prepare([sounds], store.folder, num_workers=0, verify="full")
    assert changed.fingerprint != store.fingerprint
    assert prepare([sounds], store.folder, num_workers=0, verify="full").fingerprint == changed.fingerprint


def test_records_of_stores_that_are_gone_are_removed(store, sounds, tmp_path, monkeypatch):
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(checks, "SETTLED_S", 0.0)
    read_all(store.folder)
    [record] = (tmp_path / "cache/verified").iterdir()
    shutil.rmtree(store.folder)
    prepare([sounds], tmp_path / "other", num_workers=0)
    assert not record.exists() and len(list((tmp_path / "cache/verified").iterdir())) == 1


def test_a_seal_covers_all_before_it(tmp_path):
    path = tmp_path / "a.json"
    for indent in (None, 1):
        content = sealed({"mean": -10.5, "checksum": "f"}, indent)
        path.write_bytes(content)
        assert (
            checks.read_sealed(path, tmp_path)
            == {"mean": -10.5, "checksum": "f"}
            == {key: value for key, value in json.loads(content).items() if key != "seal"}
        )
        for offset in range(len(content)):
            flipped(path, offset, 1)
            with pytest.raises(Damaged):
                checks.read_sealed(path, tmp_path)
            path.write_bytes(content)


def test_a_shard_that_is_cut_under_a_reader_is_named(store):
    """A map would end the process by SIGBUS."""
    assert len(store.log_mel(5))
    cut(store.folder / "shards" / store.clips[5].shard)
    with pytest.raises(Damaged, match=r"is damaged: it ends before frame \d+; prepare"):
        store.log_mel(5)


def test_few_shards_are_open_at_once(sounds, tmp_path, monkeypatch):
    """Each map kept a descriptor, of which a process has 1,024."""
    monkeypatch.setattr("melmask.data.prepare.MAX_SHARD_FILES", 1)
    store = prepare([sounds], tmp_path / "store", num_workers=0)
    monkeypatch.setattr("resource.getrlimit", lambda _: (16, 16))
    monkeypatch.setattr(shard_files, "MIN_OPEN", 2)
    assert len({clip.shard for clip in store.clips}) == 6 and shard_files.max_open() == 4
    values = [store.log_mel(row) for row in range(6)]
    opened = [path.resolve() for path in Path("/proc/self/fd").iterdir()]
    assert len([path for path in opened if store.folder in path.parents]) == 4
    assert all(np.array_equal(store.log_mel(row), values[row]) for row in range(6))


def test_leftovers_of_killed_processes_are_removed_though_the_store_is_current(store, sounds):
    before = parts(store.folder)
    for name in ("store.json.99.tmp", "shards/0.npy.99.tmp", "shards/0.now", "shards/0123.npy"):
        (store.folder / name).write_text("left")
    prepare([sounds], store.folder, num_workers=0)
    assert parts(store.folder) == before


def test_commands_name_damage_in_a_line_and_mend_it(store, sounds, tmp_path, capsys):
    flipped(shard(store.folder))
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", str(store.folder), "--out", str(tmp_path / "run"), "--verify", "full"])
    assert ended.value.code == 2 and not (tmp_path / "run").exists()
    assert f"{shard(store.folder).name} is damaged: its checksum is another; prepare" in capsys.readouterr().err
    options = ["--out", str(store.folder), "--verify", "full", "--max-memory", "2", "--workers", "0"]
    with pytest.raises(SystemExit) as ended:
        main(["prepare", str(sounds), *options])
    assert ended.value.code == 3  # text.wav is no sound
    assert f"made again in {store.folder}: {shard(store.folder).name}: its checksum" in capsys.readouterr().out
