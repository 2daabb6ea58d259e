"""The paper's experiment by name: what each strategy and ablation sets, and that every setting has its source."""

import dataclasses
import re
from pathlib import Path

import pytest

from melmask.frameworks import make_options
from melmask.masking import STRATEGIES, make_strategy
from melmask.train.paper import PAPER, SOURCES, STRATEGY_SETTINGS, VARIANTS, named_recipe, settings_of
from melmask.train.recipe import RECIPES, Recipe
from melmask.types import PatchGrid

PAGE = (Path(__file__).parents[3] / "docs" / "paper.md").read_text()
NAMES = [name for name in RECIPES if name.startswith(PAPER)]
EPOCHS = [epoch / 300 for epoch in range(300)]
each = pytest.mark.parametrize("name", NAMES)


def hints(recipe: Recipe) -> list[float]:
    """The hint ratio in each of 300 epochs, on the paper's grid."""
    schedule = recipe.hints(PatchGrid(5, 38))
    return [schedule(progress) for progress in EPOCHS]


@each
def test_a_strategy_brings_its_schedule_and_nothing_else(name):
    falling = [1.0 if epoch < 50 else pytest.approx(1 - (epoch / 300) ** 2) for epoch in range(300)]
    delayed = [1.0] * 50 + [0.0] * 250  # random masks, and then the strategy alone
    expected = {"random": [0.0] * 300, "ibm": delayed, "cluster": delayed, "sgim": falling, "dwm": falling}
    assert set(expected) == set(STRATEGY_SETTINGS) <= set(STRATEGIES)
    base = RECIPES[name.replace(PAPER, "base-")]
    for strategy, schedule in expected.items():
        recipe = named_recipe(name, strategy)
        assert recipe.strategy == strategy and hints(recipe) == schedule
        plain = {"strategy": "random", "hint_strategies": "informed", "hint_shape": "power"}
        assert dataclasses.replace(recipe, **plain) == base
    assert named_recipe(name) == named_recipe(name, "dwm") == RECIPES[name]


@each
def test_every_ablation_is_a_variant(name):
    for strategy in ("dwm", "sgim"):
        for k in (1, 2, 4, 8):
            found = hints(named_recipe(name, strategy, f"k{k}"))
            assert found[49:51] == [1.0, pytest.approx(1 - (50 / 300) ** k)]
            assert found[200] == pytest.approx(1 - (200 / 300) ** k)
        assert hints(named_recipe(name, strategy, "constant-0.5")) == [0.5] * 300
        assert hints(named_recipe(name, strategy, "constant-0")) == [0.0] * 300
    mad, variance, deterministic = (
        named_recipe(name, "dwm", weights).make_strategy() for weights in ("mad", "variance", "deterministic")
    )
    assert mad == RECIPES[name].make_strategy() and (mad.statistic, mad.deterministic) == ("mad", False)
    assert variance == dataclasses.replace(mad, statistic="variance")
    assert deterministic == dataclasses.replace(mad, deterministic=True)


@pytest.mark.parametrize(("arguments", "message"), [
    (("paper-m2d", "dwm", "k3"), "no variant 'k3' .* there are: mad, variance, deterministic, k1, k2, k4, k8, "),
    (("paper-m2d", "sgim", "variance"), "variance is a variant of dwm, not of sgim"),
    (("paper-m2d", "ibm", "k4"), "k4 is a variant of dwm and sgim, not of ibm"),
    (("base-m2d", "dwm", "k4"), "ablations of paper-m2d and paper-msm-mae, not of base-m2d"),
    (("paper-jepa",), "no recipe 'paper-jepa'"),
])  # fmt: skip
def test_what_is_no_variant_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        named_recipe(*arguments)


def test_other_recipes_and_strategies_are_left_to_the_caller():
    assert named_recipe("micro-m2d", "ibm") == RECIPES["micro-m2d"]
    assert named_recipe("paper-m2d", "hard") == named_recipe("paper-m2d", "my.module:Strategy") == RECIPES["paper-m2d"]


def by_name(recipe: Recipe, name: str, variant: str | None = None) -> dict:
    """Source and note of every setting."""
    return {one.name: (one.source, one.note) for one in settings_of(recipe, name, variant)}


def test_every_setting_of_a_recipe_has_a_source():
    assert set(SOURCES) == {field.name for field in dataclasses.fields(Recipe)}
    for name in NAMES:
        for strategy in STRATEGY_SETTINGS:
            recipe = named_recipe(name, strategy)
            values = {one.name: one.value for one in settings_of(recipe, name)}
            options = {key: values.pop(key) for key in ("framework_options", "strategy_options")}
            assert values == {key: getattr(recipe, key) for key in SOURCES if key not in options}
            made = make_strategy(strategy, options["strategy_options"])
            assert make_options(recipe.framework, options["framework_options"]) and made == recipe.make_strategy()
            stated = by_name(recipe, name).values()
            assert all(source in ("paper", "published default", "ours") and note for source, note in stated)


def test_what_is_changed_or_is_not_the_papers_is_stated():
    changed = by_name(dataclasses.replace(named_recipe("paper-m2d", "ibm"), batch_size=64), "paper-m2d")
    assert changed["batch_size"] == ("yours", "paper-m2d has 2048") and changed["epochs"][0] == "paper"
    tiny = by_name(RECIPES["tiny-m2d"], "tiny-m2d")
    assert tiny["batch_size"] == ("ours", "paper-m2d has 2048") and tiny["mask_ratio"][0] == "paper"
    ablation = by_name(named_recipe("paper-m2d", "dwm", "k4"), "paper-m2d", "k4")
    assert ablation["hint_power"] == ("paper", "ablation k4: hints fall as 1 - progress^4")
    assert by_name(named_recipe("paper-m2d", "random"), "paper-m2d")["hint_power"][1].startswith("not used: random")
    assert by_name(named_recipe("paper-m2d", "cluster"), "paper-m2d")["strategy"][0] == "ours"
    ibm = by_name(named_recipe("paper-m2d", "ibm"), "paper-m2d")
    assert ibm["hint_shape"] == ("published default", "random masks until hint_start, then ibm alone")
    assert len(VARIANTS) == 9


def test_the_page_states_every_deviation_with_its_date_and_names_every_variant():
    tables = re.split(r"^\| item \|.*\n\| --- .*\n", PAGE, flags=re.MULTILINE)[1:]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for table in tables
        for line in table.partition("\n\n")[0].splitlines()
    ]
    assert len(rows) > 30 and all(len(row) == 5 and row[0] and row[2] and row[4] for row in rows)
    # A row that names a deviation says why; one that names none says so.
    assert all(row[3] or "the same" in row[2] or "agree" in row[2] for row in rows), rows
    assert "silently" not in PAGE
    assert all(f"`{name}`" in PAGE for name in (*VARIANTS, *STRATEGY_SETTINGS, *NAMES))
