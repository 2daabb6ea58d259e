"""The sections of a report that look at real crops: what a run masks and what it predicts."""

from collections.abc import Sequence
from html import escape

import torch

from melmask.masking.base import num_visible_of
from melmask.models import MSMMAE
from melmask.study import charts, page, pictures
from melmask.study.examples import (
    MASKS_PER_CROP,
    NUM_CROPS,
    Examples,
    band_frequency,
    error_by_patch,
    examples_of,
    random_masks,
    reconstruct,
)
from melmask.study.plots import NUM_DRAWS
from melmask.study.runs import Run
from melmask.study.sections import Material
from melmask.train.loop import guide_of

NUM_SHOWN = 3
GUIDANCE_WORDS = (
    "The hint ratio h is the share of a strategy's choice that is given back to chance. The guidance λ says how much "
    "of its preference is left: at 0 masks are random, at 1 the strategy's own. It is less than 1 − h."
)
BAND_WORDS = (
    "How often the patches of each frequency band are masked once the hints have run out: right of the line more "
    "often than by chance, left of it less. A strategy that looks at the sound may still have a habit of its own, such "
    f"as masking low frequencies. Mean over {NUM_CROPS} crops of each run's data."
)
FAIR_WORDS = (
    "Every run is given uniformly random masks here, at its own mask ratio, so that predictions can be compared."
)
RECONSTRUCTION_WORDS = (
    "The model predicts masked patches with their mean and deviation taken out. To be seen here, each predicted patch "
    "is given the mean and the deviation of the true one, which the model does not know: judge the shapes inside "
    "patches, not their brightness."
)
ERROR_WORDS = (
    f"Top, the error at every place of the grid, averaged over {NUM_CROPS} crops with {MASKS_PER_CROP} random masks "
    "each: {scale}. Below, single crops: what was visible, and how hard each masked patch was to predict."
)
ERROR_SCALE = {
    "m2d": "0 is the direction of the target's features, 2 is unrelated to it",
    "msm-mae": "0 is perfect, 1 is no better than each patch's mean",
}


def masks(material: Material) -> list[str]:
    """The strategies, the bands they prefer, and masks of real crops over each run's schedule."""
    header = ["run", "strategy", "looks at", "mask ratio", "visible, masked", "hint ratio", "mean λ"]
    parts = [f"<p>{escape(GUIDANCE_WORDS)}</p>", page.table(header, [_strategy_row(run) for run in material.runs])]
    shown = {run.name: run for run in material.runs if run.store and _can_guide(run)}
    examples = {name: examples_of(run, run.store, NUM_SHOWN) for name, run in shown.items() if run.store}
    for spec in dict.fromkeys(run.spec for run in shown.values() if run.spec):
        frequency = {name: band_frequency(run, examples[name]) for name, run in shown.items() if run.spec == spec}
        figure = charts.band_figure(frequency, shown, spec, material.colours)
        parts.append(material.pictures.add("masks-by-band", figure, BAND_WORDS, narrow=True))
    for run in material.runs:
        parts.append(f"<h3>{material.name_of(run)}</h3>")
        if run.name in shown:
            parts.append(_mask_examples(material, run, examples[run.name]))
        elif run.store:
            parts.append(_no_checkpoint(run))
        else:
            parts.append(_no_store(run))
    return parts


def predictions(material: Material) -> list[str]:
    """Reconstructions, and where predictions err, for every run."""
    parts = [f"<p>{escape(FAIR_WORDS)}</p>"]
    for run in material.runs:
        parts.append(f"<h3>{material.name_of(run)}</h3>")
        if run.store is None:
            parts.append(_no_store(run))
        elif run.model is None:
            parts.append(_no_checkpoint(run))
        else:
            parts += _prediction_examples(material, run, examples_of(run, run.store, NUM_SHOWN))
    return parts


def _can_guide(run: Run) -> bool:
    """Whether what the strategy looks at is there."""
    return run.recipe.make_strategy().needs != "features" or run.model is not None


def _no_store(run: Run) -> str:
    folder = run.data.get("store", "STORE")
    words = f"No pictures: {run.store_problem}. Prepare the same sources again:"
    return page.missing(words, f"melmask prepare SOURCES --out {folder}")


def _no_checkpoint(run: Run) -> str:
    return page.missing("No pictures: the run has not saved a checkpoint yet.", f"{run.pretrain_command} --resume")


def _strategy_row(run: Run) -> list[str]:
    """A run's masking in numbers."""
    recipe, strategy = run.recipe, run.recipe.make_strategy()
    counts = "–"
    if run.spec:
        num_patches = recipe.grid(run.spec.num_mels).num_patches
        num_visible = num_visible_of(num_patches, recipe.mask_ratio)
        counts = f"{num_visible}, {num_patches - num_visible} of {num_patches}"
    hints = "takes no hints"
    if run.is_informed and recipe.hint_constant is not None:
        hints = f"{recipe.hint_constant:g} throughout"
    elif run.is_informed:
        hints = f"1 for the first {100 * recipe.hint_start:.3g} % of the run, then 1 − progress^{recipe.hint_power:g}"
    guided = "–" if run.mean_guidance is None else f"{run.mean_guidance:.3f}"
    options = "".join(f", {name} = {value}" for name, value in recipe.strategy_options.items())
    looks_at = {"nothing": "nothing", "patches": "the patches", "features": "its encoder's features"}[strategy.needs]
    return [run.name, recipe.strategy + options, looks_at, f"{recipe.mask_ratio:g}", counts, hints, guided]


def _mask_examples(material: Material, run: Run, examples: Examples) -> str:
    """The picture of the run's masks over its schedule."""
    recipe, strategy, shown = run.recipe, run.recipe.make_strategy(), list(examples.shown)
    assert run.spec is not None
    hints = recipe.hints()
    if not run.is_informed:
        stages = [("draw 1", 0.0), ("draw 2", 0.0), ("draw 3", 0.0)]
    elif recipe.hint_constant is not None:
        stages = [("throughout", recipe.hint_constant)]
    else:
        stages = [("start", hints(0.0)), ("middle", hints(0.5)), ("end", hints(1.0))]
    figure = pictures.schedule_figure(
        examples.log_mel[shown],
        [examples.names[i] for i in shown],
        strategy,
        recipe.strategy,
        guide_of(strategy, run.model, examples.patches[shown], examples.grid),
        examples.valid[shown],
        examples.grid,
        recipe.patch_shape,
        run.spec,
        mask_ratio=recipe.mask_ratio,
        stages=stages,
    )
    led = ", led by the features of the encoder as last saved" if strategy.needs == "features" else ""
    course = " at three moments of the run's schedule" if len(stages) > 1 and run.is_informed else ""
    caption = (
        f"Left, crops of the run's data; then its masks{course}{led}. Right, how often each patch is masked in "
        f"{NUM_DRAWS} draws: orange more often than by chance, teal less. {_files(examples, shown)}"
    )
    return material.pictures.add(page.file_name("masks", run.name), figure, caption)


def _files(examples: Examples, shown: Sequence[int]) -> str:
    return f"Recordings, from the top: {', '.join(examples.files[i] for i in shown)}."


def _prediction_examples(material: Material, run: Run, examples: Examples) -> list[str]:
    """The pictures of what a run predicts, and how well."""
    model, spec, shown = run.model, run.spec, list(examples.shown)
    assert model is not None and spec is not None
    grid, patch_shape, parts = examples.grid, run.recipe.patch_shape, []
    patches, log_mel, names = examples.patches[shown], examples.log_mel[shown], [examples.names[i] for i in shown]
    mask = random_masks(run, grid, len(shown), seed=0)
    if isinstance(model, MSMMAE):
        rebuilt = reconstruct(model, patches, grid, mask)
        figure = pictures.reconstruction_figure(log_mel, names, mask, rebuilt, grid, patch_shape, spec)
        caption = f"{RECONSTRUCTION_WORDS} {_files(examples, shown)}"
        parts.append(material.pictures.add(page.file_name("reconstructions", run.name), figure, caption))
    with torch.no_grad():
        error = model(patches, grid, mask).per_patch
    average = error_by_patch(run, model, examples)
    figure = pictures.error_figure(average, log_mel, names, mask, error, grid, patch_shape, spec, run.recipe.framework)
    caption = f"{ERROR_WORDS.format(scale=ERROR_SCALE[run.recipe.framework])} {_files(examples, shown)}"
    return [*parts, material.pictures.add(page.file_name("errors", run.name), figure, caption)]
