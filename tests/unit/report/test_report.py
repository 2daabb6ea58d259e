"""The report page: it is complete, names what is missing, agrees with the files, and is self-contained."""

import csv
import dataclasses
import json
import re
import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro

from evaluations import result
from melmask.data.store import Store
from melmask.evaluation.results import RESULTS, append_results, read_results
from melmask.files import read_tensors
from melmask.masking.laws import guidance
from melmask.report.report import report
from melmask.study import runs
from melmask.train.loop import pretrain
from melmask.train.recipe import RECIPES, Recipe
from melmask.train.run_folder import CHECKPOINT, DATA
from melmask.types import PatchGrid

SECTIONS = ("evaluations", "recipes", "training", "masks", "predictions", "provenance")
STEPS = {"steps": 6, "log_every": 2, "batch_size": 4}


@pytest.fixture(scope="module", autouse=True)
def one_thread_from_the_start() -> Iterator[None]:
    """The runs and the page are made before a fixture of each test could see to it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(store: Store, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two short runs of different frameworks with evaluations, one of them with an awkward name and task."""
    folder = tmp_path_factory.mktemp("runs")
    made = [folder / "a <b>&'run $1_x$", folder / "plain"]
    recipes = [("micro-msm-mae", {"strategy": "dwm"}), ("micro-m2d", {"strategy": "sgim"})]
    for run, (name, changes), gain in zip(made, recipes, (0.0, 0.123), strict=True):
        assert pretrain(dataclasses.replace(RECIPES[name], **STEPS, **changes), store, run)
        append_results(run, [result("encoder", 0.1), result("encoder", 0.6123 + gain), result("untrained", 0.5055)])
        append_results(run, [result("log-mel statistics", 0.58)])
        append_results(run, [result("encoder", 0.3, task="<script>alert(1)", metric="mAP", num_classes=7)])
    return made


@pytest.fixture(scope="module")
def page(trained: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report(trained, tmp_path_factory.mktemp("report") / "out")


def test_the_page_has_every_section_and_needs_nothing_else(page: Path) -> None:
    text = page.read_text()
    for section in SECTIONS:
        assert f'<section id="{section}">' in text and f'href="#{section}"' in text
    sources = re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', text) + re.findall(r"url\(([^)]*)\)", text)
    inside = ("data:image/png;base64,", "data:audio/mpeg;base64,", "#")
    assert sources and all(source.startswith(inside) for source in sources)
    assert "http://" not in text and "https://" not in text and "@import" not in text


def test_figures_are_files_beside_the_page_and_in_it(page: Path) -> None:
    written = {path.name for path in page.parent.glob("*.png")}
    assert {"evaluations.png", "training.png", "masks-by-band.png", "masks-plain.png", "errors-plain.png"} <= written
    assert sum(name.startswith("reconstructions-") for name in written) == 1  # of MSM-MAE only
    text = page.read_text()
    assert text.count("<img ") == len(written) and text.count("<figcaption>") == len(written)


def test_the_page_is_made_for_phones_dark_rooms_and_ears(page: Path, trained: list[Path]) -> None:
    text = page.read_text()
    light = re.findall(r'<img src="data:image/png;base64,([^"]*)"', text)
    dark = re.findall(r'media="\(prefers-color-scheme: dark\)" srcset="data:image/png;base64,([^"]*)"', text)
    assert len(light) == len(dark) > 4 and not set(light) & set(dark)
    assert re.search(r"@media \(prefers-color-scheme: dark\) \{ :root", text)
    assert '<td class="number" data-label="chirps, logistic">' in text  # a card of a narrow screen names its scores
    heard = re.findall(r"<li><span>([^<]*), from ([\d.]+) s</span> <audio controls", text)
    assert len(heard) == 2 * 3 and all(name.endswith(".wav") for name, _ in heard)
    for run in trained:
        hardware = json.loads((run / "machine.json").read_text())["hardware"]
        assert hardware and text.count(f">{hardware}</td>") == 2
    assert len(re.findall(r">[\d.]+ M parameters</td>", text)) == 4
    assert len(re.findall(r'data-label="duration">\d+ s</td>', text)) == 2


@pytest.mark.slow
def test_scores_of_kept_encoders_are_a_curve(trained: list[Path], tmp_path: Path) -> None:
    run = tmp_path / "plain"
    shutil.copytree(trained[1], run)
    append_results(run, [result("encoder", 0.2, step=2), result("encoder", 0.4, step=4)])
    text = report([run, trained[0]], tmp_path / "out").read_text()
    assert (tmp_path / "out" / "scores-over-steps.png").exists() and "were kept along the runs" in text
    assert "20.0" not in text.split("<table>")[1].split("</table>")[0]


def test_names_are_escaped(page: Path) -> None:
    text = page.read_text()
    assert "<script" not in text and "&lt;script&gt;alert(1)" in text
    assert "a <b>&" not in text and "a &lt;b&gt;&amp;&#39;run $1_x$" in text


def test_numbers_are_those_of_the_results(page: Path, trained: list[Path]) -> None:
    table = page.read_text().split("<table>")[1].split("</table>")[0]
    shown = re.findall(r"<b>([\d.]+)</b><small>([\d.]+) to ([\d.]+)", table)
    newest = [result for run in trained for result in read_results(run)]
    assert len(newest) == 8  # of ten lines, one in each run was replaced
    expected = {tuple(f"{100 * value:.1f}" for value in (r.score, r.low, r.high)) for r in newest}
    assert set(shown) == expected and len(shown) == 6  # baselines that agree stand there once
    assert "10.0" not in {score for score, _, _ in shown}


def test_csv_and_markdown_hold_the_same_numbers(page: Path, trained: list[Path]) -> None:
    with (page.parent / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    newest = [result for run in trained for result in read_results(run)]
    assert [float(row["score"]) for row in rows] == [r.score for r in newest]
    assert {row["run"] for row in rows} == {run.name for run in trained}
    text = (page.parent / "results.md").read_text()
    assert "**73.5** [68.5 to 78.5]" in text and "61.2 [56.2 to 66.2]" in text
    assert len({line.count("|") for line in text.splitlines()}) == 1


def test_the_summary_names_the_highest_score_and_what_was_not_compared(page: Path) -> None:
    text = page.read_text()
    assert "plain reaches 73.5 % accuracy (95 % interval 68.5 to 78.5), 12.3 points above a" in text
    assert "overlap of" not in text and "23.0 points above the untrained encoder (50.5 %; not compared" in text
    assert "plain have equal scores" in text and "the highest scores are equal in 1" in text  # the other task is a tie


def test_mean_guidance_is_that_of_all_steps(page: Path, trained: list[Path]) -> None:
    run = runs.read_runs(trained)[0]
    hints = run.recipe.hints(PatchGrid(5, 6))
    expected = sum(guidance(30, 23, hints(step / 6)) for step in range(6)) / 6
    assert run.mean_guidance == pytest.approx(expected) and 0 < expected < 1
    assert f">{expected:.3f}</td>" in page.read_text()


def test_schedules_past_losses_and_the_cost_of_masks_are_stated(store: Store, tmp_path: Path) -> None:
    recipes = {
        "hard": {"guidance": ((0.0, 0.1), (1.0, 0.9))},
        "freq_profile": {"exponent_power": 2.0},
    }
    for strategy, changes in recipes.items():
        recipe = dataclasses.replace(RECIPES["micro-m2d"], **STEPS, strategy=strategy, **changes)
        assert pretrain(recipe, store, tmp_path / strategy)
    page = report([tmp_path / strategy for strategy in recipes], tmp_path / "out")
    text = page.read_text()
    assert "past losses" in text and "guided by the losses recorded up to the last checkpoint" in text
    assert "set so that λ = 0.1 at 0 %, 0.9 at 100 % of the run" in text
    assert "freq_profile, exponent rising as progress^2" in text and ">no hints</td>" in text
    assert {"masks-hard.png", "masks-freq_profile.png"} <= {path.name for path in page.parent.glob("*.png")}
    for run in runs.read_runs([tmp_path / strategy for strategy in recipes]):
        share = statistics.median(line["mask_share"] for line in run.log)
        assert f">{100 * share:.2g} %</td>" in text
    remembered = read_tensors(tmp_path / "hard" / CHECKPOINT)[0]["masking.loss"]
    masker = runs.read_runs([tmp_path / "hard"])[0].masker
    assert torch.equal(masker.state()["loss"].nan_to_num(), remembered.nan_to_num()) and remembered.isfinite().any()


def test_what_is_missing_is_stated_with_its_remedy(trained: list[Path], tmp_path: Path) -> None:
    run, gone = tmp_path / "left", tmp_path / "gone"
    shutil.copytree(trained[1], run)
    for name in (RESULTS, "checkpoint.safetensors"):
        (run / name).unlink()
    (run / DATA).write_text(json.dumps({**json.loads((run / DATA).read_text()), "store": str(gone)}))
    lines = (run / "log.jsonl").read_text().splitlines()
    (run / "log.jsonl").write_text("\n".join([*lines[:2], lines[2][:20]]))
    with pytest.warns(UserWarning, match=r"log\.jsonl: line 3 is damaged and was skipped; it stays in the file"):
        pages = [report([run], tmp_path / "out").read_bytes() for _ in range(2)]
    assert pages[0] == pages[1]
    text = pages[0].decode()
    assert f"the store {gone} no longer exists" in text and f"melmask prepare SOURCES --out {gone}" in text
    assert f"melmask evaluate {run} --task TASK.csv" in text and "No trained encoder has been evaluated yet." in text
    assert "left is not complete" in text and "--resume" in text
    assert all(f'<section id="{section}">' in text for section in SECTIONS)
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"training.png"}


def test_a_store_with_other_data_is_not_used(trained: list[Path], tmp_path: Path) -> None:
    shutil.copytree(trained[1], tmp_path / "run")
    data = json.loads((tmp_path / "run" / DATA).read_text())
    (tmp_path / "run" / DATA).write_text(json.dumps({**data, "fingerprint": "other"}))
    run = runs.read_runs([tmp_path / "run"])[0]
    assert run.store is None and "holds other data" in run.store_problem


def test_folders_that_make_no_report_are_refused(trained: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one run"):
        report([], tmp_path)
    with pytest.raises(ValueError, match="more than once"):
        report([trained[0], trained[0]], tmp_path)
    with pytest.raises(ValueError, match=r"not a run folder.*recipe\.json"):
        report([tmp_path], tmp_path)


@pytest.mark.parametrize(
    ("name", "options"),
    [("micro-m2d", {"ema_start": 0.9, "standardise": "batch"}), ("tiny-msm-mae", {}), ("base-m2d", {"ema_end": 0.99})],
)
@pytest.mark.parametrize(
    "schedule",
    [{"hint_constant": 0.5}, {"guidance": ((0.0, 0.1), (1.0, 0.5)), "hint_strategies": "all", "exponent_power": 2.0}],
)
def test_the_command_of_a_run_makes_its_recipe(name: str, options: dict[str, Any], schedule: dict[str, Any]) -> None:
    changes = {
        "strategy": "dwm", "strategy_options": {"statistic": "variance"}, "steps": 7, "epochs": 0.0,
        "exclude": ("esc50:5", "fsdd"), "framework_options": options, "patch_shape": (16, 8), **schedule,
    }  # fmt: skip
    recipe = dataclasses.replace(RECIPES[name], **changes)
    nearest, arguments = runs.nearest_recipe(recipe)
    assert tyro.cli(Recipe, default=RECIPES[nearest], args=arguments) == recipe
    assert runs.nearest_recipe(RECIPES[name]) == (name, [])
