"""Recipes as earlier versions wrote them, brought into the present form."""

import dataclasses
from typing import Any

from melmask.frameworks import make_options


def update_recipe(saved: dict[str, Any]) -> None:
    """Change what a recipe.json of any earlier version holds into the settings of `Recipe`.

    Raises:
        KeyError: a setting has no present form.
    """
    _drop_patch_time(saved)
    _gather_framework_options(saved)


def _drop_patch_time(saved: dict[str, Any]) -> None:
    """Leave out the frames of a patch among a strategy's options: recipes of earlier versions may name them.

    Raises:
        KeyError: they are not those of the recipe's patches.
    """
    frames = saved["strategy_options"].pop("patch_time", 0)
    if frames not in (0, saved["patch_shape"][1]):
        raise KeyError(f"patch_time {frames} of the strategy is not that of patches of {saved['patch_shape']}")


def _gather_framework_options(saved: dict[str, Any]) -> None:
    """Make framework_options of M2D's ema and standardise, which earlier versions had in every recipe."""
    if "ema" in saved:
        (start, end), standardise = saved.pop("ema"), saved.pop("standardise", "patch")
        options = {"ema_start": start, "ema_end": end, "standardise": standardise}
        defaults = dataclasses.asdict(make_options("m2d", {}))
        is_m2d = saved["framework"] == "m2d"
        saved["framework_options"] = {k: v for k, v in options.items() if is_m2d and v != defaults[k]}
