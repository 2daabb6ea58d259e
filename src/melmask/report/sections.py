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

import torch

from melmask.data.store import Store
from melmask.evaluation.comparisons import KeptComparison
from melmask.files import file_name
from melmask.masking.base import num_visible_of
from melmask.nn.shipped import PREFIX
from melmask.report import page, tables
from melmask.report.crops import (
    MASKS_PER_CROP,
    NUM_CROPS,
    Crops,
    band_frequency,
    crops_of,
    error_by_patch,
    guide_of,
    stages_of,
)
from melmask.report.formats import html_table
from melmask.study.others import OtherEncoder
from melmask.study.runs import Run, random_masks
from melmask.study.table import Table, score_curves
from melmask.train.recipe import Recipe, as_text
from melmask.viz import curves
from melmask.viz.masks import NUM_DRAWS
from melmask.viz.predictions import error_figure, reconstruction_figure, schedule_figure

NUM_SHOWN = 3
TABLE_NOTE = (
    "Scores in percent, each with its 95 % bootstrap interval over test clips and trainings. Shaded: the best of its "
    "column. Dotted: the interval overlaps that of the best, so their order is uncertain. Grey: the baselines, which "
    "are not trained: the same encoder with random weights, and statistics of the log-mel spectrogram."
)
CHART_CAPTION = (
    "Each bar is a score, its black line the 95 % interval. Coloured bars are trained encoders, grey bars the "
    "baselines: the gain from training is the distance to the grey bars."
)
STEPS_CAPTION = (
    "Scores of the encoders that were kept along the runs, and of each run's last one, over the optimiser steps that "
    "they were trained for; shaded, the 95 % intervals. The learning rate falls to zero at the end of a run, so that "
    "an encoder from within it is not what a shorter run would have given."
)
CURVES_CAPTION = (
    "Noisy values are drawn faint, under their moving average. An effective rank or a feature deviation that falls "
    "towards its minimum indicates that the features collapse. Losses are comparable within a framework only; there, "
    "too, a strategy that masks harder patches has a higher loss without being worse."
)
GUIDES = {
    "nothing": "none",
    "patches": "patches",
    "features": "encoder's features",
    "attention": "class token's attention",
    "loss": "past losses",
}
GUIDED_BY = {
    "features": ", guided by the features of the encoder as last saved",
    "attention": ", guided by the attention of the encoder's class token as last saved",
    "loss": ", guided by the losses recorded up to the last checkpoint",
}
MASKS_NOTE = (
    "The hint ratio h is the share of a strategy's masked patches that is replaced by randomly drawn ones. The "
    "guidance λ is the share of the strategy's preference that remains: 0 is random masking, 1 the strategy alone. It "
    "is smaller than 1 − h. The time share is that of guides and masks in a training step, as the median over the run."
)
BANDS_CAPTION = (
    "How often the patches of each frequency band are masked at the end of the schedules, compared with random masking "
    "(the vertical line). A strategy that is guided by the sound may prefer some bands whatever it contains, for "
    f"example low frequencies. Mean over {NUM_CROPS} crops of each run's data."
)
PREDICTIONS_NOTE = (
    "All runs get uniformly random masks here, each at its own mask ratio, so that their predictions are comparable."
)
ERRORS_CAPTION = (
    f"Top: the error at every patch of the grid, averaged over {NUM_CROPS} crops with {MASKS_PER_CROP} random masks "
    "each: {scale}. Below: single crops, their visible patches, and the error of each masked patch."
)


@dataclass(frozen=True)
class Material:
    """The input of all sections of a report.

    Args:
        runs: the runs.
        others: encoders that are no runs.
        colours: of all of them, by name, in all figures.
        table: their evaluations.
        comparisons: of pairs of them.
        figures: writes the figures.
    """

    runs: Sequence[Run]
    others: Sequence[OtherEncoder]
    colours: Mapping[str, str]
    table: Table
    comparisons: Sequence[KeptComparison]
    figures: page.Figures

    @property
    def scored(self) -> list[Run | OtherEncoder]:
        """All that may have scores."""
        return [*self.others, *self.runs]

    def name_of(self, run: Run) -> str:
        """A run's name with its colour, as HTML."""
        return f"{page.chip(self.colours[run.name])}{escape(run.name)}"


def summary(material: Material) -> str:
    """The results in sentences, and each run in a line."""
    table = material.table
    columns = () if material.others else table.columns  # the table itself comes next
    results = [f"<li><b>{escape(one.title)}</b>: {escape(tables.sentence(table, one))}</li>" for one in columns]
    runs = [f"<li><b>{material.name_of(run)}</b>: {escape(describe(run))}</li>" for run in material.runs]
    lead = ""
    if material.scored:
        verdict = tables.verdict(table, [other.name for other in material.others])
        lead = f'<p class="lead">{escape(verdict)}</p>'
    findings = f"<ul>{''.join(results)}</ul>" if results else ""
    listed = f'<ul class="runs">{"".join(runs)}</ul>' if runs else ""
    return f'<div class="summary">{lead}{findings}</div>{listed}' if lead else listed


def describe(run: Run) -> str:
    """A run in one line of plain text."""
    recipe = run.recipe
    length = f" of {recipe.crop_frames / run.spec.frames_per_s:.3g} s" if run.spec else ""
    steps = f"{run.num_steps:,} steps" if run.num_steps else f"{recipe.epochs:g} epochs"
    guided = f", mean guidance λ {run.mean_guidance:.2f}" if run.mean_guidance is not None else ""
    started = f", started from {Path(run.initial.removeprefix(PREFIX)).name}" if run.initial else ""
    unfinished = "" if run.is_complete else f"; {run.num_steps_done:,} steps done so far"
    return (
        f"{recipe.framework} with a {recipe.size} encoder, {recipe.strategy} masking of "
        f"{100 * recipe.mask_ratio:g} %{guided}, {steps} of {recipe.batch_size:,} crops{length}{started}{unfinished}"
    )


def evaluations(material: Material) -> list[str]:
    """The table of scores, its chart, and the commands for runs that have not been evaluated."""
    parts = []
    if material.table.columns:
        chart = curves.results_figure(material.table, material.colours)
        table = tables.as_html(material.table, material.colours)
        parts = [f'<p class="note">{escape(TABLE_NOTE)}</p>', table]
        parts.append(material.figures.add("evaluations", chart, CHART_CAPTION))
    along = score_curves(material.runs)
    if along:
        chart = curves.scores_figure(along, material.colours)
        parts.append(material.figures.add("scores-over-steps", chart, STEPS_CAPTION))
    for run in material.runs:
        if not run.results:
            command = shlex.join(["melmask", "evaluate", str(run.folder), "--task", "TASK.csv"])
            parts.append(page.missing(f"{run.name} has not been evaluated. To evaluate it:", command))
    return parts


def recipes(material: Material) -> list[str]:
    """The settings in which the runs differ, and all settings in a fold."""
    names = [field.name for field in dataclasses.fields(Recipe)]
    settings = [[name, *(as_text(getattr(run.recipe, name)) for run in material.runs)] for name in names]
    header = ["setting", *(run.name for run in material.runs)]
    folded = f"<details><summary>All {len(settings)} settings</summary>{html_table(header, settings)}</details>"
    if len(material.runs) == 1:
        return [f"<p>{escape(describe(material.runs[0]))}.</p>", folded]
    different = [row for row in settings if len(set(row[1:])) > 1]
    if not different:
        return ["<p>The runs have the same recipe.</p>", folded]
    words = f"<p>The runs differ in these settings; the other {len(settings) - len(different)} are the same.</p>"
    return [words, html_table(header, different), folded]


def training(material: Material) -> list[str]:
    """The progress of each run, and its curves."""
    header = ["run", "steps done", "of", "loss", "effective rank", "feature deviation", "samples/s"]
    parts = [html_table(header, [_state(run) for run in material.runs], numeric=True)]
    parts.append('<p class="note">Medians over the last tenth of the log.</p>')
    logged = [run for run in material.runs if run.log]
    if logged:
        chart = curves.curves_figure(logged, material.colours)
        parts.append(material.figures.add("training", chart, CURVES_CAPTION))
    for run in material.runs:
        if not run.is_complete:
            words = f"{run.name} is not complete. To resume it:"
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
    """The strategies, how often they mask each frequency band, and masks of crops over each run's schedule."""
    header = ["run", "strategy", "guide", "mask ratio", "visible, masked", "hint ratio", "mean λ", "time share"]
    parts = [f"<p>{escape(MASKS_NOTE)}</p>", html_table(header, [_strategy_row(run) for run in material.runs])]
    shown = {run.name: run for run in material.runs if run.can_guide}
    crops = {name: crops_of(run, run.store, NUM_SHOWN) for name, run in shown.items() if run.store is not None}
    for spec in dict.fromkeys(run.spec for run in shown.values() if run.spec):
        frequency = {name: band_frequency(run, crops[name]) for name, run in shown.items() if run.spec == spec}
        figure = curves.band_figure(frequency, shown, spec, material.colours)
        parts.append(material.figures.add("masks-by-band", figure, BANDS_CAPTION, narrow=True))
    for run in material.runs:
        parts.append(f"<h3>{material.name_of(run)}</h3>")
        if run.name in shown:
            parts.append(_show_masks(material, run, crops[run.name]))
        elif run.store is not None:
            parts.append(_no_checkpoint(run))
        else:
            parts.append(_no_store(run))
    return parts


def predictions(material: Material) -> list[str]:
    """Reconstructions and prediction errors of every run."""
    parts = [f"<p>{escape(PREDICTIONS_NOTE)}</p>"]
    for run in material.runs:
        parts.append(f"<h3>{material.name_of(run)}</h3>")
        if run.store is None:
            parts.append(_no_store(run))
        elif run.model is None:
            parts.append(_no_checkpoint(run))
        else:
            parts += _show_predictions(material, run, crops_of(run, run.store, NUM_SHOWN))
    return parts


def _no_store(run: Run) -> str:
    folder = run.data.get("store", "STORE")
    words = f"No figures: {run.store_problem}. To prepare the same sources again:"
    return page.missing(words, f"melmask prepare SOURCES --out {folder}")


def _no_checkpoint(run: Run) -> str:
    return page.missing("No figures: the run has not saved a checkpoint yet.", f"{run.pretrain_command} --resume")


def _strategy_row(run: Run) -> list[str]:
    """A run's line in the table of strategies."""
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
    guide, ratio = GUIDES[strategy.needs.guide], f"{recipe.mask_ratio:g}"
    return [run.name, recipe.strategy + options, guide, ratio, counts, _hints(run), guided, share]


def _hints(run: Run) -> str:
    """The schedule of the hint ratio, in words."""
    recipe = run.recipe
    if not recipe.takes_hints:
        return "no hints"
    if recipe.guidance:
        points = ", ".join(f"{value:g} at {100 * progress:.3g} %" for progress, value in recipe.guidance)
        return f"set so that λ = {points} of the run"
    if recipe.hint_constant is not None:
        return f"{recipe.hint_constant:g} throughout"
    falls = {"power": f"1 − progress^{recipe.hint_power:g}", "cosine": "a cosine to 0", "delayed": "0"}
    return f"1 for the first {100 * recipe.hint_start:.3g} % of the run, then {falls[recipe.hint_shape]}"


def _show_masks(material: Material, run: Run, crops: Crops) -> str:
    """The figure of the run's masks over its schedule."""
    recipe, shown, stages = run.recipe, torch.tensor(crops.shown), stages_of(run)
    assert run.spec is not None
    figure = schedule_figure(
        crops.spectrograms(run.spec),
        guide_of(run, crops, shown),
        crops.valid[shown],
        stages=stages,
        strategy_name=recipe.strategy,
        mask_ratio=recipe.mask_ratio,
    )
    guided = GUIDED_BY.get(recipe.make_strategy().needs.guide, "")
    course = " at three moments of the run's schedule" if stages[0].name == "start" else ""
    caption = (
        f"Left, crops of the run's data; then its masks{course}{guided}. Right, how often each patch is masked in "
        f"{NUM_DRAWS} draws: orange more often than under random masking, teal less often. {crops.shown_files}"
    )
    return material.figures.add(file_name("masks", run.name), figure, caption)


def _show_predictions(material: Material, run: Run, crops: Crops) -> list[str]:
    """The figures of a run's reconstructions and of its errors."""
    model, parts = run.model, []
    assert model is not None and run.spec is not None
    patches, shown = crops.patches[list(crops.shown)], crops.spectrograms(run.spec)
    mask = random_masks(run, crops.grid, len(shown), seed=0)
    reconstruction = model.reconstruct(patches, crops.grid, mask)
    if reconstruction is not None:
        figure = reconstruction_figure(shown, mask, reconstruction)
        caption = f"{model.reconstruction_note} {crops.shown_files}"
        parts.append(material.figures.add(file_name("reconstructions", run.name), figure, caption))
    with torch.no_grad():
        error = model(patches, crops.grid, mask).per_patch
    figure = error_figure(error_by_patch(run, model, crops), shown, mask, error, model.loss_label)
    caption = f"{ERRORS_CAPTION.format(scale=model.loss_scale)} {crops.shown_files}"
    return [*parts, material.figures.add(file_name("errors", run.name), figure, caption)]


def provenance(material: Material, inputs: Mapping[str, Sequence[Path]], out: Path) -> list[str]:
    """The data, the commands that reproduce the runs and this page, and the versions of the packages.

    Args:
        material: what the page is about.
        inputs: the other files that it was made of, by the option that names them.
        out: its folder.
    """
    data = [_data_row(run) for run in material.runs]
    header = ["run", "store", "fingerprint", "clips", "hours", "sources", "front end", "log-mel mean, deviation"]
    commands = [
        "melmask prepare SOURCES --out " + shlex.quote(store) for store in dict.fromkeys(row[1] for row in data)
    ]
    commands += [run.pretrain_command for run in material.runs]
    commands += dict.fromkeys(result.command for one in material.scored for result in one.results if result.command)
    commands += dict.fromkeys(kept.command for kept in material.comparisons)
    options = [part for option, files in inputs.items() if files for part in (option, *map(str, files))]
    commands.append(
        shlex.join(["melmask", "report", *(str(run.folder) for run in material.runs), *options, "--out", str(out)])
    )
    evaluated = sorted({result.version for one in material.scored for result in one.results})
    versions = [["Python", platform.python_version()]]
    versions += [[name, version(name)] for name in ("melmask", "torch", "numpy", "matplotlib")]
    versions += [["evaluated with melmask", ", ".join(evaluated)]] if evaluated else []
    return [
        *(["<h3>Data</h3>", html_table(header, data)] if data else []),
        "<h3>Commands</h3>",
        f"<pre>{escape(chr(10).join(commands))}</pre>",
        "<h3>Versions that wrote this page</h3>",
        html_table(["package", "version"], versions),
    ]


def _data_row(run: Run) -> list[str]:
    """The data of a run; a dash where it is not known."""
    name, store = run.data.get("store", "not recorded"), run.store
    fingerprint = run.data.get("fingerprint", "not recorded")[:16]
    statistics = f"{run.data['mean']:.3f}, {run.data['std']:.3f}" if "mean" in run.data else "not recorded"
    if store is None:
        return [run.name, name, fingerprint, "–", "–", "–", _front_end(run), statistics]
    if not len(store):
        return [run.name, name, fingerprint, "–", "without end", "–", _front_end(run), statistics]
    hours = f"{store.info['duration_s'] / 3600:.2f}"
    return [run.name, name, fingerprint, f"{len(store.clips):,}", hours, _sources(store), _front_end(run), statistics]


def _sources(store: Store) -> str:
    counts = Counter(store.clips.words("source"))
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
