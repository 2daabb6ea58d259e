"""What a command left out: a sum that adds up, the list beside the output, and the exit status."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melmask.cli import console, main


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(console.console, "width", 200)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sixteen noises, one that is no audio, an empty one, a text, and a manifest of all of them but the text."""
    folder, rng = tmp_path / "clips", np.random.default_rng(0)
    folder.mkdir()
    rows = ["path,label,fold"]
    for i in range(16):
        soundfile.write(folder / f"{i:02}.wav", 0.1 * rng.standard_normal(400 if i == 3 else 4000), 16_000)
        rows.append(f"{i:02}.wav,{'ab'[i % 2]},{i // 2 % 2}")
    (folder / "broken.wav").write_text("no audio")
    (folder / "empty.flac").touch()
    (folder / "notes.txt").write_text("recorded in May")
    rows += ["broken.wav,a,0", "empty.flac,b,1"]
    (folder / "set.csv").write_text("\n".join(rows) + "\n")
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, list[str]]:
    """The exit status of a command, and the lines that it prints."""
    status = 0
    try:
        main.main([*map(str, arguments), *([] if arguments[0] == "report" else ["--workers", "0"])])
    except SystemExit as error:
        status = int(error.code or 0)
    captured = capsys.readouterr()
    return status, (captured.out + captured.err).splitlines()


def listed(path: Path) -> list[str]:
    with path.open(newline="") as file:
        return sorted(Path(row["path"]).name for row in csv.DictReader(file))


def test_prepare_ends_with_a_sum(folder: Path, tmp_path: Path, capsys) -> None:
    status, lines = run(capsys, "prepare", folder, "--out", tmp_path / "store")
    list_ = tmp_path / "store" / "rejected.csv"
    assert (status, lines[-2]) == (3, f"19 found = 16 used + 2 rejected + 1 excluded; listed in {list_}")
    assert listed(list_) == ["broken.wav", "empty.flac", "notes.txt"]
    for name in ("broken.wav", "empty.flac"):
        (folder / name).unlink()
    status, lines = run(capsys, "prepare", folder, "--out", tmp_path / "store")
    assert (status, lines[-2]) == (0, f"17 found = 16 used + 0 rejected + 1 excluded; listed in {list_}")
    (folder / "notes.txt").unlink()
    status, lines = run(capsys, "prepare", folder, "--out", tmp_path / "store")
    assert (status, lines[-2]) == (0, "16 found = 16 used + 0 rejected + 0 excluded")


@pytest.mark.parametrize("name", ["e.npz", "e", "e.features", "deep/er/e.npz"])
def test_embed_writes_what_it_reports_and_keeps_the_list_beside_it(folder: Path, tmp_path, capsys, name: str) -> None:
    out = tmp_path / "out" / name
    list_ = out.with_name(out.name + ".rejected.csv")
    status, lines = run(capsys, "embed", "logmel-stats", folder, "--out", out)
    assert status == 3 and lines[-3] == f"{out}: 16 embeddings of 560 dimensions"
    assert lines[-2] == f"19 found = 16 used + 2 rejected + 1 excluded; listed in {list_}"
    assert np.load(out)["features"].shape == (16, 560)
    assert listed(list_) == ["broken.wav", "empty.flac", "notes.txt"]
    assert sorted(path.name for path in out.parent.iterdir()) == sorted([out.name, list_.name])
    for bad in ("broken.wav", "empty.flac", "notes.txt"):
        (folder / bad).unlink()
    status, lines = run(capsys, "embed", "logmel-stats", folder, "--out", out)
    assert (status, lines[-2]) == (0, "16 found = 16 used + 0 rejected + 0 excluded") and not list_.exists()


def test_embed_keeps_the_list_where_nothing_can_be_used(tmp_path: Path, capsys) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.wav").write_text("no audio")
    status, lines = run(capsys, "embed", "logmel-stats", tmp_path / "bad", "--out", tmp_path / "e.npz")
    assert (
        status == 2 and f"none of 1 files is usable: not audio (1): see {tmp_path / 'e.npz.rejected.csv'}" in lines[-1]
    )
    assert listed(tmp_path / "e.npz.rejected.csv") == ["a.wav"] and not (tmp_path / "e.npz").exists()


def test_embed_into_a_folder_is_refused_at_once(folder: Path, capsys) -> None:
    status, lines = run(capsys, "embed", "logmel-stats", folder, "--out", folder)
    assert status == 2 and "is a folder: name the file to write" in lines[-1]


def test_evaluate_and_compare_say_what_was_lost(folder: Path, tmp_path: Path, capsys) -> None:
    task = ("--task", folder / "set.csv", "--probe", "knn")
    for command in (
        ("evaluate", "logmel-stats", *task, "--no-baselines"),
        ("compare", "logmel-stats", "untrained:micro", *task),
    ):
        status, lines = run(capsys, *command)
        text = "\n".join(lines)
        assert status == 3
        assert "18 found = 16 used + 2 rejected + 0 excluded; listed in " in text
        assert "2 of 18 test clips could not be used: a 1, b 1; listed in " in text


def test_copies_are_refused_unless_allowed(folder: Path, capsys) -> None:
    (folder / "copy.wav").write_bytes((folder / "00.wav").read_bytes())
    table = folder / "copies.csv"
    rows = [row for row in (folder / "set.csv").read_text().splitlines() if not row.startswith(("broken", "empty"))]
    table.write_text("\n".join([*rows, "copy.wav,a,1"]) + "\n")
    command = ("evaluate", "logmel-stats", "--task", table, "--probe", "knn", "--no-baselines")
    status, lines = run(capsys, *command)
    assert status == 2 and "00.wav" in lines[-1] and "copy.wav" in lines[-1] and "--allow-duplicates" in lines[-1]
    status, lines = run(capsys, *command, "--allow-duplicates")
    assert status == 0 and any("1 of 8 test clips are in training too" in line for line in lines)


def test_two_tables_of_one_name_are_shown_with_their_folders(folder: Path, tmp_path: Path, capsys) -> None:
    rows = [row for row in (folder / "set.csv").read_text().splitlines() if not row.startswith(("broken", "empty"))]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        lines = [f"{folder}/{row}" if "." in row else row for row in rows]
        (tmp_path / name / "set.csv").write_text("\n".join(lines[: None if name == "one" else -2]) + "\n")
    tables = [tmp_path / "one" / "set.csv", tmp_path / "two" / "set.csv"]
    details = tmp_path / "details"
    command = ("evaluate", "logmel-stats", "--task", *tables, "--probe", "knn", "--no-baselines", "--details", details)
    status, lines = run(capsys, *command)
    assert status == 0 and all(any(line.startswith(name) for line in lines) for name in ("one/set", "two/set"))
    assert len(list(details.iterdir())) == 2
