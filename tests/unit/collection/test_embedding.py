"""Embedding in blocks: every form of sources, windows and time steps with their times, and what a kill leaves."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

import melmask
from melmask.cli.main import main
from melmask.collection import parts
from melmask.collection.parts import embed_in_blocks
from melmask.collection.sources import blocks, found
from melmask.collection.windows import Division, WindowedStore
from melmask.data.manifest import Clip
from melmask.data.prepare import prepare
from melmask.encoders.recordings import log_mels
from melmask.models.windows import Windows


@pytest.fixture(autouse=True)
def here(tmp_path: Path, recordings: Path, shipped_tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three recordings in a folder, a long one, and one that is broken."""
    monkeypatch.chdir(tmp_path)
    Path("day1").mkdir()
    for number in (0, 1, 2):
        Path(f"day1/{number}.wav").symlink_to(recordings.parent / f"0{number}.wav")
    sounds = [soundfile.read(recordings.parent / f"{number:02}.wav", dtype="float32")[0] for number in range(6)]
    soundfile.write("long.wav", np.resize(np.concatenate(sounds), round(16_000 * 7.3)), 16_000)
    Path("broken.wav").write_text("no audio")


def run(*arguments: str) -> int:
    try:
        main(["embed", *arguments, "--workers", "0"])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def test_patterns_and_lists_are_taken_and_broken_files_named(monkeypatch, capsys):
    encoder = melmask.load("tiny")
    expected = encoder.embed([f"day1/{number}.wav" for number in range(3)])
    monkeypatch.setattr("sys.stdin", io.StringIO("day1/2.wav\n\nbroken.wav\nabsent.wav\n"))
    assert run("day1/[01].wav", "-", "--out", "e.parquet") == 3
    out = capsys.readouterr().out.replace("\n", " ")
    assert "5 found = 3 used + 2 rejected + 0 excluded" in out
    assert "absent.wav" in Path("e.parquet.rejected.csv").read_text() and not Path("e.parquet.parts").exists()
    table = pq.read_table("e.parquet")
    assert table.column_names == ["path", "label", "fold", "group", "source", "features"]
    assert np.array_equal(np.array(table["features"].to_pylist(), np.float32), expected)  # to the bit
    assert [Path(path).name for path in table["path"].to_pylist()] == ["0.wav", "1.wav", "2.wav"]
    assert table.schema.metadata[b"encoder"] == b"tiny"
    assert run("absent*.wav") == 2 and "no file matches absent*.wav" in capsys.readouterr().err


def test_windows_are_those_of_the_recording_with_their_times(capsys):
    assert run("long.wav", "--window-s", "2", "--hop-s", "1.5", "--out", "w.npz") == 0
    with np.load("w.npz") as file:
        assert file["start_s"].tolist() == [0, 1.5, 3, 4.5, 5.3] and file["end_s"].tolist() == [2, 3.5, 5, 6.5, 7.3]
        vectors = file["features"]
    encoder = melmask.load("tiny")
    [log_mel] = log_mels("long.wav", None, encoder.spec)
    steps, _ = encoder.frames(log_mel[150:350])
    assert np.allclose(vectors[1, : steps.shape[1]], steps.mean(axis=0), rtol=1e-4, atol=1e-5)
    assert run("logmel-stats", "long.wav", "--window-s", "20", "--out", "s.npz") == 0
    with np.load("s.npz") as file:
        assert np.array_equal(file["features"][0], melmask.load("logmel-stats").embed("long.wav"))
    for wrong in (["--hop-s", "1"], ["--window-s", "-1"], ["--window-s", "1", "--frames"], ["--window-s", "0.001"]):
        assert run("long.wav", *wrong, "--out", "x.npz") == 2 and capsys.readouterr().err


def test_windows_are_those_of_predict_for_any_length_and_hop(tmp_path):
    store = prepare([Path("long.wav"), Path("day1")], tmp_path / "store", num_workers=0)
    for window_s, hop_s in ((2.0, 1.0), (1.0, 0.125), (0.5, 2.2), (3.0, 3.0), (20.0, 20.0)):
        windows = WindowedStore(store, window_s, hop_s)
        spans = [windows.span_s(row) for row in range(len(windows.clips))]
        for row, whole in enumerate(store.clips):
            mine = [span for span, of in zip(spans, windows.row_of, strict=True) if of == row]
            wave = np.zeros((whole.num_frames - 1) * 160, np.float32)
            theirs = [window[:2] for window in Windows(window_s, hop_s).of([wave], 16_000)]
            to_frames = dict.fromkeys(tuple(np.rint(np.multiply(100, window)).tolist()) for window in theirs)
            assert np.allclose(np.multiply(100, mine), list(to_frames), rtol=0, atol=1e-6)


def test_frames_are_the_time_steps_and_end_with_the_sound():
    assert run("long.wav", "day1/0.wav", "--frames", "--out", "f.parquet") == 0
    table = pq.read_table("f.parquet")
    steps, _ = melmask.load("tiny").embed_frames("long.wav")
    first = table.slice(0, len(steps))
    assert np.allclose(np.array(first["features"].to_pylist()), steps, rtol=1e-3, atol=1e-3)
    assert np.allclose(first["start_s"], 0.16 * np.arange(len(steps))) and first["end_s"].to_pylist()[-1] == 7.3
    assert {Path(path).name for path in first["path"].to_pylist()} == {"long.wav"}
    assert run("logmel-stats", "long.wav", "--frames", "--out", "x.npz") == 2


def test_a_killed_call_computes_only_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "WINDOWS_AT_ONCE", 2)
    monkeypatch.setattr(parts, "PART_BLOCK", (1, 2**30))
    encoder, division = melmask.load("tiny"), Division(window_s=2.0)
    sources, counted = ["long.wav", "day1"], []
    embed_store = type(encoder).embed_store

    def counting(self, store, rows=None, progress=lambda done, total: None):
        counted.append(len(rows))
        if len(counted) == 3:
            raise KeyboardInterrupt
        return embed_store(self, store, rows, progress)

    monkeypatch.setattr(type(encoder), "embed_store", counting)
    with pytest.raises(KeyboardInterrupt):
        embed_in_blocks(encoder, found(sources), tmp_path / "parts", division, num_workers=0)
    done = embed_in_blocks(encoder, found(sources), tmp_path / "parts", division, num_workers=0)
    whole = embed_in_blocks(encoder, found(sources), tmp_path / "other", division, num_workers=0)
    num = sum(block.num_rows for block in done)
    assert counted[:2] == [2, 2] and sum(counted) == 2 * num + counted[2]
    for one, other in zip(done, whole, strict=True):
        for mine, theirs in zip(one.parts(), other.parts(), strict=True):
            assert np.array_equal(mine.features, theirs.features) and np.array_equal(mine.end_s, theirs.end_s)
    counted.append(0)
    embed_in_blocks(encoder, found(sources), tmp_path / "parts", Division(window_s=3.0), num_workers=0)
    assert sum(counted[counted.index(0) :]) > 0  # other settings start anew


def test_blocks_are_bounded_and_their_lists_read_as_they_are_needed(tmp_path):
    taken = []

    def lines():
        for number in range(10_000):
            taken.append(number)
            yield f"{number}.wav\n"

    first = next(blocks(found(["-"], lines()), 64, 2**26))
    assert len(first.clips) == 64 and len(taken) == 65 and isinstance(first.clips[0], Clip)
    assert len({block.key for block in blocks(found(["day1"]), 1, 2**26)}) == 3


@pytest.mark.slow
@pytest.mark.parametrize("minutes", [10, 120])
def test_memory_is_flat_in_the_length_of_a_recording(tmp_path, minutes):
    import subprocess
    import sys

    rng = np.random.default_rng(0)
    with soundfile.SoundFile("hours.wav", "w", 16_000, 1) as file:
        for _ in range(minutes):
            file.write((0.1 * rng.standard_normal(16_000 * 60)).astype(np.float32))
    code = (
        "import sys, torch; from melmask.cli.main import main; from melmask.plan.trial import peak_memory; "
        "main(sys.argv[1:]); print(peak_memory(torch.device('cpu')))"
    )
    command = [sys.executable, "-c", code, "embed", "untrained:micro", "hours.wav", "--window-s", "10"]
    command += ["--workers", "0", "--out", "h.parquet"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak_mib = int(done.stdout.split()[-1]) / 2**20
    print(f"{minutes} min: {peak_mib:.0f} MiB")
    assert peak_mib < 1000
