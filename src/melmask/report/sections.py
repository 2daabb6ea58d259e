"""The sections of a report: evaluations, recipes, training, masks, predictions and provenance, as HTML."""

import dataclasses
import platform
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from melmask.data.store import Store
from melmask.files import file_name
from melmask.masking.base import num_visible_of
from melmask.report import page, tables
from melmask.report.crops import (
    MASKS_PER_CROP,
    NUM_CROPS,
    Examples,
    band_frequency,
    error_by_patch,
    examples_of,
    guide_of_examples,
    stages_of,
)
from melmask.report.formats import html_table
from melmask.study.runs import Run, random_masks
from melmask.study.table import Table
from melmask.train.recipe import Recipe
from melmask.viz import curves
from melmask.viz import predictions as pictures
from melmask.viz.masks import NUM_DRAWS

NUM_SHOWN = 3
TABLE_WORDS = (
    "Scores in percent, each with its 95 % interval over the choice of test clips. Shaded: the best of its column. "
    "Dotted: the interval overlaps that of the best, so their order may be chance. Grey: the baselines, on "
    "which no training was spent: the same encoder with fresh weights, and statistics of the log-mel spectrogram."
)
FIGURE_WORDS = (
    "Each bar is a score, its black line the 95 % interval. Coloured bars are trained encoders, grey ones the "
    "baselines: what training is worth is the distance from the grey bars."
)
CURVE_WORDS = (
    "Noisy values are drawn faint, under their moving average. An effective rank or a feature deviation that falls "
    "towards its lowest value would show that the features collapse. Losses can be compared within a framework only, "
    "and even there a strategy that masks harder patches has the higher loss without being worse."
)
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
ERROR_WORDS = (
    f"Top, the error at every place of the grid, averaged over {NUM_CROPS} crops with {MASKS_PER_CROP} random masks "
    "each: {scale}. Below, single crops: what was visible, and how hard each masked patch was to predict."
)


@dataclass(frozen=True)
class Material:
    """What all sections of a report draw on.

    Args:
        runs: the runs.
        colours: of the runs, by name, in all figures.
        table: their evaluations.
        pictures: takes the figures.
    """

    runs: Sequence[Run]
    colours: Mapping[str, str]
    table: Table
    pictures: page.Pictures

    def name_of(self, run: Run) -> str:
        """A run's name with its colour, as HTML."""
        return f"{page.chip(self.colours[run.name])}{escape(run.name)}"


def summary(material: Material) -> str:
    """What the evaluations say in plain words, and what each run is."""
    table = material.table
    said = [f"<li><b>{escape(one.title)}</b>: {escape(tables.sentence(table, one))}</li>" for one in table.columns]
    runs = [f"<li><b>{material.name_of(run)}</b>: {escape(describe(run))}</li>" for run in material.runs]
    lead = f'<p class="lead">{escape(tables.verdict(table))}</p>'
    findings = f"<ul>{''.join(said)}</ul>" if said else ""
    return f'<div class="summary">{lead}{findings}</div><ul class="runs">{"".join(runs)}</ul>'


def describe(run: Run) -> str:
    """A run in a line."""
    recipe = run.recipe
    length = f" of {recipe.crop_frames / run.spec.frames_per_s:.3g} s" if run.spec else ""
    steps = f"{run.num_steps:,} steps" if run.num_steps else f"{recipe.epochs:g} epochs"
    guided = f", mean guidance λ {run.mean_guidance:.2f}" if run.mean_guidance is not None else ""
    unfinished = "" if run.is_complete else f"; stopped after {run.num_steps_done:,} steps so far"
    return (
        f"{recipe.framework} with a {recipe.size} encoder, {recipe.strategy} masking of "
        f"{100 * recipe.mask_ratio:g} %{guided}, {steps} of {recipe.batch_size:,} crops{length}{unfinished}"
    )


def evaluations(material: Material) -> list[str]:
    """The table, its chart, and what has not been evaluated."""
    parts = []
    if material.table.columns:
        chart = curves.results_figure(material.table, material.colours)
        table = tables.as_html(material.table, material.colours)
        parts = [f'<p class="note">{escape(TABLE_WORDS)}</p>', table]
        parts.append(material.pictures.add("evaluations", chart, FIGURE_WORDS))
    for run in material.runs:
        if not run.results:
            command = shlex.join(["melmask", "evaluate", str(run.folder), "--task", "TASK.csv"])
            parts.append(page.missing(f"{run.name} has not been evaluated. This command does it:", command))
    return parts


def recipes(material: Material) -> list[str]:
    """The settings in which the runs differ, and all of them folded away."""
    names = [field.name for field in dataclasses.fields(Recipe)]
    settings = [[name, *(_shown(getattr(run.recipe, name)) for run in material.runs)] for name in names]
    header = ["setting", *(run.name for run in material.runs)]
    folded = f"<details><summary>All {len(settings)} settings</summary>{html_table(header, settings)}</details>"
    if len(material.runs) == 1:
        return [f"<p>{escape(describe(material.runs[0]))}.</p>", folded]
    different = [row for row in settings if len(set(row[1:])) > 1]
    if not different:
        return ["<p>The runs have the same recipe.</p>", folded]
    words = f"<p>The runs differ in these settings; the other {len(settings) - len(different)} are the same.</p>"
    return [words, html_table(header, different), folded]


def _shown(value: Any) -> str:
    """A setting as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} = {_shown(item)}" for name, item in value.items()) or "–"
    if isinstance(value, (tuple, list)):
        return ", ".join(map(_shown, value)) or "–"
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def training(material: Material) -> list[str]:
    """Where each run stands, and its curves."""
    header = ["run", "steps done", "of", "loss", "effective rank", "feature deviation", "samples/s"]
    parts = [html_table(header, [_state(run) for run in material.runs], numeric=True)]
    parts.append('<p class="note">Each the median of the last tenth of the log.</p>')
    logged = [run for run in material.runs if run.log]
    if logged:
        chart = curves.curves_figure(logged, material.colours)
        parts.append(material.pictures.add("training", chart, CURVE_WORDS))
    for run in material.runs:
        if not run.is_complete:
            words = f"{run.name} is not complete. This command goes on with it:"
            parts.append(page.missing(words, f"{run.pretrain_command} --resume"))
    return parts


def _state(run: Run) -> list[str]:
    last = run.log[-max(1, len(run.log) // 10) :]

    def middle(name: str, form: str) -> str:
        values = sorted(line[name] for line in last)
        return format(values[len(values) // 2], form) if values else "–"

    of = f"{run.num_steps:,}" if run.num_steps else "–"
    numbers = [middle("loss", ".4f"), middle("effective_rank", ".1f"), middle("feature_deviation", ".3f")]
    return [run.name, f"{run.num_steps_done:,}", of, *numbers, middle("samples_per_s", ",.0f")]


def masks(material: Material) -> list[str]:
    """The strategies, the bands they prefer, and masks of real crops over each run's schedule."""
    header = ["run", "strategy", "looks at", "mask ratio", "visible, masked", "hint ratio", "mean λ", "time share"]
    parts = [f"<p>{escape(GUIDANCE_WORDS)}</p>", html_table(header, [_strategy_row(run) for run in material.runs])]
    shown = {run.name: run for run in material.runs if run.can_guide}
    examples = {name: examples_of(run, run.store, NUM_SHOWN) for name, run in shown.items() if run.store}
    for spec in dict.fromkeys(run.spec for run in shown.values() if run.spec):
        frequency = {name: band_frequency(run, examples[name]) for name, run in shown.items() if run.spec == spec}
        figure = curves.band_figure(frequency, shown, spec, material.colours)
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
    return [
        run.name,
        recipe.strategy + options,
        LOOKS_AT[strategy.needs.guide],
        ratio,
        counts,
        _hints(run),
        guided,
        share,
    ]


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


def _mask_examples(material: Material, run: Run, examples: Examples) -> str:
    """The figure of the run's masks over its schedule."""
    recipe, shown, stages = run.recipe, torch.tensor(examples.shown), stages_of(run)
    assert run.spec is not None
    figure = pictures.schedule_figure(
        examples.spectrograms(run.spec),
        guide_of_examples(run, examples, shown),
        examples.valid[shown],
        stages=stages,
        strategy_name=recipe.strategy,
        mask_ratio=recipe.mask_ratio,
    )
    led = LED_BY.get(recipe.make_strategy().needs.guide, "")
    course = " at three moments of the run's schedule" if stages[0].name == "start" else ""
    caption = (
        f"Left, crops of the run's data; then its masks{course}{led}. Right, how often each patch is masked in "
        f"{NUM_DRAWS} draws: orange more often than by chance, teal less. {examples.shown_files}"
    )
    return material.pictures.add(file_name("masks", run.name), figure, caption)


def _prediction_examples(material: Material, run: Run, examples: Examples) -> list[str]:
    """The figures of what a run predicts, and how well."""
    model, parts = run.model, []
    assert model is not None and run.spec is not None
    patches, crops = examples.patches[list(examples.shown)], examples.spectrograms(run.spec)
    mask = random_masks(run, examples.grid, len(crops), seed=0)
    rebuilt = model.reconstruct(patches, examples.grid, mask)
    if rebuilt is not None:
        figure = pictures.reconstruction_figure(crops, mask, rebuilt)
        caption = f"{model.reconstruction_note} {examples.shown_files}"
        parts.append(material.pictures.add(file_name("reconstructions", run.name), figure, caption))
    with torch.no_grad():
        error = model(patches, examples.grid, mask).per_patch
    figure = pictures.error_figure(error_by_patch(run, model, examples), crops, mask, error, model.loss_label)
    caption = f"{ERROR_WORDS.format(scale=model.loss_scale)} {examples.shown_files}"
    return [*parts, material.pictures.add(file_name("errors", run.name), figure, caption)]


def provenance(material: Material, out: Path) -> list[str]:
    """The data, the commands that make all this again, and the versions at work."""
    data = [row for run in material.runs for row in [_data_row(run)]]
    header = ["run", "store", "fingerprint", "clips", "hours", "sources", "front end", "log-mel mean, deviation"]
    commands = [
        "melmask prepare SOURCES --out " + shlex.quote(store) for store in dict.fromkeys(row[1] for row in data)
    ]
    commands += [run.pretrain_command for run in material.runs]
    commands += dict.fromkeys(result.command for run in material.runs for result in run.results)
    commands.append(shlex.join(["melmask", "report", *(str(run.folder) for run in material.runs), "--out", str(out)]))
    evaluated = sorted({result.version for run in material.runs for result in run.results})
    versions = [["Python", platform.python_version()]]
    versions += [[name, version(name)] for name in ("melmask", "torch", "numpy", "matplotlib")]
    versions += [["evaluated with melmask", ", ".join(evaluated)]] if evaluated else []
    return [
        "<h3>Data</h3>",
        html_table(header, data),
        "<h3>Commands</h3>",
        f"<pre>{escape(chr(10).join(commands))}</pre>",
        "<h3>Versions that made this page</h3>",
        html_table(["package", "version"], versions),
    ]


def _data_row(run: Run) -> list[str]:
    """The data of a run, as far as it is known."""
    name, store = run.data.get("store", "not recorded"), run.store
    fingerprint = run.data.get("fingerprint", "not recorded")[:16]
    statistics = f"{run.data['mean']:.3f}, {run.data['std']:.3f}" if "mean" in run.data else "not recorded"
    if store is None:
        return [run.name, name, fingerprint, "–", "–", "–", _front_end(run), statistics]
    hours = f"{store.info['duration_s'] / 3600:.2f}"
    return [run.name, name, fingerprint, f"{len(store.clips):,}", hours, _sources(store), _front_end(run), statistics]


def _sources(store: Store) -> str:
    counts = Counter(stored.clip.source for stored in store.clips)
    return ", ".join(f"{source} ({count:,})" for source, count in counts.items())


def _front_end(run: Run) -> str:
    spec = run.spec
    if spec is None:
        return "–"
    window_ms, hop_ms = (1000 * samples / spec.sample_rate_hz for samples in (spec.n_fft, spec.hop_length))
    return (
        f"{spec.sample_rate_hz:,} Hz, {spec.num_mels} mels {spec.fmin_hz:g} to {spec.fmax_hz:g} Hz, "
        f"window {window_ms:g} ms, hop {hop_ms:g} ms"
    )
