"""Recipes: named defaults that hold, settings checked, nothing lost on disk."""

import dataclasses

import pytest

from melmask.train.recipe import RECIPES, Recipe
from melmask.train.schedule import learning_rate


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_the_disk(name, tmp_path):
    recipe = dataclasses.replace(
        RECIPES[name], strategy="dwm", strategy_options={"statistic": "variance"}, exclude=("a:1",)
    )
    recipe.save(tmp_path / "recipe.json")
    assert Recipe.load(tmp_path / "recipe.json") == recipe


def test_the_papers_settings_are_the_default():
    recipe = RECIPES["base-m2d"]
    assert (recipe.mask_ratio, recipe.ema, recipe.epochs, recipe.hint_power) == (0.7, (0.99995, 0.99999), 300, 2)
    assert recipe.hint_start == pytest.approx(50 / 300) and recipe.warmup == pytest.approx(20 / 300)
    assert recipe.learning_rate == pytest.approx(3e-4 * recipe.batch_size / 256)
    assert (recipe.decoder_dim, recipe.decoder_depth, recipe.decoder_heads) == (512, 8, 16)
    assert RECIPES["base-msm-mae"].mask_ratio == 0.75 and RECIPES["base-msm-mae"].decoder_depth == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": "huge"}, "no size 'huge'"),
        ({"epochs": 3.0}, "one of steps and epochs"),
        ({"steps": 0}, "one of steps and epochs"),
        ({"batch_size": 0}, "batch_size must be positive"),
        ({"strategy": "dvm"}, "no masking strategy 'dvm'; there are: .*dwm"),
        ({"strategy": "dwm", "strategy_options": {"side": 3}}, "dwm has no option 'side'"),
        ({"hint_constant": 1.5}, "constant hint ratio"),
        ({"warmup": 1.0}, "warmup"),
        ({"ema": (0.9, 1.1)}, "ema"),
        ({"crop_frames": 8}, "shorter than one patch"),
        ({"decoder_heads": 5}, "multiple of"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(RECIPES["micro-m2d"], **changes)


def test_a_crop_too_short_for_the_ratio_is_an_error():
    recipe = dataclasses.replace(RECIPES["micro-m2d"], crop_frames=16, mask_ratio=0.95)
    with pytest.raises(ValueError, match="leaves 0 visible"):
        recipe.grid(80)


def test_a_file_that_is_no_recipe_is_named(tmp_path):
    (tmp_path / "recipe.json").write_text('{"framework": "m2d"}')
    with pytest.raises(ValueError, match=r"recipe\.json is no recipe"):
        Recipe.load(tmp_path / "recipe.json")


def test_epochs_are_counted_in_crops():
    recipe = dataclasses.replace(RECIPES["micro-m2d"], steps=0, epochs=3.0, batch_size=10)
    assert recipe.num_steps(crops_per_epoch=100) == 30
    assert RECIPES["micro-m2d"].num_steps(crops_per_epoch=100) == 100


def test_the_learning_rate_rises_linearly_and_falls_to_zero():
    rates = [learning_rate(step, 200, 2e-3, 0.1) for step in range(200)]
    assert max(rates) == rates[19] == 2e-3
    assert rates[:20] == pytest.approx([2e-3 * (step + 1) / 20 for step in range(20)])
    assert rates[20:] == sorted(rates[20:], reverse=True) and rates[-1] < 1e-6
