"""The sections of a report that look at real crops: what a run masks and what it predicts."""

from collections.abc import Sequence
from html import escape
from statistics import median

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
    guide_of_examples,
    random_masks,
    reconstruct,
)
from melmask.study.plots import NUM_DRAWS
from melmask.study.runs import Run
from melmask.study.sections import Material

NUM_SHOWN = 3
LOOKS_AT = {
    "nothing": "nothing",
    "patches": "the patches",
    "features": "its encoder's features",
    "attention": "its class token's attention",
    "loss": "its past losses",
}
LED_BY = {
    "features": ", led by the features of the encoder as last saved",
    "attention": ", led by the attention of the encoder's class token as last saved",
    "loss": ", led by the losses remembered at the last checkpoint",
}
GUIDANCE_WORDS = (
    "The hint ratio h is the share of a strategy's choice that is given back to chance. The guidance λ says how much "
    "of its preference is left: at 0 masks are random, at 1 the strategy's own. It is less than 1 − h. The time share "
    "is that of guides and masks in a training step, the median over the run."
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
    header = ["run", "strategy", "looks at", "mask ratio", "visible, masked", "hint ratio", "mean λ", "time share"]
    parts = [f"<p>{escape(GUIDANCE_WORDS)}</p>", page.table(header, [_strategy_row(run) for run in material.runs])]
    shown = {run.name: run for run in material.runs if run.can_guide}
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
    guided = "–" if run.mean_guidance is None else f"{run.mean_guidance:.3f}"
    options = "".join(f", {name} = {value}" for name, value in recipe.strategy_options.items())
    if recipe.exponent_power is not None:
        options += f", exponent rising as progress^{recipe.exponent_power:g}"
    shares = [line["mask_share"] for line in run.log if "mask_share" in line]
    share = f"{100 * median(shares):.2g} %" if shares else "–"
    ratio = f"{recipe.mask_ratio:g}"
    return [run.name, recipe.strategy + options, LOOKS_AT[strategy.needs], ratio, counts, _hints(run), guided, share]


def _hints(run: Run) -> str:
    """The course of the hint ratio, in words."""
    recipe = run.recipe
    if not recipe.takes_hints:
        return "no hints"
    if recipe.guidance:
        points = ", ".join(f"{value:g} at {100 * progress:.3g} %" for progress, value in recipe.guidance)
        return f"what gives λ = {points} of the run"
    if recipe.hint_constant is not None:
        return f"{recipe.hint_constant:g} throughout"
    fall = "a cosine to 0" if recipe.hint_shape == "cosine" else f"1 − progress^{recipe.hint_power:g}"
    return f"1 for the first {100 * recipe.hint_start:.3g} % of the run, then {fall}"


def _stages(run: Run) -> list[pictures.Stage]:
    """What there is to show of the run's schedules."""
    recipe, masker = run.recipe, run.masker
    changes = recipe.exponent_power is not None or (recipe.takes_hints and recipe.hint_constant is None)
    moments = {"throughout": 1.0}
    if changes:
        moments = {"start": 0.0, "middle": 0.5, "end": 1.0}
    elif not recipe.takes_hints:
        moments = {"draw 1": 1.0, "draw 2": 1.0, "draw 3": 1.0}
    return [
        pictures.Stage(name, masker.strategy(progress), masker.hints(progress) if recipe.takes_hints else None)
        for name, progress in moments.items()
    ]


def _mask_examples(material: Material, run: Run, examples: Examples) -> str:
    """The picture of the run's masks over its schedule."""
    recipe, shown, stages = run.recipe, list(examples.shown), _stages(run)
    assert run.spec is not None
    figure = pictures.schedule_figure(
        examples.log_mel[shown],
        [examples.names[i] for i in shown],
        recipe.strategy,
        guide_of_examples(run, examples, torch.tensor(shown)),
        examples.valid[shown],
        examples.grid,
        recipe.patch_shape,
        run.spec,
        mask_ratio=recipe.mask_ratio,
        stages=stages,
    )
    led = LED_BY.get(recipe.make_strategy().needs, "")
    course = " at three moments of the run's schedule" if stages[0].name == "start" else ""
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
