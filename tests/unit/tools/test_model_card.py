"""The model card: it is what its figures and template give, about the very encoder that is shipped."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from model_card import __main__ as model_card
from model_card import measure, ship
from model_card.card import CREDITS, HERE, RESULTS, SOURCES, TEMPLATE, TRAINING, card, summary
from model_card.measure import PROBES, TASKS, Figures, JudgeTask, read_figures

from melmask.encoders.registry import load
from melmask.files import read_tensors
from melmask.nn import shipped
from melmask.nn.encoder_file import EncoderFile
from melmask.train import loop
from melmask.train.checkpoint import MODEL
from melmask.train.recipe import RECIPES
from melmask.train.run_folder import CHECKPOINT

CARD = shipped.WEIGHTS / model_card.CARD
README = Path(__file__).parents[3] / "README.md"
FEATURES = ("encoder", "untrained", "log-mel statistics")
CHIRPS = (JudgeTask("chirps", "3", "rising and falling chirps"),)


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the card is made of but figures, and one task of the tests' recordings."""
    folder = tmp_path / "card"
    folder.mkdir()
    for name in (TEMPLATE, SOURCES, CREDITS):
        shutil.copy(HERE / name, folder)
    monkeypatch.setattr(measure, "TASKS", CHIRPS)
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path / "cache"))
    return folder


def rows_of(text: str, start: str) -> list[list[str]]:
    """The cells of the table whose header starts so, without head and rule."""
    lines = text[text.index(f"| {start}") :].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_the_card_is_what_its_figures_and_template_give():
    assert CARD.read_text(encoding="utf-8") == card(), "write it anew: make model-card"


def test_the_card_is_about_the_encoder_that_is_shipped():
    file, figures = shipped.WEIGHTS / shipped.SHIPPED["tiny"], read_figures(HERE / RESULTS)
    assert file.exists() == (HERE / TRAINING).exists() == bool(figures), "make tiny-encoder and make model-card"
    if file.exists():
        assert file.stat().st_size <= 12e6
        assert {one.identity for one in figures} == {load("shipped:tiny").identity}, "make model-card"
        cases = [(task.name, task.fold, probe) for task in TASKS for probe in PROBES]
        assert [(one.task, one.fold, one.probe) for one in figures] == cases


def test_the_readme_shows_the_cards_figures():
    """The output of evaluate on ESC-50, whose sentences once were of another measurement than its table."""
    readme = README.read_text(encoding="utf-8")
    printed = readme[readme.index("$ melmask evaluate tiny") :].partition("An encoder is called better")[0]
    figures = [one for one in read_figures(HERE / RESULTS) if one.task == "esc50"]
    cells = [[cell.strip() for cell in row.split("│")[2:6]] for row in printed.splitlines() if row.startswith("│")]
    shown = [(probe, score, interval) for probe, _, score, interval in cells]
    scores = [(one.probe, *(100 * value for value in one.scores[of])) for of in FEATURES for one in figures]
    assert shown == [(probe, f"{value:.1f}", f"{low:.1f} to {high:.1f}") for probe, value, low, high in scores]
    for of in FEATURES[1:]:
        gaps = ", ".join(f"{one.probe} ({100 * one.differences[of][0]:+.1f} points)" for one in figures)
        assert f"tiny is better on esc50 with {gaps}." in printed


def test_every_source_is_named_with_its_commit_licence_and_attribution():
    rows = rows_of(card(), "source | repository")
    assert len(rows) == 23 and all(re.fullmatch(r"[\w.-]+/[\w.-]+ @ [0-9a-f]{10}", row[1]) for row in rows)
    for row in rows:
        assert row[4] and (row[5] or row[4].startswith(("CC0", "public domain"))), row
    assert len(rows_of(card(), "source | author")) > 100
    assert not re.search(r"/work|shared/", card())


def test_figures_are_measured_kept_and_written(inputs, shipped_tiny, recordings, tmp_path, monkeypatch, capsys):
    options = ["--audio", str(recordings.parent), "--work", str(tmp_path / "work"), "--card", str(inputs)]
    model_card.main(options)
    figures = read_figures(inputs / RESULTS)
    assert [(one.task, one.fold, one.probe) for one in figures] == [("chirps", "3", probe) for probe in PROBES]
    for one in figures:
        assert set(one.scores) == {"encoder", "untrained", "log-mel statistics"} == {"encoder", *one.differences}
        for name, (value, low, high) in one.differences.items():
            assert value == pytest.approx(one.scores["encoder"][0] - one.scores[name][0], abs=2e-4)
            assert low <= value <= high
    text = (shipped_tiny.parent / model_card.CARD).read_text(encoding="utf-8")
    row = rows_of(text, "task | probe")[0]
    value, low, high = (100 * number for number in figures[0].scores["encoder"])
    assert row[:3] == ["chirps", "logistic", f"**{value:.1f}** ({low:.1f}–{high:.1f})"]
    assert not (tmp_path / "work").exists() and "measured before" not in capsys.readouterr().out
    model_card.main(options)
    assert "measured before too: no score differs by more than 0.00 points" in capsys.readouterr().out


def test_a_call_that_was_stopped_resumes_with_the_next_task(inputs, shipped_tiny, recordings, tmp_path, monkeypatch):
    tasks, calls = (*CHIRPS, JudgeTask("chirps", "2", "the same")), []
    evaluate = measure.evaluate_table

    def stopped(named, table, settings, **given):
        calls.append(settings.test_folds)
        if calls == [("3",), ("2",)]:
            raise KeyboardInterrupt
        return evaluate(named, table, settings, **given)

    monkeypatch.setattr(measure, "evaluate_table", stopped)
    with pytest.raises(KeyboardInterrupt):
        list(measure.measure("tiny", recordings.parent, tmp_path / "work", tasks))
    figures = list(measure.measure("tiny", recordings.parent, tmp_path / "work", tasks))
    assert calls == [("3",), ("2",), ("2",)] and [one.fold for one in figures] == ["3"] * 3 + ["2"] * 3


def test_without_recordings_it_says_what_it_needs(inputs, shipped_tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "TASKS", TASKS)
    with pytest.raises(
        SystemExit, match=r"esc50\.csv is not there \(6 of 6 .*make model-card AUDIO=folder.*path,label"
    ):
        model_card.main(["--audio", str(tmp_path), "--card", str(inputs)])


def test_an_encoder_is_shipped_in_half_precision_with_what_is_said_of_its_run(inputs, store, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path / "weights")
    loop.pretrain(RECIPES["micro-msm-mae"], store, tmp_path / "run")
    command = "melmask pretrain store --recipe micro-msm-mae --out run"
    stated = ["--layers", "1", "2", "--pooling", "mean+max", "--command", command]
    ship.main([str(tmp_path / "run"), *stated, "--card", str(inputs)])
    written, run = (
        EncoderFile.load(tmp_path / "weights" / "tiny.safetensors"),
        EncoderFile.load(tmp_path / "run" / "encoder.safetensors"),
    )
    assert (written.layers, written.pooling, written.front_end) == ((1, 2), "mean+max", run.front_end)
    assert load("tiny").settings.pooling == "mean+max"
    [of_run] = json.loads((inputs / TRAINING).read_text())["runs"]
    assert of_run["steps"] == 100 and of_run["recipe"]["batch_size"] == 16 and of_run["init"] == ""
    text = card(inputs, CHIRPS)
    assert command in text and "100 steps of 16 crops in 0.0 hours, from random weights, seed 0." in text
    assert "layers 1, 2, pooling mean+max" in text and "| batch_size | 16 |" in text
    assert "Not measured yet" in text
    monkeypatch.setattr(ship, "MAX_MEGABYTES", 0.01)
    with pytest.raises(ValueError, match=r"takes 0\.1 MB, more than the 0\.01 MB"):
        ship.main([str(tmp_path / "run"), "--card", str(inputs)])
    assert not (tmp_path / "weights" / "tiny.safetensors").exists()


def test_the_mean_of_runs_is_shipped_with_what_is_said_of_each(inputs, store, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path / "weights")
    recipe = dataclasses.replace(RECIPES["micro-msm-mae"], steps=4)
    loop.pretrain(recipe, store, tmp_path / "first")
    ship.main([str(tmp_path / "first"), "--command", "first command", "--card", str(inputs)])
    for run, seed in (("second", 1), ("third", 2)):
        loop.pretrain(dataclasses.replace(recipe, seed=seed), store, tmp_path / run, init=str(tmp_path / "first"))
    folders = [tmp_path / run for run in ("first", "second", "third")]
    files = [EncoderFile.load(folder / "encoder.safetensors") for folder in folders]
    commands = ["--command", "second command", "third command"]
    given = ["tiny", str(folders[1]), str(folders[2]), "--shares", "0.5", "0.3", "0.2", *commands]
    ship.main([*given, "--whiten-on", str(store.folder), "--card", str(inputs)])
    written = EncoderFile.load(tmp_path / "weights" / "tiny.safetensors")
    for name, value in written.encoder.state_dict().items():
        parts = [file.encoder.state_dict()[name] for file in files]
        assert torch.allclose(value, 0.5 * parts[0] + 0.3 * parts[1] + 0.2 * parts[2], atol=2e-3), name
    assert written.whitening is not None
    states = [read_tensors(folder / CHECKPOINT)[0] for folder in folders]
    assert (
        written.beside
        and written.beside.weights
        and all(name.startswith("decoder.") for name in written.beside.weights)
    )
    for name, value in written.beside.weights.items():
        parts = [state[f"{MODEL}{name}"] for state in states]
        assert torch.allclose(value, 0.5 * parts[0] + 0.3 * parts[1] + 0.2 * parts[2], atol=2e-3), name
    text = card(inputs, CHIRPS)
    assert "mean of those of 3 runs, in shares of 0.5, 0.3, 0.2 in turn" in text
    assert "Beside the encoder lies the decoder that was trained with it, the mean of those of the same runs" in text
    assert all(f"{word} command" in text for word in ("first", "second", "third"))
    assert "Run 2: 4 steps of 16 crops in 0.0 hours, started from first, seed 1." in text
    assert "| setting | run 1 | run 2 | run 3 |" in text and "| seed | 0 | 1 | 2 |" in text
    ship.main(["tiny", str(folders[1]), str(folders[2]), "--shares", "0", "0.5", "0.5", "--card", str(inputs)])
    assert "mean of those of 2 runs of these 5 (4, 5), in shares of 0.5, 0.5 in turn" in card(inputs, CHIRPS)
    ship.main(["tiny", str(folders[1]), "--shares", "0", "1", "--card", str(inputs)])
    assert "The weights are those of run 6." in card(inputs, CHIRPS)
    with pytest.raises(ValueError, match="2 runs need as many shares, which add up to 1"):
        ship.mean_of(files[:2], [0.5, 0.6])


def test_decoders_of_other_forms_are_not_shipped(inputs, store, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path / "weights")
    recipe = dataclasses.replace(RECIPES["micro-msm-mae"], steps=1)
    loop.pretrain(recipe, store, tmp_path / "one")
    loop.pretrain(dataclasses.replace(recipe, decoder_depth=2), store, tmp_path / "other")
    ship.main([str(tmp_path / "one"), str(tmp_path / "other"), "--card", str(inputs)])
    assert EncoderFile.load(tmp_path / "weights" / "tiny.safetensors").beside is None
    assert "without a decoder, as the runs kept none or several forms of it" in capsys.readouterr().out
    assert "Beside the encoder" not in card(inputs, CHIRPS)


def test_the_target_of_m2d_is_not_shipped(store, tmp_path):
    loop.pretrain(dataclasses.replace(RECIPES["micro-m2d"], steps=1), store, tmp_path / "run")
    beside = ship.trained_with(str(tmp_path / "run"))
    assert {name.partition(".")[0] for name in beside.weights} == {"predictor"} and beside.framework == "m2d"


def test_runs_of_other_forms_have_no_mean(store, tmp_path):
    recipe = dataclasses.replace(RECIPES["micro-msm-mae"], steps=1)
    loop.pretrain(recipe, store, tmp_path / "one")
    loop.pretrain(dataclasses.replace(recipe, patch_shape=(8, 16)), store, tmp_path / "other")
    files = [EncoderFile.load(tmp_path / run / "encoder.safetensors") for run in ("one", "other")]
    with pytest.raises(ValueError, match="differ in size, front end or crops"):
        ship.mean_of(files, [0.5, 0.5])


def test_the_summary_names_what_is_below_a_baseline():
    def figures(probe: str, low: float, value: float) -> Figures:
        gaps = {"untrained": [0.2, 0.1, 0.3], "log-mel statistics": [value, low, 0.3]}
        return Figures("birds", "5", probe, "", "", "accuracy", 10, {}, gaps, [])

    text = summary([figures("logistic", 0.1, 0.2), figures("ridge", -0.1, 0.1), figures("knn", -0.3, -0.1)])
    assert "above both baselines in 2 of 3 cases (not on birds with knn)" in text
    assert text.endswith("better than both on: 1 of 1 with logistic, 0 of 1 with ridge, 0 of 1 with knn.")
