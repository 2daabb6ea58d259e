"""`melmask tasks` as a user types it."""

import functools
import threading
import zipfile
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from melmask.cli import main
from melmask.cli import tasks as command
from melmask.data.download import Archive
from melmask.datasets import DATASETS
from melmask.evaluation.task import read_task


@pytest.fixture
def small(monkeypatch, copy_of):
    """Makes the small copy of a data set, and lets the command expect no more of it."""

    def make(name: str):
        copy = copy_of(name)
        monkeypatch.setitem(command.DATASETS, name, replace(DATASETS[name], expected=copy.expected))
        return copy

    return make


def failure(arguments: list[str], capsys) -> str:
    with pytest.raises(SystemExit) as exit_:
        main.main(arguments)
    assert exit_.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["tasks"], ["tasks", "list"]])
def test_lists_every_task(arguments, capsys, monkeypatch):
    monkeypatch.setattr(command.console, "_width", 120)
    main.main(arguments)
    printed = capsys.readouterr().out
    for dataset in DATASETS.values():
        [line] = [line for line in printed.splitlines() if line.split()[:1] == [dataset.name]]
        assert f"{dataset.expected.classes:,}" in line and dataset.splits in line and dataset.metric in line
        assert f"{dataset.clip_s:g}" in line and (dataset.doi or dataset.home) in line


@pytest.mark.parametrize("name", DATASETS)
def test_shows_what_the_folder_must_hold(name, capsys, monkeypatch):
    monkeypatch.setattr(command.console, "_width", 2000)
    main.main(["tasks", "show", name])
    printed, dataset = capsys.readouterr().out, DATASETS[name]
    for text in (dataset.layout, dataset.lists, dataset.protocol, dataset.home, dataset.no_download):
        assert text in printed
    assert all(archive.url in printed for archive in dataset.archives)


@pytest.mark.parametrize("name", DATASETS)
def test_makes_a_table_and_counts_it(name, small, tmp_path, capsys):
    copy = small(name)
    lists = ["--lists", str(copy.lists)] if copy.lists else []
    main.main(["tasks", "make", name, str(copy.folder), "--out", str(tmp_path / f"{name}.csv"), *lists])
    printed, task = capsys.readouterr().out, read_task(tmp_path / f"{name}.csv")
    assert f"{name}.csv: {len(task.paths)} clips" in printed and f"{name}.task.json" in printed
    assert task.name == name and len(task.classes) == copy.expected.classes


def test_says_what_is_missing_and_is_made_only_when_allowed(small, tmp_path, capsys):
    copy, out = small("urbansound8k"), tmp_path / "u.csv"
    (copy.folder / "audio/fold3/3001-1-0-0.wav").unlink()
    (copy.folder / "audio/fold4/4003-3-0-0.wav").unlink()
    arguments = ["tasks", "make", "urbansound8k", str(copy.folder), "--out", str(out)]
    printed = failure(arguments, capsys)
    assert "2 of 20 listed files do not exist: audio/fold3/3001-1-0-0.wav, audio/fold4/4003-3-0-0.wav" in printed
    assert "fold 3: 1 clips of 2" in printed and "fold 4: 1 clips of 2" in printed
    assert "fold 3: no clip of car_horn" in printed
    assert "UrbanSound8K" in printed and "doi:10.5281/zenodo.1203745" in printed and "--allow-missing" in printed
    assert not out.exists() and not out.with_suffix(".task.json").exists()
    main.main([*arguments, "--allow-missing"])
    assert "missing: fold 3: 1 clips of 2" in capsys.readouterr().out
    assert len(read_task(out).paths) == 18 and "3001-1-0-0.wav" in out.with_suffix(".task.json").read_text()


def test_the_official_numbers_hold_on_the_command_line(copy_of, tmp_path, capsys):
    copy = copy_of("esc50")
    printed = failure(["tasks", "make", "esc50", str(copy.folder), "--out", str(tmp_path / "e.csv")], capsys)
    assert "fold 1: 2 clips of 400" in printed and "2 classes of 50" in printed


def test_nothing_is_fetched_unless_asked_for(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "download", lambda *_: pytest.fail("fetched without being asked"))
    nowhere = str(tmp_path / "nowhere")
    printed = failure(["tasks", "make", "esc50", nowhere, "--out", str(tmp_path / "e.csv")], capsys)
    assert "nowhere does not exist" in printed and "--download" in printed and "ESC-50" in printed
    printed = failure(["tasks", "make", "gtzan", nowhere, "--out", str(tmp_path / "g.csv")], capsys)
    assert "nowhere is no folder" in printed and "--download" not in printed
    printed = failure(["tasks", "make", "voxceleb1", nowhere, "--out", str(tmp_path / "v.csv"), "--download"], capsys)
    assert "nothing to download for VoxCeleb1" in printed and "on request" in printed


def test_downloads_unpacks_and_makes_the_table(small, tmp_path, capsys, monkeypatch):
    copy = small("esc50")
    served = tmp_path / "served"
    served.mkdir()
    with zipfile.ZipFile(served / "master.zip", "w") as archive:
        for path in sorted(copy.folder.rglob("*")):
            archive.write(path, path.relative_to(copy.folder))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(served))) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{http.server_port}/master.zip"
        dataset = replace(command.DATASETS["esc50"], archives=(Archive(url),))
        monkeypatch.setitem(command.DATASETS, "esc50", dataset)
        folder, out = tmp_path / "data" / "ESC-50", tmp_path / "data" / "esc50.csv"
        main.main(["tasks", "make", "esc50", str(folder), "--out", str(out), "--download"])
        http.shutdown()
        thread.join()
    printed = capsys.readouterr().out
    assert "fetching master.zip" in printed and "unpacking master.zip" in printed
    assert len(read_task(out).paths) == 4
    assert out.read_text().splitlines()[1].startswith("ESC-50/ESC-50-master/audio/1-")
    assert Path(folder / "ESC-50-master/meta/esc50.csv").is_file()
