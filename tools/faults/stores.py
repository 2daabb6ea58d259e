"""Faults of stores, and of what they are made of."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow
import soundfile
from pyarrow import feather

from faults import damage
from faults.catalogue import fault
from faults.verdict import CRASHED, LOST, SAFE, Verdict, judged, same
from faults.workshop import RECIPE, SAMPLE_RATE_HZ, Bench, content, make_recordings
from melmask.data.prepare import prepare
from melmask.data.store import Store
from melmask.train.loop import pretrain

STORES, PASSING, BOUNDS, LEFTOVERS = "artefacts: stores", "passing faults", "bounds", "leftovers"
PARTS = {"a shard": "shards/*.npy", "a shard's description": "shards/*.json", "the table": "clips.*"}
PARTS |= {"store.json": "store.json", "rejected.csv": "rejected.csv"}


def part(store: Path, pattern: str) -> Path:
    """The first file of the store that has that name."""
    return sorted(store.glob(pattern))[0]


def read(bench: Bench) -> Any:
    """All that a store holds, with everything verified."""
    store = Store.open(bench.store)
    store.contents()
    return content(store)


def judge_content(bench: Bench) -> Callable[[Any], Verdict]:
    """Whether a store holds what it held."""

    def judge(found: Any) -> Verdict:
        missing = len(bench.shop.content) - len(found)
        return Verdict(LOST, f"{missing} clips") if missing > 0 else same(found == bench.shop.content)

    return judge


def damages(words: str) -> dict[str, Callable[[Path], None]]:
    return damage.OF_BINARY if words in ("a shard", "the table") else damage.OF_TEXT


def read_and_prepared(bench: Bench, names: tuple[object, ...]) -> Verdict:
    """A damaged store is refused or read as it was; and prepared again, it is whole."""
    verdict = judged(lambda: read(bench), judge_content(bench), (*names, bench.store))
    if verdict.kind != SAFE:
        return verdict
    judge = judge_content(bench)
    mended = judged(lambda: (bench.prepare(), read(bench))[1], judge, must="work")
    return verdict if mended.kind == SAFE else Verdict(mended.kind, f"prepared again: {mended.why}")


CASES = [(f"{words} {how}", (pattern, act)) for words, pattern in PARTS.items() for how, act in damages(words).items()]


@fault(STORES, "read, then prepared again", [(words.replace(" it is", " is"), case) for words, case in CASES])
def damaged_part(bench: Bench, case: tuple[str, Callable[[Path], None]]) -> Verdict:
    pattern, act = case
    path = part(bench.store, pattern)
    act(path)
    return read_and_prepared(bench, (path.name,))


FIELDS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "mean -90 in place of -10": lambda values: values.update(mean=-90.0),
    "std 0": lambda values: values.update(std=0.0),
    "std is no number": lambda values: values.update(std="1"),
    "another fingerprint": lambda values: values.update(fingerprint="0" * 64),
    "no front end": lambda values: values.pop("spec"),
    "another hop": lambda values: values["spec"].update(hop_length=100),
    "a format of the future": lambda values: values.update(format_version=99),
    "another number of clips": lambda values: values.update(num_clips=3),
}


@fault(STORES, "store.json has another value, then read and prepared again", FIELDS.items())
def another_field(bench: Bench, case: Callable[[dict[str, Any]], Any]) -> Verdict:
    damage.edit(bench.store / "store.json", case)
    return read_and_prepared(bench, ("store.json",))


COLUMNS: dict[str, Callable[[dict[str, list[Any]]], Any]] = {
    "num_frames 0": lambda columns: columns.update(num_frames=[0] * len(columns["num_frames"])),
    "labels shuffled": lambda columns: columns.update(label=columns["label"][::-1]),
    "starts beyond the shard": lambda columns: columns.update(start_frame=[10**6] * len(columns["start_frame"])),
    "half of the clips": lambda columns: columns.update({name: rows[::2] for name, rows in columns.items()}),
    "negative frames": lambda columns: columns.update(num_frames=[-5] * len(columns["num_frames"])),
    "a shard that is not there": lambda columns: columns.update(shard=["none.npy"] * len(columns["shard"])),
    "a shard outside of the store": lambda columns: columns.update(shard=["../../x.npy"] * len(columns["shard"])),
}


@fault(STORES, "the table has other values, then read and prepared again", COLUMNS.items())
def another_table(bench: Bench, case: Callable[[dict[str, list[Any]]], Any]) -> Verdict:
    path = part(bench.store, "clips.*")
    table = feather.read_table(path, memory_map=False)
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    case(columns)
    arrays = [pyarrow.array(columns[name]).cast(_plain(table.schema.field(name).type)) for name in table.column_names]
    feather.write_feather(pyarrow.table(arrays, names=table.column_names), path, compression="uncompressed")
    return read_and_prepared(bench, (path.name,))


def _plain(kind: Any) -> Any:
    return kind.value_type if pyarrow.types.is_dictionary(kind) else kind


@fault(STORES, "a shard's description gives another start, then read and prepared again")
def another_start(bench: Bench) -> Verdict:
    path = part(bench.store, "shards/*.json")
    damage.edit(path, lambda values: values["entries"][1].update(start_frame=7))
    return read_and_prepared(bench, (path.name,))


@fault(STORES, "a run is trained on it", [("a shard is flipped", damage.flip), ("a shard is cut", damage.cut)])
def trained_on(bench: Bench, case: Callable[[Path], None]) -> Verdict:
    path = part(bench.store, "shards/*.npy")
    case(path)
    train = lambda: pretrain(RECIPE, Store.open(bench.store), bench.folder / "new", num_threads=1)  # noqa: E731
    return judged(train, lambda done: Verdict(CRASHED, "trained on damaged log-mels"), (path.name,), must="refuse")


PASSES: dict[str, Exception] = {
    "the disk does not answer": OSError(errno.EIO, "Input/output error"),
    "no permission": PermissionError(errno.EACCES, "Permission denied"),
    "too many open files": OSError(errno.EMFILE, "Too many open files"),
    "no memory": MemoryError(),
    "the network drive is gone": OSError(errno.ESTALE, "Stale file handle"),
    "a time-out": OSError(errno.ETIMEDOUT, "Connection timed out"),
}


@fault(PASSING, "one recording cannot be decoded for now, and can be at the next call", PASSES.items())
def passes(bench: Bench, case: Exception) -> Verdict:
    table = bench.audio / "task.csv"

    def failing(opened: Callable[..., Any]) -> Callable[..., Any]:
        def open_or_fail(path: Any, *arguments: Any, **options: Any) -> Any:
            if str(path).endswith("3.wav"):
                raise case
            return opened(path, *arguments, **options)

        return open_or_fail

    with patch.object(Path, "open", failing(Path.open)), patch.object(os, "open", failing(os.open)):
        first = prepare([table], bench.folder / "new", num_workers=0)
    if len(first) + len(first.rejected) != len(bench.shop.content) - 1:
        return Verdict(LOST, f"{len(first)} used and {len(first.rejected)} rejected")
    num = lambda store: same(len(store) == len(first) + 1, "rejected for good")  # noqa: E731
    return judged(lambda: prepare([table], bench.folder / "new", num_workers=0), num, must="work")


@fault(PASSING, "one recording is missing, and there at the next call")
def comes_back(bench: Bench) -> Verdict:
    table, file = bench.audio / "task.csv", bench.audio / "3.wav"
    file.rename(bench.folder / "kept.wav")
    prepare([table], bench.folder / "new", num_workers=0)
    (bench.folder / "kept.wav").rename(file)
    judge = lambda store: same(len(store) == len(bench.shop.content) - 1)  # noqa: E731
    return judged(lambda: prepare([table], bench.folder / "new", num_workers=0), judge, must="work")


@fault(BOUNDS, "a corpus of equal samples, whose deviation is 0")
def nearly_silent(bench: Bench) -> Verdict:
    folder = bench.folder / "quiet"
    folder.mkdir()
    pulse = np.zeros(8000)
    pulse[0] = 1e-9
    for number in range(3):
        soundfile.write(folder / f"{number}.wav", pulse, SAMPLE_RATE_HZ, subtype="FLOAT")
    train = lambda: pretrain(RECIPE, prepare([folder], bench.folder / "new", num_workers=0), bench.folder / "r")  # noqa: E731
    return judged(train, lambda done: Verdict(SAFE, "trained"), (folder, bench.folder))


@fault(BOUNDS, "some kB of FLAC that are hours of silence and one click", slow=True)
def long_flac(bench: Bench) -> Verdict:
    folder = bench.folder / "long"
    folder.mkdir()
    with soundfile.SoundFile(folder / "long.flac", "w", 8000, 1) as file:
        for _ in range(10):
            file.write(np.zeros(8000 * 360, np.int16))
        file.write(np.full(800, 9000, np.int16) * np.resize([1, -1], 800).astype(np.int16))
    prepared = bench.folder / "new"
    script = f"melmask prepare {folder} --out {prepared}"
    done = bench.shop.limited(script.split()[1:], memory_gb=3)
    if done.returncode == 0:
        return same(len(Store.open(prepared)) == 1)
    return judged(lambda: _raise(done.stderr), lambda _: Verdict(SAFE), ("long.flac",))


def _raise(text: str) -> None:
    raise ValueError(text)


LEFT = {
    "of a killed writer in shards/": "shards/0.npy.99.tmp",
    "of a killed writer": "store.json.99.tmp",
    "marker of a killed worker": "shards/0.now",
    "shard that no table lists": "shards/0000.npy",
}


@fault(LEFTOVERS, "a store has a file, then prepared again", [(words, (name,)) for words, name in LEFT.items()])
def leftover(bench: Bench, case: tuple[str]) -> Verdict:
    path = bench.store / case[0]
    path.write_bytes(b"left over")
    (bench.audio / "8.wav").write_bytes((bench.audio / "7.wav").read_bytes())
    judge = lambda store: same(not path.exists() and len(store) == 9, f"{path.name} is still there")  # noqa: E731
    sources = [bench.shop.base / "audio" / "task.csv", bench.audio / "8.wav"]
    return judged(lambda: prepare(sources, bench.store, num_workers=0), judge, must="work")


@fault(LEFTOVERS, "a recording is changed within its size and time of change, then prepared with --verify full")
def changed_in_place(bench: Bench) -> Verdict:
    table, file = bench.audio / "task.csv", bench.audio / "3.wav"
    before = content(prepare([table], bench.folder / "new", num_workers=0))
    status = file.stat()
    sound = bytearray(file.read_bytes())
    sound[2000:4000] = bytes(2000)
    file.write_bytes(sound)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = lambda: content(prepare([table], bench.folder / "new", num_workers=0, verify="full"))  # noqa: E731
    return judged(again, lambda found: same(found != before, "the change went unnoticed"), must="work")


@fault(LEFTOVERS, "a start that failed leaves a folder, then started again")
def failed_start(bench: Bench) -> Verdict:
    new = bench.folder / "new"
    empty = bench.folder / "empty.csv"
    empty.write_text("path,label\nnothing.wav,a\n")
    first = judged(lambda: prepare([empty], new, num_workers=0), lambda store: Verdict(SAFE), ("empty.csv", new))
    table = make_recordings(bench.folder / "others")
    judge = lambda store: same(len(store) == len(bench.shop.content) - 1)  # noqa: E731
    return judged(lambda: prepare([table], new, num_workers=0), judge, must="work") if first.kind == SAFE else first
