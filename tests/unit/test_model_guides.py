"""The guides of models, plug-ins and callbacks: their code runs, on real sound where it is at hand."""

import ast
import csv
import re
import shlex
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melmask.audio import read_audio
from melmask.cli.main import main
from melmask.train.recipe import RECIPES

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
QUICK, SLOW = ("predict",), ("callbacks", "detect", "plugins")
CLASSES, PER_CLASS, LENGTH_S, RATE_HZ = 2, 9, 1.5, 16_000


def sounds(recordings: Path) -> list[tuple[str, np.ndarray]]:
    """Short sounds with their labels: real ones where there are some beside the checkout, else the tests' own."""
    folders = [parent / "shared" / "audio" for parent in Path(__file__).parents]
    table = next((folder / "esc50.csv" for folder in folders if (folder / "esc50.csv").is_file()), recordings)
    found: list[tuple[str, np.ndarray]] = []
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            count = Counter(label for label, _ in found)
            if count[row["label"]] < PER_CLASS and (row["label"] in count or len(count) < CLASSES):
                wave = read_audio(table.parent / row["path"], RATE_HZ)
                loudest = int(np.abs(wave).argmax())
                first = max(0, min(loudest - 4000, len(wave) - round(LENGTH_S * RATE_HZ)))
                found.append((row["label"], wave[first:][: round(LENGTH_S * RATE_HZ)]))
    return found


@pytest.fixture
def folder(recordings, store, shipped_tiny, tmp_path, monkeypatch) -> Path:
    """What the guides say is there: clips.csv, events.csv, new/ and store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr("melmask.data.prepare.num_cores", lambda: 0)
    monkeypatch.setitem(RECIPES, "micro-msm-mae", replace(RECIPES["micro-msm-mae"], batch_size=4))
    Path("store").symlink_to(store.folder)
    Path("new").mkdir()
    clips, events, rng = ["path,label"], ["path,onset_s,offset_s,label"], np.random.default_rng(0)
    for number, (label, wave) in enumerate(sounds(recordings)):
        soundfile.write(f"clip{number}.wav", wave, RATE_HZ)
        clips.append(f"clip{number}.wav,{label}")
        onset_s = rng.uniform(0, 2)
        scene = 0.001 * rng.standard_normal(4 * RATE_HZ)
        scene[round(onset_s * RATE_HZ) :][: len(wave)] += wave
        soundfile.write(f"scene{number}.wav", scene, RATE_HZ)
        events.append(f"scene{number}.wav,{onset_s:.3f},{onset_s + len(wave) / RATE_HZ - 0.01:.3f},{label}")
        if number < 3:
            soundfile.write(f"new/long{number}.wav", np.concatenate([scene, scene[: 3 * RATE_HZ]]), RATE_HZ)
    Path("clips.csv").write_text("\n".join(clips) + "\n")
    Path("events.csv").write_text("\n".join(events) + "\n")
    yield tmp_path
    sys.modules.pop("my_masks", None)


def blocks(page: str) -> list[tuple[str, str]]:
    """The language and the text of each block of code of a guide."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", (GUIDES / f"{page}.md").read_text(), re.DOTALL | re.MULTILINE)


def run_commands(text: str) -> None:
    """Each line as its command; one may leave recordings out."""
    for line in text.splitlines():
        try:
            main(shlex.split(line)[1:])
        except SystemExit as stopped:
            assert stopped.code == 3, line


def run_python(code: str, names: dict[str, object]) -> None:
    """Code, whose expressions have the values that the comments behind them say; or a module, which is written."""
    named = re.match(r"# (\w+\.py)\n", code)
    if named:
        Path(named[1]).write_text(code)
        return
    for node in ast.parse(code).body:
        _, _, stated = code.splitlines()[node.end_lineno - 1].partition("  # ")
        if isinstance(node, ast.Expr) and stated:
            assert repr(eval(compile(ast.Expression(node.value), "guide", "eval"), names)) == stated
        else:
            exec(compile(ast.Module([node], []), "guide", "exec"), names)


@pytest.mark.parametrize("page", [*QUICK, *(pytest.param(page, marks=pytest.mark.slow) for page in SLOW)])
def test_a_guide_runs_from_top_to_bottom(page: str, folder: Path) -> None:
    if page == "predict":
        Path("new/broken.wav").write_text("no sound")
    names: dict[str, object] = {}
    for language, text in blocks(page):
        if language == "bash":
            run_commands(text)
        elif language == "python":
            run_python(text, names)
    made = {"predict": "sure.csv", "detect": "events_found.csv", "plugins": "report/report.html", "callbacks": "mine"}
    assert Path(made[page]).exists()
