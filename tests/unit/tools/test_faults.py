"""Faults: a part of the catalogue and of the fuzzing, and the page that the whole of it wrote."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from faults import damage, page
from faults import run as faults_run
from faults.catalogue import FAULTS, Fault
from faults.fuzz import FUZZERS
from faults.run import GROUPS, inject
from faults.verdict import CRASHED, KINDS, SAFE, UNCLEAR, WRONG, Verdict, judged, same
from faults.workshop import Workshop

from melmask.cli.main import main
from melmask.nn.encoder_file import ENCODER
from melmask.train.run_folder import CHECKPOINT, LOG

OF_GROUP = 2  # faults of each group in the default suite
NUM_FUZZ = 40  # mutations of each kind of file there


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Small artefacts of every kind."""
    return Workshop(tmp_path_factory.mktemp("faults") / "shop")


def quick_half() -> list[Fault]:
    """Of each group a fault of each of the first functions that take no process of their own."""
    first: dict[tuple[str, str], Fault] = {}
    for fault in FAULTS:
        if not fault.is_slow:
            first.setdefault((fault.group, fault.what.partition(":")[0]), fault)
    of_group: dict[str, list[Fault]] = {}
    for fault in first.values():
        of_group.setdefault(fault.group, []).append(fault)
    return [fault for own in of_group.values() for fault in own[:OF_GROUP]]


@pytest.mark.usefixtures("as_for_users")
def test_no_fault_of_the_quick_half_loses_data_or_goes_unnoticed(shop):
    found = list(inject(quick_half(), shop))
    assert len({line["group"] for line in found}) >= 15
    assert not [line for line in found if line["kind"] != SAFE]


@pytest.mark.usefixtures("as_for_users")
@pytest.mark.parametrize("kind", FUZZERS)
def test_mutated_files_are_refused_by_name_or_read_as_they_were(kind, tmp_path):
    fuzzer = FUZZERS[kind](tmp_path)
    found = [fuzzer(np.random.default_rng([1, number])) for number in range(NUM_FUZZ)]
    assert not [verdict for verdict in found if verdict.kind != SAFE]


@pytest.mark.slow
@pytest.mark.parametrize("group", [*GROUPS, *FUZZERS])
def test_no_fault_loses_data_or_goes_unnoticed(group, tmp_path, monkeypatch):
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path / "cache"))
    faults_run.run([group], tmp_path, tmp_path / "results.jsonl", 500, 7)
    assert not [line for line in page.kept(tmp_path / "results.jsonl") if line["kind"] not in (SAFE, UNCLEAR)]


def test_what_is_unsafe_is_seen(tmp_path):
    def refuse(text: str) -> None:
        raise ValueError(text)

    def crash() -> None:
        raise KeyError("a")

    whole = lambda value: same(value == 1)  # noqa: E731
    assert judged(lambda: 1, whole).kind == SAFE and judged(lambda: 2, whole).kind == WRONG
    assert judged(lambda: refuse("a.json is damaged: restore it"), whole, ("a.json",)).kind == SAFE
    assert judged(lambda: refuse("it is damaged: restore it"), whole, ("a.json",)).kind == UNCLEAR
    assert judged(lambda: refuse("a.json is damaged"), whole, ("a.json",)).kind == UNCLEAR
    assert judged(lambda: refuse("restore it"), whole, must="work").kind == WRONG
    assert judged(crash, whole).kind == CRASHED
    broken = Fault("a group", "what breaks", lambda bench: Verdict(WRONG))
    assert [line["kind"] for line in inject([broken], _Shop(tmp_path))] == [WRONG]


class _Shop:
    """Stands in for a workshop, for faults that take nothing of it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def bench(self) -> None:
        return None


def test_the_page_is_what_the_kept_results_give():
    lines = page.kept(page.RESULTS)
    assert page.PAGE.read_text(encoding="utf-8") == page.page(lines), "write it anew: make faults"
    single = Counter(line["group"] for line in lines if "counts" not in line)
    assert single == Counter(fault.group for fault in FAULTS), "make faults: the catalogue has changed"
    assert single.total() >= 100
    fuzzed = {line["group"]: line["counts"] for line in lines if "counts" in line}
    assert len(fuzzed) == len(FUZZERS) and all(sum(counts.values()) >= 10_000 for counts in fuzzed.values())
    assert not page.bad(lines) and set().union(*fuzzed.values()) <= set(KINDS)
    assert str(Path.cwd()) not in page.RESULTS.read_text() and os.sep + "tmp" + os.sep not in page.PAGE.read_text()


def test_check_says_what_is_whole_damaged_stale_and_left_over(shop, capsys):
    bench = shop.bench()
    paths = [bench.store, bench.run, bench.half, bench.cache, bench.folder / "embeddings.npz", bench.run / ENCODER]
    with pytest.raises(SystemExit, match="0"):
        main(["check", *map(str, paths), "--json"])
    found = json.loads(capsys.readouterr().out)["checked"]
    kinds = ["store", "run", "run", "cache", "embeddings", "encoder file"]
    assert [one["kind"] for one in found] == kinds and all(one["parts"] for one in found)
    assert {part["state"] for one in found for part in one["parts"]} == {"whole"}

    for path in (next(bench.store.glob("shards/*.npy")), bench.run / CHECKPOINT, next(bench.cache.glob("*.npy"))):
        damage.flip(path)
    damage.lose_quote(bench.run / LOG)
    shutil.copy(bench.half / "encoders" / "3.safetensors", bench.run / ENCODER)
    shutil.copy(bench.run / "encoders" / "6.safetensors", bench.half / ENCODER)
    (bench.store / "store.json.7.tmp").touch()
    with pytest.raises(SystemExit, match="1"):
        main(["check", *map(str, paths[:4]), "--json"])
    found = json.loads(capsys.readouterr().out)["checked"]
    faults = [{(part["name"], part["state"]) for part in one["parts"] if part["state"] != "whole"} for one in found]
    shard = next(bench.store.glob("shards/*.npy")).name
    assert faults[0] == {(f"shards/{shard}", "damaged"), ("store.json.7.tmp", "leftover")}
    assert faults[1] == {(CHECKPOINT, "damaged"), (LOG, "damaged")}
    assert faults[2] == {(ENCODER, "stale")} and [state for _, state in faults[3]] == ["damaged"]
    with pytest.raises(SystemExit, match="1"):
        main(["check", str(bench.half)])
    shown = capsys.readouterr().out
    assert "1 stale" in shown and "resume the run, which writes it again" in " ".join(shown.split())
    with pytest.raises(SystemExit, match="2"):
        main(["check", str(bench.audio)])
    assert "none of what melmask checks" in capsys.readouterr().err
