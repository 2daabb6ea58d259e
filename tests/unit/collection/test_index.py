"""An index: what it finds, how it grows, whom it refuses; and recordings that differ from good ones."""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from melmask.cli.main import main
from melmask.collection import index, parts
from melmask.collection.index import GRAPH, Index, unit, update_index
from melmask.collection.novelty import novelty
from melmask.collection.windows import Division
from melmask.data.manifest import Clip
from melmask.encoders.registry import as_encoder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, recordings: Path, shipped_tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("melmask.cli.console.console.width", 200)
    Path("sounds").mkdir()
    for number in range(6):
        sound, rate_hz = soundfile.read(recordings.parent / f"{number:02}.wav")
        soundfile.write(f"sounds/{number}.wav", sound, rate_hz)


def run(*arguments: str) -> int:
    try:
        main(list(arguments))
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def test_an_index_finds_its_own_windows_and_takes_new_recordings(capsys):
    assert run("index", "sounds", "--out", "i", "--window-s", "0.8", "--workers", "0") == 0
    first = Index(Path("i"))
    num_before = len(first)
    assert run("search", "i", "sounds/3.wav", "sounds/5.wav", "--num", "3", "--out", "hits.csv", "--json") == 0
    found = json.loads(capsys.readouterr().out.partition("{")[2].join(["{", ""]))
    for hits, name in ((found["hits"][:3], "sounds/3.wav"), (found["hits"][3:], "sounds/5.wav")):
        assert hits[0]["path"].endswith(name) and hits[0]["similarity"] > 0.999 and len(hits) == 3
        assert hits[0]["end_s"] > hits[0]["start_s"] and {hit["query"] for hit in hits} == {name}
    assert Path("hits.csv").read_text().startswith("path,start_s,end_s,similarity,query\n")
    assert found["next"] == "melmask map i --out map.html"
    sound, rate_hz = soundfile.read("sounds/0.wav")
    soundfile.write("sounds/new.wav", sound[::-1], rate_hz)
    soundfile.write("sounds/1.wav", sound, rate_hz)  # changed
    Path("sounds/2.wav").unlink()
    assert run("index", "sounds", "--out", "i", "--workers", "0") == 0
    assert "2 recordings added, 4 kept, 1 gone" in capsys.readouterr().out
    second = Index(Path("i"))
    assert np.array_equal(second.vectors[:num_before], first.vectors) and len(second.windows) > num_before
    names = [Path(path).name for path in second.windows.filter(second.windows["current"])["path"].to_pylist()]
    assert "2.wav" not in names and {"new.wav", "1.wav"} <= set(names)
    assert pq.read_table("i/windows.parquet").column_names == ["path", "start_s", "end_s", "current"]
    assert run("index", "untrained:micro", "sounds", "--out", "i", "--workers", "0") == 2
    assert "holds embeddings of another encoder" in capsys.readouterr().err
    assert run("search", "i", "sounds/0.wav", "--encoder", "logmel-stats") == 2
    assert run("search", "sounds", "sounds/0.wav") == 2 and "melmask index" in capsys.readouterr().err
    assert run("index", "sounds", "--out", "sounds", "--workers", "0") == 2


def test_a_large_index_is_searched_by_its_graph_as_exactly_as_without(tmp_path, monkeypatch):
    run("index", "sounds", "--out", "i", "--workers", "0")
    small = Index(Path("i"))
    queries = small.vectors[:2].astype(np.float32)
    exact, remark = small.search(queries, 5)
    assert remark == ""
    # The same products of unit vectors among other rows are rounded otherwise on some processors.
    rounding = 2 * queries.shape[1] * float(np.finfo(np.float32).eps)

    def assert_exact(hits):
        assert [(hit.path, hit.start_s, hit.end_s) for hit in hits] == [
            (hit.path, hit.start_s, hit.end_s) for hit in exact
        ]
        assert [hit.similarity for hit in hits] == pytest.approx([hit.similarity for hit in exact], abs=rounding)

    def assert_exact_by_graph(large):
        hits, remark = large.search(queries, 5)
        assert_exact(hits)
        assert remark == ""

    monkeypatch.setattr(index, "EXACT_UP_TO", 2)
    _, remark = Index(Path("i")).search(queries, 5)
    assert f"compared all {len(small.vectors)} windows, as there is no {GRAPH}: index the same sources again" in remark
    # The remedy works, though no recording is new; and a graph that was damaged or is of other windows is made anew.
    whole = Path("i") / GRAPH
    for content in (None, b"damaged", "half"):
        if content:
            whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2] if content == "half" else content)
            hits, remark = Index(Path("i")).search(queries, 5)
            assert_exact(hits)
            assert "is damaged" in remark and "index the same sources again" in remark
        assert run("index", "sounds", "--out", "i", "--workers", "0") == 0
        assert_exact_by_graph(Index(Path("i")))
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "usearch.index", None)
        assert "pip install 'melmask[search]'" in Index(Path("i")).search(queries, 5)[1]
    large = Index(Path("i"))
    assert_exact_by_graph(large)
    assert_exact_by_graph(large)
    monkeypatch.setattr("usearch.index.Index.restore", None)  # the graph that is open is used again
    assert_exact_by_graph(large)
    gone = {hit.path for hit in exact}
    large.is_current &= [path not in gone for path in large.windows["path"].to_pylist()]
    hits, _ = large.search(queries, 5)
    assert len(hits) == min(5, len(large)) > 0 and not gone & {hit.path for hit in hits}
    assert np.allclose(np.linalg.norm(unit(3 * queries).astype(np.float32), axis=1), 1, atol=1e-3)


def test_an_index_of_other_features_is_searched_and_added_to_by_them(capsys):
    features = ("--pooling", "mean+max", "--layers", "1")
    assert run("index", "sounds", "--out", "i", "--workers", "0", *features) == 0
    assert run("search", "i", "sounds/3.wav", "--num", "1") == 0 and "1.000" in capsys.readouterr().out
    assert run("index", "sounds", "--out", "i", "--workers", "0") == 0
    assert "0 recordings added, 6 kept" in capsys.readouterr().out


def test_recordings_to_index_are_listed_as_they_are_needed(monkeypatch, shipped_tiny):
    monkeypatch.setattr("melmask.collection.parts.PART_BLOCK", (2, 2**26))
    embedded, listed, embed = [], [], parts._embed

    def counted(*given):
        embedded.append(len(listed))
        return embed(*given)

    monkeypatch.setattr(parts, "_embed", counted)
    encoder = as_encoder("tiny")
    names = sorted(Path("sounds").absolute().iterdir())

    def recordings():
        for name in names:
            listed.append(name)
            yield Clip(name, None, None, None, "sounds")

    for _ in range(2):
        update_index(Path("i"), encoder, "tiny", recordings(), Division(window_s=0.5), num_workers=0)
    assert embedded == [5, 5, 6]  # two blocks are listed ahead, and nothing is embedded again


def machine(rng: np.random.Generator, seconds: float = 1.0) -> np.ndarray:
    """A motor: harmonics of a speed near 50 Hz, in noise."""
    time_s, speed_hz = np.arange(int(16_000 * seconds)) / 16_000, rng.uniform(48, 52)
    tones = sum(np.sin(2 * np.pi * k * speed_hz * time_s + rng.uniform(0, 6.28)) / k for k in range(1, 20))
    return 0.05 * tones + 0.01 * rng.standard_normal(len(time_s))


def test_a_fault_of_a_machine_is_novel_at_the_stated_rate_of_false_alarms(capsys):
    rng = np.random.default_rng(0)
    for folder, num in (("good", 24), ("test", 12)):
        Path(folder).mkdir()
        for number in range(num):
            sound = machine(rng)
            is_faulty = folder == "test" and number < 4
            if is_faulty:  # a damaged bearing: a click at every turn
                sound[rng.integers(0, 300) :: 320] += 0.4
            soundfile.write(f"{folder}/{'fault' if is_faulty else 'fine'}{number:02}.wav", sound, 16_000)
    command = ["novelty", "--good", "good", "--test", "test", "--encoder", "logmel-stats", "--workers", "0"]
    assert run(*command, "--false-alarms", "0.1", "--out", "n.csv") == 0
    rows = [line.split(",") for line in Path("n.csv").read_text().splitlines()]
    assert rows[0] == ["path", "distance", "threshold", "novel", "p_value", "nearest_good"]
    novel = {Path(row[0]).name for row in rows[1:] if row[3] == "True"}
    assert {f"fault{number:02}.wav" for number in range(4)} <= novel and len(novel) <= 6
    assert run(*command, "--false-alarms", "0.01") == 2
    assert "24 good recordings are too few for a false-alarm rate of 0.01" in capsys.readouterr().err


def test_the_rate_of_false_alarms_holds_and_groups_are_held_out_together():
    rng, rates = np.random.default_rng(0), []
    for _ in range(60):
        draws = rng.standard_normal((140, 8)).astype(np.float32) + 3
        rates.append(novelty(draws[:40], range(40), draws[40:], 0.1).is_novel.mean())
    assert 0.06 < np.mean(rates) < 0.12
    good = np.repeat(rng.standard_normal((20, 8)).astype(np.float32), 2, axis=0)  # each twice
    alone = novelty(good, range(40), good[:1], 0.1, 1).threshold
    assert novelty(good, (np.arange(40) // 2).tolist(), good[:1], 0.1, 1).threshold > 100 * max(alone, 1e-9)
