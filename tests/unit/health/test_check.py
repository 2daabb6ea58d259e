"""The command check: indexes, trained models and studies; whole, damaged, stale, and what a killed call left."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from melmask.cli.main import main
from melmask.collection import index
from melmask.collection.index import FILES, GRAPH, PARTS, VECTORS, WINDOWS
from melmask.files import read_tensors, write_tensors
from melmask.health.check import Health, health_of
from melmask.models.file import MODEL
from melmask.nn.encoder_file import ENCODER
from melmask.study.kept import CLIPS, RUNS
from melmask.study.study import Study, StudyTask, grid
from melmask.train.recipe import RECIPES
from melmask.train.run_folder import RECIPE
from studies import write_study

WHOLE: dict[str, str] = {}


def states(health: Health) -> dict[str, str]:
    """The parts that are not whole, by name."""
    assert health.parts
    return {part.name: part.state for part in health.parts if part.state != "whole"}


def checked(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit status of the command, and what it prints."""
    capsys.readouterr()
    try:
        main(["check", str(path)])
    except SystemExit as error:
        return int(error.code or 0), capsys.readouterr().out
    return 0, capsys.readouterr().out


def test_an_index_is_checked(recordings, tmp_path, capsys, monkeypatch, shipped_tiny):
    monkeypatch.setattr(index, "EXACT_UP_TO", 2)
    monkeypatch.setattr("melmask.cli.console.console.width", 200)
    sounds, folder = tmp_path / "sounds", tmp_path / "i"
    sounds.mkdir()
    for number in range(4):
        shutil.copy(recordings.parent / f"{number:02}.wav", sounds)
    main(["index", str(sounds), "--out", str(folder), "--workers", "0"])
    status, shown = checked(folder, capsys)
    assert status == 0 and f"{folder}: index; 4 whole" in shown and f"next: melmask search {folder}" in shown

    (folder / PARTS).mkdir()
    assert states(health_of(folder)) == {PARTS: "leftover"}
    (sounds / "00.wav").unlink()
    (folder / GRAPH).write_bytes(b"damaged")
    assert states(health_of(folder)) == {PARTS: "leftover", FILES: "stale", GRAPH: "stale"}
    status, shown = checked(folder, capsys)
    assert status == 1 and "1 recordings have changed or are gone" in shown and "next:" not in shown
    main(["index", str(sounds), "--out", str(folder), "--workers", "0"])  # the remedy
    assert states(health_of(folder)) == WHOLE

    vectors = np.fromfile(folder / VECTORS, np.float16)
    vectors[-1] = np.inf
    vectors.tofile(folder / VECTORS)
    assert states(health_of(folder)) == {VECTORS: "damaged"}
    shutil.copy(recordings, folder / WINDOWS)
    assert states(health_of(folder)) == {"index.json": "damaged"}


def test_a_trained_model_is_checked(recordings, tmp_path, capsys):
    model = tmp_path / "model"
    main(["evaluate", "untrained:micro", "--task", str(recordings), "--probe", "ridge", "--no-baselines",
          "--save-probe", str(model), "--workers", "0"])  # fmt: skip
    for path in (model, model / MODEL):
        status, shown = checked(path, capsys)
        assert status == 0 and "model; 2 whole" in " ".join(shown.split())
    tensors, metadata = read_tensors(model / MODEL)
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    write_tensors(model / MODEL, tensors | {name: tensors[name] + float("nan")}, metadata)
    assert states(health_of(model)) == {MODEL: "damaged"}
    (model / ENCODER).write_bytes((model / ENCODER).read_bytes()[:100])
    assert states(health_of(model)) == {ENCODER: "damaged", MODEL: "damaged"}


def test_a_study_is_checked_with_its_runs(tmp_path, capsys):
    study = Study(
        name="two",
        question="Is it whole?",
        cells=grid({"msm-mae": RECIPES["micro-msm-mae"]}, {"random": {}, "dwm": {"strategy": "dwm"}}),
        sources=("open.csv",),
        tasks=(StudyTask("word.csv"),),
    )
    write_study(study, tmp_path, {})
    assert states(health_of(tmp_path)) == WHOLE and health_of(tmp_path).kind == "study"
    with (tmp_path / CLIPS).open("a") as file:
        file.write(json.dumps({"run": "without a task"}) + "\n")
    run = tmp_path / RUNS / "msm-mae-random-seed0"
    run.mkdir(parents=True)
    (run / RECIPE).write_text("{")
    status, shown = checked(tmp_path, capsys)
    assert status == 1 and "study" in shown and f"runs/{run.name}/{RECIPE}" in shown
    found = states(health_of(tmp_path))
    assert found[CLIPS] == found[f"runs/{run.name}/{RECIPE}"] == "damaged"
