"""Recipes: defaults, checks of settings, and files of this and earlier versions."""

import dataclasses
import json
import math

import pytest

from melmask.frameworks import M2D, make_options
from melmask.masking.laws import guidance
from melmask.train.optimiser import learning_rate
from melmask.train.recipe import RECIPES, Recipe
from melmask.types import PatchGrid

MSM_MAE, BY_EMA = {"framework": "msm-mae", "framework_options": {}}, {"strategy_options": {"encoder": "ema"}}

# What the version before framework_options wrote.
OLD = """{
  "framework": "%s", "size": "micro", "patch_shape": [16, 16], "crop_frames": 96, "decoder_dim": 32,
  "decoder_depth": 1, "decoder_heads": 2, "strategy": "hard", "strategy_options": {"exponent": 2.0}, "mask_ratio": %s,
  "hint_strategies": "informed", "hint_shape": "power", "hint_power": 2.0, "hint_start": 0.16666666666666666,
  "hint_constant": null, "guidance": [], "exponent_power": null, "steps": 100, "epochs": 0.0, "batch_size": 16,
  "accumulate": 1, "learning_rate": 0.001, "warmup": 0.1, "weight_decay": 0.05, "betas": [0.9, 0.95],
  "grad_clip": 3.0, "ema": [0.99, 0.999], "standardise": "%s", "checkpoint_activations": false,
  "precision": "float32", "exclude": [], "seed": 0, "log_every": 5, "save_every": 50
}
"""


@pytest.mark.parametrize("name", RECIPES)
def test_a_saved_recipe_is_loaded(name, tmp_path):
    recipe = dataclasses.replace(
        RECIPES[name], strategy="dwm", strategy_options={"statistic": "variance"}, exclude=("a:1",)
    )
    recipe.save(tmp_path / "recipe.json")
    assert Recipe.load(tmp_path / "recipe.json") == recipe


def test_schedules_are_saved_and_recipes_from_before_them_are_loaded(tmp_path):
    recipe = dataclasses.replace(
        RECIPES["micro-m2d"],
        strategy="hard",
        guidance=((0.0, 0.1), (1.0, 0.5)),
        exponent_power=2.0,
        hint_shape="cosine",
    )
    recipe.save(tmp_path / "recipe.json")
    assert Recipe.load(tmp_path / "recipe.json") == recipe
    saved = json.loads((tmp_path / "recipe.json").read_text())
    for name in ("guidance", "exponent_power", "hint_shape", "hint_strategies", "crops_per_clip"):
        del saved[name]
    (tmp_path / "recipe.json").write_text(json.dumps(saved))
    before = dataclasses.replace(recipe, guidance=(), exponent_power=None, hint_shape="power")
    assert Recipe.load(tmp_path / "recipe.json") == before


def test_a_run_of_the_base_recipe_from_before_its_present_target_and_epochs_keeps_its_own(tmp_path):
    RECIPES["base-m2d"].save(tmp_path / "recipe.json")
    saved = json.loads((tmp_path / "recipe.json").read_text())
    del saved["crops_per_clip"]
    saved["framework_options"] = {}
    (tmp_path / "recipe.json").write_text(json.dumps(saved))
    loaded = Recipe.load(tmp_path / "recipe.json")
    assert make_options("m2d", loaded.framework_options).target == "encoder" and loaded.crops_per_clip == 0
    assert loaded != RECIPES["base-m2d"]


@pytest.mark.parametrize(
    ("strategy", "hint_strategies", "takes"),
    [("dwm", "informed", True), ("ibm", "informed", False), ("ibm", "all", True)],
)
def test_hints_are_for_informed_strategies_unless_asked_for_all(strategy, hint_strategies, takes):
    recipe = dataclasses.replace(RECIPES["micro-m2d"], strategy=strategy, hint_strategies=hint_strategies)
    assert recipe.takes_hints == takes
    assert [recipe.hints(PatchGrid(5, 6))(progress) for progress in (0.0, 0.5)] == ([1.0, 0.75] if takes else [0, 0])


def test_a_guidance_is_reached_at_the_recipes_mask_ratio():
    recipe = dataclasses.replace(RECIPES["micro-m2d"], strategy="dwm", guidance=((0.0, 0.1), (1.0, 0.9)))
    hints = recipe.hints(PatchGrid(5, 38))
    for progress in (0.0, 0.25, 0.5, 1.0):
        assert guidance(190, 133, hints(progress)) == pytest.approx(0.1 + 0.8 * progress, abs=0.02)


def test_the_grid_has_the_shape_of_a_patch():
    recipe = dataclasses.replace(RECIPES["micro-m2d"], patch_shape=(40, 4), strategy="dwm")
    assert recipe.grid(80) == PatchGrid(2, 24, (40, 4))


def test_a_recipe_with_the_frames_of_a_patch_among_its_strategy_options_is_loaded(tmp_path):
    recipe = dataclasses.replace(RECIPES["micro-m2d"], strategy="dwm", strategy_options={"statistic": "flux"})
    recipe.save(tmp_path / "recipe.json")
    saved = json.loads((tmp_path / "recipe.json").read_text())
    for frames in (0, 16):  # as versions wrote them whose grids did not know the shape of a patch
        saved["strategy_options"]["patch_time"] = frames
        (tmp_path / "recipe.json").write_text(json.dumps(saved))
        assert Recipe.load(tmp_path / "recipe.json") == recipe
    saved["strategy_options"]["patch_time"] = 2
    (tmp_path / "recipe.json").write_text(json.dumps(saved))
    with pytest.raises(ValueError, match="patch_time 2"):
        Recipe.load(tmp_path / "recipe.json")


def test_the_papers_settings_are_the_default():
    recipe = RECIPES["base-m2d"]
    assert (recipe.mask_ratio, recipe.epochs, recipe.hint_power) == (0.7, 300, 2)
    options = make_options(recipe.framework, recipe.framework_options)
    assert options == M2D.Options(0.99995, 0.99999, "patch", "blocks") and recipe.crops_per_clip == 1
    small = RECIPES["small-m2d"]
    assert dataclasses.replace(recipe, size="small") == small and RECIPES["base-msm-mae"].crops_per_clip == 1
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
        ({"strategy": "dvm"}, r"no masking strategy 'dvm': did you mean dwm\? there are: .*dwm"),
        ({"strategy": "dwm", "strategy_options": {"side": 3}}, "dwm has no option 'side'"),
        ({"hint_constant": 1.5}, "constant hint ratio"),
        ({"hint_power": 0.0}, "power > 0"),
        ({"crops_per_clip": -1}, "crops_per_clip must be from 0 to 1,000,000, got -1"),
        ({"keep_every": -1}, "keep_every must be from 0 to"),
        ({"batch_size": 10**9}, "batch_size must be from 1 to 1,048,576, got 1000000000"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive, got nan"),
        ({"learning_rate": math.inf}, "learning_rate must be from .*, got inf"),
        ({"seed": -1}, "seed must be from 0 to"),
        ({"crop_frames": 10**400}, "crop_frames must be from 1 to"),
        ({"decoder_depth": 10**6}, "decoder_depth must be from 1 to 1,000"),
        ({"patch_shape": (16, 0)}, "patch_shape is two numbers from 1 to 4096"),
        ({"strategy": "dwm", "guidance": ((0.5, 0.1), (0.2, 0.3))}, "growing progress"),
        ({"strategy": "dwm", "guidance": ((0.0, 1.3),)}, r"must lie in \[0, 1\]"),
        ({"strategy": "dwm", "guidance": ((0.0, 0.3),), "hint_constant": 0.5}, "set one of them"),
        ({"guidance": ((0.0, 0.3),)}, 'random needs no guide and so takes no hints.* set hint_strategies "all"'),
        ({"exponent_power": 1.0}, "random has no exponent that exponent_power could anneal"),
        ({"strategy": "hard", "exponent_power": 0.0}, "annealed with power > 0"),
        (
            {**MSM_MAE, "strategy": "attention", "strategy_options": {"encoder": "ema"}},
            'has no "ema" encoder .* online',
        ),
        ({**MSM_MAE, "strategy": "sgim", **BY_EMA}, 'msm-mae has no "ema" encoder .*; it has: online'),
        ({"warmup": 1.0}, "warmup"),
        ({"decay": 1.5}, r"decay is a share of the run in \[0, 1\], got 1.5"),
        ({"schedule": "wsd", "warmup": 0.5, "decay": 0.6}, "warmup 0.5 and decay 0.6 .* together at most 1"),
        ({"weights_ema": 1.0}, "weights_ema is a decay in .*, such as 0.999, or 0 for none, got 1.0"),
        ({"muon_iterations": 0}, "muon_iterations must be positive"),
        ({"framework_options": {"ema_end": 1.1}}, r"ema_end is a decay in \[0, 1\], got 1.1"),
        ({"framework": "msm-mae"}, "msm-mae has no option 'ema_start'; it has: agreement, decoded_share, decoder"),
        (
            {"framework_options": {"decay": 1}},
            "m2d has no option 'decay'; it has: ema_end, ema_start, standardise, target",
        ),
        ({"framework_options": {"ema_end": "slow"}}, "m2d cannot have the options {'ema_end': 'slow'}"),
        ({"framework": "jepa"}, "no framework 'jepa'; there are: m2d, msm-mae; name one .* package.module:Class"),
        ({"crop_frames": 8}, "shorter than a patch"),
        ({"decoder_heads": 5}, "multiple of"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(RECIPES["micro-m2d"], **changes)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda saved: saved.pop("betas"), "no field 'betas'"),
        (lambda saved: saved.update(batch_size="x"), "field 'batch_size' is \"x\", not a whole number"),
        (lambda saved: saved.update(batch_size=10**9), "batch_size must be from 1 to"),
        (lambda saved: saved.update(betas=[0.9]), r"field 'betas' is \[0.9\], not a list of 2"),
        (lambda saved: saved.update(strategy_options=3), "field 'strategy_options' is 3, not an object"),
        (lambda saved: saved.update(strategy_options={"k": []}), "'k' of field 'strategy_options'"),
        (lambda saved: saved.update(hint_shape="sine"), "field 'hint_shape' is \"sine\", not one of"),
        (lambda saved: saved.update(guidance=[[1, 2, 3]]), "item of field 'guidance'"),
        (lambda saved: saved.update(precision="fp8"), "field 'precision' is \"fp8\", not one of"),
        (lambda saved: saved.update(ema=3), "cannot unpack"),
        (lambda saved: saved.update(more=1), "has a field 'more', which this version does not know"),
        (lambda saved: saved.clear(), "no field"),
    ],
)
def test_a_damaged_recipe_is_named_with_its_field_and_the_remedy(change, fault, tmp_path):
    path = tmp_path / "recipe.json"
    RECIPES["micro-m2d"].save(path)
    assert Recipe.load(path) == RECIPES["micro-m2d"]
    saved = json.loads(path.read_text())
    change(saved)
    path.write_text(json.dumps(saved))
    with pytest.raises(ValueError, match=rf"recipe\.json is no recipe.*: .*{fault}.*; restore it from a copy"):
        Recipe.load(path)


def test_a_crop_too_short_for_the_ratio_is_an_error():
    recipe = dataclasses.replace(RECIPES["micro-m2d"], crop_frames=16, mask_ratio=0.95)
    with pytest.raises(ValueError, match="leaves 0 visible"):
        recipe.grid(80)


@pytest.mark.parametrize("standardise", ["patch", "batch"])
@pytest.mark.parametrize(("framework", "mask_ratio"), [("m2d", 0.7), ("msm-mae", 0.75)])
def test_a_recipe_from_before_framework_options_is_loaded(framework, mask_ratio, standardise, tmp_path):
    """It equals the named recipe, so that its run can be resumed by name."""
    (tmp_path / "recipe.json").write_text(OLD % (framework, mask_ratio, standardise))
    named = RECIPES[f"micro-{framework}"]
    options = named.framework_options
    if framework == "m2d" and standardise == "batch":
        options = {**options, "standardise": "batch"}
    expected = dataclasses.replace(
        named, strategy="hard", strategy_options={"exponent": 2.0}, framework_options=options
    )
    assert Recipe.load(tmp_path / "recipe.json") == expected


def test_a_file_that_is_no_recipe_is_refused(tmp_path):
    (tmp_path / "recipe.json").write_text('{"framework": "m2d"}')
    with pytest.raises(ValueError, match=r"recipe\.json is no recipe"):
        Recipe.load(tmp_path / "recipe.json")


def test_epochs_are_counted_in_crops():
    recipe = dataclasses.replace(RECIPES["micro-m2d"], steps=0, epochs=3.0, batch_size=10)
    assert recipe.num_steps(crops_per_epoch=100) == 30
    assert RECIPES["micro-m2d"].num_steps(crops_per_epoch=100) == 100


def test_a_delayed_strategy_is_random_until_its_start_and_then_itself():
    recipe = dataclasses.replace(
        RECIPES["micro-m2d"], strategy="ibm", hint_strategies="all", hint_shape="delayed", hint_start=1 / 6
    )
    hints = [recipe.hints(PatchGrid(5, 38))(step / 300) for step in range(300)]
    assert hints == [1.0] * 50 + [0.0] * 250


def test_the_learning_rate_rises_linearly_and_falls_to_zero():
    rates = [learning_rate(step, 200, 2e-3, 0.1) for step in range(200)]
    assert max(rates) == rates[19] == 2e-3
    assert rates[:20] == pytest.approx([2e-3 * (step + 1) / 20 for step in range(20)])
    assert rates[20:] == sorted(rates[20:], reverse=True) and rates[-1] < 1e-6
