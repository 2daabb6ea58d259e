"""The quickstart as a newcomer runs it: minutes, so only with `make test-slow`; and what it relies on."""

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

import melmask
from melmask.demo.corpus import make_demo
from melmask.logmel import LogMelSpec
from melmask.nn.encoder_file import EncoderFile, FrontEnd
from melmask.train.initial import Initial
from melmask.train.recipe import RECIPES

TASKS = ("instruments", "chroma", "words")
SCRIPT = Path(__file__).parents[2] / "examples" / "quickstart.sh"


def quickstart(out: Path, *arguments: str, **settings: str) -> str:
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": search, "OUT": str(out), **settings}
    done = subprocess.run(
        ["bash", str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def results_in(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def micro(tmp_path: Path) -> dict[str, str]:
    """An encoder of another form in place of tiny, with random weights, and the recipe of its form."""
    recipe = RECIPES["micro-msm-mae"]
    encoder = recipe.make_model().encoders()["online"]
    EncoderFile(encoder, FrontEnd(LogMelSpec(), -7.1, 4.2), recipe.crop_frames).save(tmp_path / "micro.safetensors")
    return {"ENCODER": str(tmp_path / "micro.safetensors"), "RECIPE": "micro-msm-mae", "STEPS": "5"}


def test_the_recipe_trains_encoders_of_the_form_of_tiny():
    Initial.read("shipped:tiny").check(RECIPES["quick-msm-mae"], LogMelSpec())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_encoder_that_comes_with_melmask_is_judged_and_adapted_on_the_built_in_corpus(tmp_path):
    out = tmp_path / "out"
    printed = quickstart(out)
    [line] = [line for line in printed.splitlines() if line.startswith("the report: ")]
    page = Path(line.removeprefix("the report: "))
    assert page.is_file() and page.parent == out / "report"
    lines = results_in(out / "results.jsonl")
    judged = {(line["task"], line["features"], line["probe"]) for line in lines}
    features = ("encoder", "untrained", "log-mel statistics")
    assert judged == {(task, of, probe) for task in TASKS for of in features for probe in ("ridge", "knn")}
    beside = results_in(out / "results.comparisons.jsonl")
    assert len(beside) == 12 and {line["comparison"]["name_a"] for line in beside} == {"tiny"}
    text = page.read_text()
    assert "not compared yet" not in text
    assert text.index('id="evaluations"') < text.index('id="comparisons"') < text.index('id="map"')
    assert text.index('id="map"') < text.index('id="masks"') and "300 of 1,680 recordings are shown" in text
    for masking in ("random", "dwm"):
        compared = results_in(out / f"adapted-{masking}" / "comparisons.jsonl")
        assert {line["comparison"]["task"] for line in compared} == set(TASKS)
        pairs = {(line["comparison"]["name_a"], line["comparison"]["name_b"]) for line in compared}
        assert pairs == {(f"adapted-{masking}", "tiny"), ("adapted-dwm", "adapted-random")}
        log = results_in(out / f"adapted-{masking}" / "log.jsonl")
        assert log[-1]["step"] == 70 and all(0 < line["loss"] < 1 for line in log)  # 1 is a mean as the prediction
    assert "started from" not in quickstart(out)  # again: nothing is trained anew, nothing breaks


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Of the encoder that comes with melmask and its baselines, by probe, task and features."""
    folder = tmp_path_factory.mktemp("scores")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MELMASK_CACHE", str(folder / "cache"))
        tables = [table for table in make_demo(folder / "corpus") if table.stem in TASKS]
        results = melmask.evaluate("tiny", tables, probes=["ridge", "knn"], test_folds=["4", "5"])
    return {(result.probe, result.task, result.features): result.score for result in results}


CASES = list(product(("ridge", "knn"), TASKS, ("untrained", "log-mel statistics")))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("probe", "task", "baseline"), CASES)
def test_the_encoder_that_comes_with_melmask_is_above_its_baselines_on_the_built_in_corpus(
    scores, probe, task, baseline
):
    assert scores[probe, task, "encoder"] > scores[probe, task, baseline]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_table_of_ones_own_goes_the_same_way(recordings, tmp_path, micro):
    quickstart(tmp_path / "out", str(recordings), **micro)
    text = (tmp_path / "out" / "report" / "report.html").read_text()
    assert all(f'<section id="{name}">' in text for name in ("evaluations", "map", "comparisons", "masks"))
    on_the_map = text[text.index('<section id="map">') :].partition("</section>")[0]
    assert "24 of 24 recordings are shown." in on_the_map and on_the_map.count("data:audio/mpeg") == 24
    assert "started from micro.safetensors" in text
    assert {line["task"] for line in results_in(tmp_path / "out" / "adapted-dwm" / "results.jsonl")} == {"chirps"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_folder_of_ones_own_goes_the_same_way_without_labels(recordings, tmp_path, micro):
    (tmp_path / "my sounds").mkdir()
    for path in recordings.parent.glob("*.wav"):
        (tmp_path / "my sounds" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "my sounds" / "broken.wav").write_text("no audio")
    printed = quickstart(tmp_path / "an out", str(tmp_path / "my sounds"), **micro)
    assert "1 rejected" in printed and "$ melmask evaluate" not in printed
    assert (tmp_path / "an out" / "store" / "rejected.csv").read_text().count("broken.wav") == 1
    text = (tmp_path / "an out" / "report" / "report.html").read_text()
    assert "24 of 24 recordings are shown." in text and '<section id="masks">' in text
    assert '<section id="comparisons">' not in text
