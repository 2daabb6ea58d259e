"""The command pretrain: recipes by name, strategy and variant, the dry run, and what it needs."""

import re

import pytest
import torch

from melmask.cli.main import main
from melmask.encoders.registry import load
from melmask.files import read_tensors
from melmask.train.initial import STARTS
from melmask.train.paper import SOURCES, named_recipe
from melmask.train.recipe import RECIPES, Recipe
from melmask.train.run_folder import CHECKPOINT

SMALL = [
    "--size",
    "micro",
    "--batch-size",
    "4",
    "--steps",
    "2",
    "--epochs",
    "0",
    "--crop-frames",
    "96",
    "--decoder-dim",
    "32",
    "--decoder-depth",
    "1",
    "--decoder-heads",
    "2",
]


def printed(capsys, monkeypatch, *arguments: str) -> str:
    monkeypatch.setattr("melmask.cli.pretrain.console.width", 260)
    main(["pretrain", *arguments])
    return capsys.readouterr().out


def test_a_dry_run_prints_every_setting_with_its_source_and_the_cost_and_makes_nothing(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    shown = printed(capsys, monkeypatch, "--recipe", "paper-m2d", "--strategy", "dwm", "--dry-run", "--out", "run")
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if line.startswith("│")]
    settings = {row[0]: row[1:] for row in cells if len(row) == 4 and row[0] in SOURCES}
    assert set(settings) == set(SOURCES)
    assert {row[1] for row in settings.values()} == {"paper", "published default", "ours"}
    assert settings["strategy"][0] == "dwm" and settings["epochs"][:2] == ["300", "paper"]
    options = "ema_start = 0.99995, ema_end = 0.99999, standardise = patch, target = blocks"
    assert settings["framework_options"][:2] == [options, "published default"]
    assert settings["strategy_options"][0].startswith("statistic = mad, exponent = 1, ")
    assert "2,042,985 clips of 10 s" in shown and "299,100 steps of 2,048" in re.sub(r"\s+", " ", shown)
    assert re.search(r"a100-80gb +│ +[\d.]+ days", shown) and "--accumulate" in shown
    assert not list(tmp_path.iterdir())


def test_a_dry_run_on_a_store_counts_its_clips_and_marks_what_is_changed(capsys, monkeypatch, store):
    options = ("--recipe", "paper-msm-mae", "--strategy", "sgim", "--variant", "k4", "--batch-size", "8")
    shown = printed(capsys, monkeypatch, str(store.folder), *options, "--dry-run")
    assert "paper-msm-mae, sgim masking, variant k4" in shown and f"on {len(store):,} clips" in shown
    assert re.search(r"batch_size +│ +8 +│ +yours +│ +paper-msm-mae has 2048", shown)
    assert re.search(r"hint_power +│ +4 +│ +paper +│ +ablation k4", shown)


@pytest.mark.parametrize("variant", [(), ("--variant", "constant-0.5")])
def test_a_run_is_made_of_the_recipe_strategy_and_variant_that_are_named(variant, store, tmp_path):
    strategy = "sgim" if variant else "ibm"
    options = ["--recipe", "paper-m2d", "--strategy", strategy, *variant, *SMALL]
    main(["pretrain", str(store.folder), "--out", str(tmp_path / "run"), *options])
    made, named = Recipe.load(tmp_path / "run" / "recipe.json"), named_recipe("paper-m2d", strategy, *variant[1:])
    for setting in (
        "strategy",
        "hint_shape",
        "hint_strategies",
        "hint_constant",
        "framework_options",
        "crops_per_clip",
    ):
        assert getattr(made, setting) == getattr(named, setting)
    assert made.size == "micro" and made.hint_constant == (0.5 if variant else None)


@pytest.mark.parametrize(("arguments", "message"), [
    ((), "pretrain needs a store and a folder for the run"),
    (("store",), "pretrain needs a store and a folder for the run"),
    (("--recipe", "paper-m2d", "--strategy", "ibm", "--variant", "k4", "--dry-run"), "k4 is a variant of dwm and sgim"),
    (("--recipe", "base-m2d", "--variant", "k4", "--dry-run"), "not of base-m2d"),
    (("--variant", "k4", "--dry-run"), "not of tiny-msm-mae"),
])  # fmt: skip
def test_what_is_missing_or_contradicts_itself_is_named(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["pretrain", *arguments])
    assert exit_.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("recipe", "init", "start"), [("quick-msm-mae", None, "tiny"), ("quick-msm-mae", "random", "")]
)
def test_quick_starts_from_the_encoder_that_comes_with_melmask_unless_told_otherwise(
    recipe, init, start, store, tmp_path, capsys
):
    assert STARTS == {"quick-msm-mae": "tiny"}
    small = ["--steps", "1", "--batch-size", "2", "--precision", "float32", "--learning-rate", "1e-9"]
    options = [] if init is None else ["--init", init]
    main(["pretrain", str(store.folder), "--recipe", recipe, *small, *options, "--out", str(tmp_path / "run")])
    shown = capsys.readouterr().out
    assert ("encoder, decoder from tiny" in shown) == bool(start)
    weights = read_tensors(tmp_path / "run" / CHECKPOINT)[0]["model.encoder.blocks.0.attn.qkv.weight"]
    tiny = load("tiny").encoder.blocks[0].attn.qkv.weight
    assert torch.allclose(weights, tiny, atol=1e-6) == bool(start)
    main(["pretrain", str(store.folder), "--recipe", recipe, *small, "--resume", "--out", str(tmp_path / "run")])


def test_every_start_has_the_form_of_its_recipe():
    for name, start in STARTS.items():
        recipe, encoder = RECIPES[name], load(start)
        assert (recipe.encoder_size, recipe.patch_shape) == (encoder.encoder.size, encoder.encoder.patch_shape)
