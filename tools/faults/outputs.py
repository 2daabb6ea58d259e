"""Faults of what melmask writes: full disks, files of JSON lines, mapped files, and names in every medium."""

import csv
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from markdown_it import MarkdownIt

from faults import damage
from faults.catalogue import fault
from faults.verdict import CRASHED, LOST, SAFE, WRONG, Verdict, judged, same
from faults.workshop import RECIPE, RESULT, Bench, content, make_recordings
from melmask.data.manifest import find_clips
from melmask.data.prepare import prepare
from melmask.data.store import Store
from melmask.encoders.embeddings import Embeddings
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.evaluation.comparisons import COMPARISONS, read_comparisons
from melmask.evaluation.results import RESULTS, append_results, read_results
from melmask.files import write_json
from melmask.nn.encoder_file import ENCODER, EncoderFile
from melmask.report.formats import csv_table, markdown_table

LINES, FULL, MAPPED, NAMES = "JSON lines", "full disks", "mapped files", "names"


@contextmanager
def full_disk(free_bytes: int) -> Iterator[None]:
    """No file may grow beyond so many bytes, as where the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _report(bench: Bench, out: Path) -> None:
    from melmask.report.report import report

    report([], out, results=[bench.run / RESULTS])


def _per_class(bench: Bench, out: Path) -> None:
    from melmask.report.per_class import _write_csv

    _write_csv(out, ["class"], [["x" * 5000]])


def _table(bench: Bench, out: Path) -> None:
    from melmask.detect.events import Event, write_events

    write_events(out, {Path(f"{number}.wav"): [Event(0.0, 1.0, "x" * 50)] for number in range(200)})


WRITES: dict[str, Callable[[Bench, Path], Any]] = {
    "recipe.json": lambda bench, out: RECIPE.save(out),
    "data.json": lambda bench, out: write_json(out, {"store": "x" * 5000}),
    "encoder.safetensors": lambda bench, out: EncoderFile.load(bench.shop.base / "run" / ENCODER).save(out),
    "embeddings.npz": lambda bench, out: Embeddings.load(bench.folder / "embeddings.npz").save(out),
    "classes.csv": _per_class,
    "events.csv": _table,
}


@fault(FULL, "the disk is full while a file is replaced", [(name, (name, write)) for name, write in WRITES.items()])
def full(bench: Bench, case: tuple[str, Callable[[Bench, Path], Any]]) -> Verdict:
    name, write = case
    path = bench.folder / "out" / name
    path.parent.mkdir()
    path.write_bytes(b"the old content")

    def writing() -> None:
        with full_disk(512):
            write(bench, path)

    verdict = judged(writing, lambda _: same(False, "nothing was said"), (name,))
    if path.read_bytes() != b"the old content":
        return Verdict(LOST, f"{name} has {path.stat().st_size} bytes")
    left = [file.name for file in path.parent.iterdir() if file != path]
    return Verdict(WRONG, f"left over: {left}") if left and verdict.kind == SAFE else verdict


@fault(FULL, "the disk is full while a report is written over another", slow=True)
def full_report(bench: Bench) -> Verdict:
    out = bench.folder / "report"
    _report(bench, out)
    page = (out / "report.html").read_bytes()
    append_results(bench.run, [replace(RESULT, task="another", content="c")])

    def writing() -> None:
        with full_disk(4096):
            _report(bench, out)

    verdict = judged(writing, lambda _: same(False, "nothing was said"))
    return verdict if (out / "report.html").read_bytes() == page else Verdict(LOST, "the report is destroyed")


@fault(FULL, "the disk is full while a store is prepared, then prepared again")
def full_store(bench: Bench) -> Verdict:
    table, new = bench.audio / "task.csv", bench.folder / "new"

    def writing() -> None:
        with full_disk(8192):
            prepare([table], new, num_workers=0)

    verdict = judged(writing, lambda _: same(False, "nothing was said"), (new,))
    if verdict.kind != SAFE:
        return verdict
    judge = lambda store: same(len(store) == len(bench.shop.content) - 1)  # noqa: E731
    return judged(lambda: prepare([table], new, num_workers=0), judge, must="work")


@fault(FULL, "the disk is full at a checkpoint, then resumed")
def full_checkpoint(bench: Bench) -> Verdict:
    from faults.runs import judge_weights

    def resume() -> None:
        with full_disk(20_000):
            bench.resume(bench.half)

    verdict = judged(resume, lambda _: same(False, "nothing was said"), (bench.half,))
    if verdict.kind != SAFE:
        return verdict
    return judged(lambda: bench.resume(bench.half), judge_weights(bench), must="work")


@fault(FULL, "the disk is full while results are appended, then appended again")
def full_results(bench: Bench) -> Verdict:
    more = [replace(RESULT, probe=f"p{number}") for number in range(20)]

    def writing() -> None:
        with full_disk((bench.run / RESULTS).stat().st_size + 700):
            append_results(bench.run, more)

    verdict = judged(writing, lambda _: same(False, "nothing was said"), (RESULTS,))
    if verdict.kind != SAFE:
        return verdict
    append_results(bench.run, more)
    return judged(lambda: read_results(bench.run), lambda found: same(len(found) == 23, f"{len(found)} of 23"))


@fault(FULL, "the disk is full while features are cached")
def full_cache(bench: Bench) -> Verdict:
    from melmask.encoders.cache import cached_embed

    encoder, store = PretrainedEncoder.load(bench.run), Store.open(bench.store)

    def embed() -> np.ndarray:
        with full_disk(200):
            return cached_embed(encoder, store, bench.folder / "new")

    judge = lambda found: same(np.array_equal(found, bench.shop.features))  # noqa: E731
    return judged(embed, judge, (bench.folder, "cache"))


RESULT_LINES: dict[str, tuple[Callable[[Path], None], int]] = {
    "its last line is torn": (damage.tear, 2),
    "a quote is lost": (damage.lose_quote, 2),
    "a line is bytes without sense": (lambda path: path.write_bytes(b"\xff\xfe\x00\n" + path.read_bytes()), 3),
    "a line is a list": (lambda path: path.write_bytes(b"[1]\n" + path.read_bytes()), 3),
    "a line lacks a field": (lambda path: path.write_bytes(b'{"task": "t"}\n' + path.read_bytes()), 3),
    "a score is a text": (lambda path: path.write_bytes(path.read_bytes().replace(b"0.5", b'"x"', 1)), 2),
    "a score is no number": (lambda path: path.write_bytes(path.read_bytes().replace(b"0.5", b"NaN", 1)), 2),
}


@fault(LINES, "results.jsonl is damaged, then appended to and read", RESULT_LINES.items())
def damaged_results(bench: Bench, case: tuple[Callable[[Path], None], int]) -> Verdict:
    act, num_left = case
    act(bench.run / RESULTS)

    def read() -> Any:
        append_results(bench.run, [replace(RESULT, probe="new")])
        return read_results(bench.run)

    def judge(found: Any) -> Verdict:
        if "new" not in {one.probe for one in found}:
            return Verdict(LOST, "what was appended is gone")
        return same(len(found) >= num_left + 1, f"{len(found)} results are left of {num_left + 1}")

    return judged(read, judge, (RESULTS,))


@fault(LINES, "comparisons.jsonl has a damaged line", [("torn", b'{"comp'), ("a list", b"[]\n"), ("a field", b"{}\n")])
def damaged_comparisons(bench: Bench, case: bytes) -> Verdict:
    (bench.run / COMPARISONS).write_bytes(case)
    return judged(lambda: read_comparisons([bench.run]), lambda found: same(found == []), (COMPARISONS,))


@fault(MAPPED, "a shard is truncated under an open reader", slow=True)
def truncated(bench: Bench) -> Verdict:
    script = (
        "import sys, os; from pathlib import Path; from melmask.data.store import Store\n"
        "store = Store.open(Path(sys.argv[1])); store.log_mel(0).sum()\n"
        "path = next((store.folder / 'shards').glob('*.npy')); os.truncate(path, 4096)\n"
        "try:\n    [store.log_mel(row).sum() for row in range(len(store))]\n"
        "except (ValueError, OSError) as error:\n    print('refused:', error)\n"
    )
    import subprocess
    import sys

    line = [sys.executable, "-c", script, str(bench.store)]
    done = subprocess.run(line, env=bench.shop.environment, capture_output=True, text=True, timeout=120)
    if done.returncode:
        return Verdict(CRASHED, f"exit {done.returncode}: {done.stderr[-300:]}")
    if "refused:" not in done.stdout:
        return Verdict(WRONG, "read as if whole")
    return judged(lambda: _raise(done.stdout), lambda _: same(False), (".npy",))


def _raise(text: str) -> None:
    raise ValueError(text)


@fault(MAPPED, "a store has more shards than files may be open", slow=True)
def many_shards(bench: Bench) -> Verdict:
    from melmask.data import prepare as module

    new, table = bench.folder / "new", make_recordings(bench.folder / "many", num=120, seconds=0.2)
    before, module.MAX_SHARD_FILES = module.MAX_SHARD_FILES, 1
    try:
        prepare([table], new, num_workers=0)
    finally:
        module.MAX_SHARD_FILES = before
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)

    def read() -> int:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit[0], 90), limit[1]))
        try:
            return len(content(Store.open(new)))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)

    return judged(read, lambda num: same(num == 121), (new,))


FILE_NAMES = {
    "a formula": "=1+1.wav", "markup": "<script>x(1)<!--.wav", "quotes and commas": "a\",'b;c|d.wav",
    "a line break": "a\nb.wav", "an escape sequence": "\x1b]0;t\x07.wav", "no UTF-8": os.fsdecode(b"\xff\xfe.wav"),
    "a hyphen at its start": "-rf.wav", "brackets": "a[1]*?.wav", "dollars and braces": "$x${y}{z}.wav",
    "blanks at both ends": " a .wav", "255 bytes": "a" * 251 + ".wav", "right to left": "\u202ea.wav",
    "an apostrophe and a formula": "'=1.wav", "percent": "a%2f%s%n.wav",
}  # fmt: skip


def named(bench: Bench, name: str) -> Path:
    """A folder with a recording of that name."""
    folder = bench.folder / "named"
    folder.mkdir()
    (bench.audio / "1.wav").rename(folder / name)
    return folder


@fault(NAMES, "a recording whose name has", [(words, (name,)) for words, name in FILE_NAMES.items()])
def strange_name(bench: Bench, case: tuple[str]) -> Verdict:
    """It is in the store and among the embeddings under its very name."""
    folder, file = named(bench, case[0]), bench.folder / "e.npz"

    def use() -> list[Path]:
        store = Store.open(prepare([folder], bench.folder / "new", num_workers=0).folder)
        vectors = PretrainedEncoder.load(bench.run).embed_store(store)
        Embeddings(vectors, [stored.clip for stored in store.clips], "e").save(file)
        return [store.clips[0].clip.path, Embeddings.load(file).clips[0].path]

    return judged(use, lambda found: same(found == [folder / case[0]] * 2, str(found)), must="work")


@fault(NAMES, "a manifest lists a recording whose name has", [
    (words, (name,)) for words, name in FILE_NAMES.items() if words != "an apostrophe and a formula"
])  # fmt: skip
def strange_name_in_table(bench: Bench, case: tuple[str]) -> Verdict:
    folder = named(bench, case[0])
    with (folder / "list.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows([("path", "label"), (case[0], "a")])
    call = lambda: [clip.path.exists() for clip in find_clips([folder / "list.csv"])]  # noqa: E731
    return judged(call, lambda found: same(found == [True]), ("list.csv",))


@fault(NAMES, "in a table of a report", [(words, (name,)) for words, name in FILE_NAMES.items()])
def strange_name_in_report(bench: Bench, case: tuple[str]) -> Verdict:
    from melmask.escaping import from_csv

    name = case[0]
    (cell,) = next(csv.reader([csv_table([name], [])], lineterminator="\n")) if "\n" not in name else [name]
    if cell[:1] in "=+@-" and cell[:1] and "\n" not in name:
        return Verdict(WRONG, f"a formula: {cell}")
    html = MarkdownIt("commonmark").enable("table").render(markdown_table([name, "b"], []))
    if "<script" in html:
        return Verdict(WRONG, html)
    return same(from_csv(cell) == name, f"{cell!r} is not {name!r}")


@fault(NAMES, "on the terminal", [(words, (name,)) for words, name in FILE_NAMES.items()])
def strange_name_on_terminal(bench: Bench, case: tuple[str]) -> Verdict:
    import io

    from melmask.cli.console import SafeConsole
    from melmask.cli.console import named as shown

    text = io.StringIO()
    SafeConsole(file=text, width=400).print(f"[bold]{shown(case[0])}[/]", soft_wrap=True)
    control = set(text.getvalue().rstrip("\n")) & set("\x1b\x07\n\u202e\udcff\udcfe")
    return Verdict(WRONG, f"obeyed: {control}") if control else Verdict(SAFE)
