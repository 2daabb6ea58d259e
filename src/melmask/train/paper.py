"""The experiment of arXiv 2603.23810 by name: the schedule of each strategy, the ablations, the source of settings."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, fields
from inspect import signature
from typing import Any, Literal

from melmask.frameworks import make_options
from melmask.masking import STRATEGIES
from melmask.registry import lookup
from melmask.train.recipe import RECIPES, Recipe, as_text

PAPER = "paper-"  # what the names of the paper's recipes start with
DELAYED = {"hint_strategies": "all", "hint_shape": "delayed"}  # random masks until hint_start, then the strategy alone

COMPARED = ("random", "ibm", "sgim", "dwm")  # the strategies of the paper
# What a strategy brings with it in the paper's recipes; the schedule of all others is the paper's for dwm and sgim.
STRATEGY_SETTINGS: dict[str, Mapping[str, Any]] = {
    "random": {},
    "ibm": DELAYED,
    "cluster": DELAYED,
    "sgim": {},
    "dwm": {},
}


@dataclass(frozen=True)
class Variant:
    """One ablation of the paper.

    Args:
        changes: of the recipe.
        strategies: that it is an ablation of.
        meaning: in words.
    """

    changes: Mapping[str, Any]
    strategies: tuple[str, ...]
    meaning: str


def _of_weights(meaning: str, **options: Any) -> Variant:
    return Variant({"strategy_options": options}, ("dwm",), meaning)


def _of_hints(meaning: str, **changes: Any) -> Variant:
    return Variant(changes, ("dwm", "sgim"), meaning)


VARIANTS: dict[str, Variant] = {
    "mad": _of_weights("weights are mean absolute deviations; the paper's choice", statistic="mad"),
    "variance": _of_weights("weights are variances", statistic="variance"),
    "deterministic": _of_weights("the largest weights are masked, nothing is drawn", deterministic=True),
    **{f"k{k}": _of_hints(f"hints fall as 1 - progress^{k}", hint_power=float(k)) for k in (1, 2, 4, 8)},
    "constant-0.5": _of_hints("hint ratio 0.5 throughout", hint_constant=0.5),
    "constant-0": _of_hints("no hints throughout", hint_constant=0.0),
}


def named_recipe(name: str, strategy: str | None = None, variant: str | None = None) -> Recipe:
    """A recipe by its name; one of the paper's with the schedule of a strategy, and with an ablation.

    Args:
        name: a name in `melmask.train.recipe.RECIPES`.
        strategy: for the paper's recipes, a name in `STRATEGY_SETTINGS` in place of dwm. Any other strategy is for the
            caller to set, as all strategies are for other recipes: they bring nothing with them.
        variant: an ablation in `VARIANTS`, for the paper's recipes only.

    Raises:
        ValueError: no such recipe or variant, or the variant is not one of that recipe and strategy.

    >>> named_recipe("paper-m2d", "ibm").hint_shape, named_recipe("paper-m2d", "dwm", "k4").hint_power
    ('delayed', 4.0)
    """
    recipe = lookup(name, RECIPES, "recipe")
    changes: dict[str, Any] = {}
    if strategy is not None and name.startswith(PAPER) and strategy in STRATEGY_SETTINGS:
        changes = {"strategy": strategy, **STRATEGY_SETTINGS[strategy]}
    if variant is not None:
        changes |= _variant(variant, name, strategy or recipe.strategy).changes
    return dataclasses.replace(recipe, **changes)


def _variant(variant: str, name: str, strategy: str) -> Variant:
    if variant not in VARIANTS:
        raise ValueError(f"no variant {variant!r} of the paper's recipes; there are: {', '.join(VARIANTS)}")
    if not name.startswith(PAPER):
        of_paper = " and ".join(recipe for recipe in RECIPES if recipe.startswith(PAPER))
        raise ValueError(f"variants are ablations of {of_paper}, not of {name}: change its settings one by one")
    made = VARIANTS[variant]
    if strategy not in made.strategies:
        raise ValueError(f"{variant} is a variant of {' and '.join(made.strategies)}, not of {strategy}")
    return made


Source = Literal["paper", "published default", "ours", "yours"]
# Of every setting of the paper's recipes: whether the paper states it, the code or the papers that it builds on do, or
# nobody does; and where, or why.
SOURCES: dict[str, tuple[Source, str]] = {
    "framework": ("paper", "MSM-MAE (arXiv 2204.12260) and M2D (2210.14648)"),
    "framework_options": (
        "published default",
        "of M2D: EMA linearly over the run; the target's own start, EMA of blocks and norm only",
    ),
    "size": ("paper", "ViT-Base: 768 wide, 12 deep, 12 heads"),
    "patch_shape": ("paper", "16 mel bands x 16 frames"),
    "position_order": ("published default", "time has the first half"),
    "crop_frames": ("paper", "6.08 s at a hop of 10 ms: 5 x 38 patches"),
    "decoder_dim": ("published default", "M2D 512, MSM-MAE 384"),
    "decoder_depth": ("published default", "M2D 8, MSM-MAE 4"),
    "decoder_heads": ("published default", "M2D 16, MSM-MAE 6"),
    "strategy": ("paper", "random, ibm, sgim and dwm are compared"),
    "strategy_options": (
        "paper",
        "of dwm; those of ibm are EAT's (2401.03497). At these values options of ours do nothing",
    ),
    "mask_ratio": ("paper", "M2D .7, MSM-MAE .75"),
    "hint_strategies": ("paper", "sgim and dwm take hints"),
    "hint_shape": ("paper", "1 - (e/E)^k from hint_start on, here in steps"),
    "hint_power": ("paper", "k = 2; ablations 1, 4, 8"),
    "hint_start": ("paper", "epoch 50 of 300"),
    "hint_constant": ("paper", "none; ablations .5 and 0, here throughout the run"),
    "guidance": ("ours", "not used: hints set it"),
    "exponent_power": ("ours", "not used: not annealed"),
    "steps": ("ours", "0: counted in epochs"),
    "epochs": ("paper", "300"),
    "crops_per_clip": ("published default", "one crop a clip an epoch, whole batches"),
    "batch_size": ("paper", "2,048, over all devices"),
    "accumulate": ("ours", "changes memory, and results by rounding only"),
    "optimiser": ("published default", "AdamW"),
    "muon_iterations": ("ours", "not used: AdamW"),
    "learning_rate": ("published default", "3e-4 for each 256 of a batch"),
    "warmup": ("published default", "20 of 300 epochs, linear, then a cosine to 0"),
    "schedule": ("published default", "cosine"),
    "decay": ("ours", "not used: cosine"),
    "weight_decay": ("published default", "on matrices only"),
    "betas": ("published default", "AdamW's"),
    "grad_clip": ("ours", "against single bad steps"),
    "weights_ema": ("ours", "none"),
    "whitening_crops": ("ours", "none"),
    "checkpoint_activations": ("ours", "changes memory and time, not results"),
    "precision": ("ours", "bf16 where the hardware has it; the published code uses fp16 with loss scaling"),
    "procedural_share": ("ours", "0: recordings only"),
    "mixed_share": ("ours", "0: nothing is mixed in"),
    "stretched_share": ("ours", "0: nothing is stretched"),
    "exclude": ("ours", "nothing"),
    "seed": ("ours", "any"),
    "log_every": ("ours", "does not change results"),
    "save_every": ("ours", "does not change results"),
    "keep_every": ("ours", "does not change results"),
}


@dataclass(frozen=True)
class Setting:
    """One setting of a recipe with its source.

    Args:
        name: the field of `Recipe`.
        value: its value.
        source: who states it: the paper; the code or papers that it builds on; melmask; or the caller.
        note: where, or why.
    """

    name: str
    value: Any
    source: Source
    note: str


def settings_of(recipe: Recipe, name: str, variant: str | None = None) -> list[Setting]:
    """Every setting of a recipe with its source; options of framework and strategy with those at their defaults.

    Args:
        recipe: the settings, some of them perhaps changed.
        name: the recipe that was started from.
        variant: the ablation that was named, if any.

    Raises:
        ValueError: see `named_recipe`.
    """
    named, of_paper = named_recipe(name, recipe.strategy, variant), f"{PAPER}{recipe.framework}"
    in_paper = named_recipe(of_paper, recipe.strategy, variant) if of_paper in RECIPES else None
    return [_setting(field.name, recipe, name, named, in_paper, variant) for field in fields(Recipe)]


def _value(recipe: Recipe, field: str) -> Any:
    """A setting; of options all, whether they are set or not."""
    if field == "framework_options":
        return dataclasses.asdict(make_options(recipe.framework, recipe.framework_options))
    if field == "strategy_options":
        options = signature(lookup(recipe.strategy, STRATEGIES, "masking strategy")).parameters
        return {name: option.default for name, option in options.items()} | dict(recipe.strategy_options)
    return getattr(recipe, field)


def _setting(
    field: str, recipe: Recipe, name: str, named: Recipe, in_paper: Recipe | None, variant: str | None
) -> Setting:
    """One setting: changed by the caller, of the recipe and not of the paper, or the paper's."""
    value, own = _value(recipe, field), getattr(recipe, field)
    if own != getattr(named, field):
        return Setting(field, value, "yours", f"{name} has {as_text(getattr(named, field))}")
    if in_paper is None:
        return Setting(field, value, "ours", f"the paper has no {recipe.framework}")
    if own != getattr(in_paper, field):
        return Setting(field, value, "ours", f"{PAPER}{recipe.framework} has {as_text(getattr(in_paper, field))}")
    if variant is not None and field in VARIANTS[variant].changes:
        return Setting(field, value, "paper", f"ablation {variant}: {VARIANTS[variant].meaning}")
    if field.startswith("strategy") and recipe.strategy not in COMPARED:
        return Setting(field, value, "ours", f"the paper does not compare {recipe.strategy}")
    if field in STRATEGY_SETTINGS.get(recipe.strategy, {}):
        source: Source = "published default" if recipe.strategy in COMPARED else "ours"
        return Setting(field, value, source, f"random masks until hint_start, then {recipe.strategy} alone")
    if field.startswith("hint_") and not recipe.takes_hints:
        return Setting(field, value, "paper", f"not used: {recipe.strategy} takes no hints")
    return Setting(field, value, *SOURCES[field])
