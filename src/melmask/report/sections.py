"""The sections of a report: evaluations, recipes, training, masks, predictions and provenance, as HTML."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from markupsafe import Markup

from melmask.audio import AudioError
from melmask.evaluation.comparisons import KeptComparison
from melmask.files import file_name
from melmask.masking.base import num_visible_of
from melmask.nn.shipped import PREFIX
from melmask.report import page, tables, verdicts
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
from melmask.report.formats import duration
from melmask.report.sounds import as_url, excerpt
from melmask.study.others import OtherEncoder
from melmask.study.runs import Run, random_masks
from melmask.study.table import DEFAULT_SETTINGS, Table, score_curves
from melmask.train.recipe import Recipe, as_text
from melmask.viz import curves
from melmask.viz.masks import NUM_DRAWS
from melmask.viz.predictions import error_figure, reconstruction_figure, schedule_figure

NUM_SHOWN = 3
TABLE_NOTE = (
    "Scores in percent, each with its 95 % interval over test clips and trainings. Shaded: the highest score of its "
    "column, and all that equal it. Dotted: the paired test of melmask compare cannot tell it from a shaded one. Two "
    "intervals that overlap say nothing of a difference: only a paired test does. Grey: the baselines, which are not "
    "trained: the same encoder with random weights, and statistics of the log-mel spectrogram; they are the floor."
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
    def evidence(self) -> verdicts.Evidence:
        """The paired tests."""
        return verdicts.Evidence([kept.comparison for kept in self.comparisons])

    @property
    def scored(self) -> list[Run | OtherEncoder]:
        """All that may have scores."""
        return [*self.others, *self.runs]

    def name_of(self, run: Run) -> Markup:
        """A run's name with its colour, as HTML."""
        return page.chip(self.colours[run.name]) + run.name


def summary(material: Material) -> Markup:
    """The results in sentences, and each run in a line."""
    table = material.table
    columns = () if material.others else table.columns  # the table itself comes next
    results = [{"name": one.title, "text": verdicts.sentence(table, one, material.evidence)} for one in columns]
    runs = [{"name": material.name_of(run), "text": describe(run)} for run in material.runs]
    lead = ""
    if material.scored:
        lead = verdicts.verdict(table, material.evidence, [other.name for other in material.others])
    return page.part("summary", lead, results, runs)


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


def evaluations(material: Material) -> list[Markup]:
    """The table of scores, its chart, and the commands for runs that have not been evaluated."""
    parts: list[Markup] = []
    if material.table.columns:
        chart = curves.results_figure(material.table, material.colours)
        table = tables.as_html(material.table, material.colours, material.evidence)
        settings = material.table.settings
        read = f" Features of all melmask encoders here: {settings}." if settings not in ("", DEFAULT_SETTINGS) else ""
        parts = [page.paragraph(TABLE_NOTE + read, "note"), table]
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


def recipes(material: Material) -> list[Markup]:
    """The settings in which the runs differ, and all settings in a fold."""
    names = [field.name for field in dataclasses.fields(Recipe)]
    settings = [[name, *(as_text(getattr(run.recipe, name)) for run in material.runs)] for name in names]
    header = ["setting", *(run.name for run in material.runs)]
    folded = page.part("fold", f"All {len(settings)} settings", page.table(header, settings))
    if len(material.runs) == 1:
        return [page.paragraph(f"{describe(material.runs[0])}."), folded]
    different = [row for row in settings if len(set(row[1:])) > 1]
    if not different:
        return [page.paragraph("The runs have the same recipe."), folded]
    words = f"The runs differ in these settings; the other {len(settings) - len(different)} are the same."
    return [page.paragraph(words), page.table(header, different), folded]


def training(material: Material) -> list[Markup]:
    """The progress of each run, and its curves."""
    header = ["run", "steps done", "of", "loss", "effective rank", "feature deviation", "samples/s"]
    parts = [page.table(header, [_state(run) for run in material.runs], numeric=True)]
    parts.append(page.paragraph("Medians over the last tenth of the log.", "note"))
    parts.append(page.table(["run", "encoder", "trained in all", "hardware", "duration"], map(_means, material.runs)))
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


def _means(run: Run) -> list[str]:
    """The size of a run's model, what it was trained on, and for how long."""
    model = run.recipe.outline()
    of_encoder = sum(one.numel() for one in model.encoders()["online"].parameters())
    in_all = sum(one.numel() for one in model.parameters() if one.requires_grad)
    encoder, trained = (f"{count / 1e6:,.3g} M parameters" for count in (of_encoder, in_all))
    return [run.name, encoder, trained, run.hardware or "not recorded", duration(run.duration_s) if run.log else "–"]


def masks(material: Material) -> list[Markup]:
    """The strategies, how often they mask each frequency band, and masks of crops over each run's schedule."""
    header = ["run", "strategy", "guide", "mask ratio", "visible, masked", "hint ratio", "mean λ", "time share"]
    parts = [page.paragraph(MASKS_NOTE), page.table(header, [_strategy_row(run) for run in material.runs])]
    shown = {run.name: run for run in material.runs if run.can_guide}
    crops = {name: crops_of(run, run.store, NUM_SHOWN) for name, run in shown.items() if run.store is not None}
    for spec in dict.fromkeys(run.spec for run in shown.values() if run.spec):
        frequency = {name: band_frequency(run, crops[name]) for name, run in shown.items() if run.spec == spec}
        figure = curves.band_figure(frequency, shown, spec, material.colours)
        parts.append(material.figures.add("masks-by-band", figure, BANDS_CAPTION, narrow=True))
    for run in material.runs:
        parts.append(page.heading(material.name_of(run)))
        if run.name in shown:
            parts += _show_masks(material, run, crops[run.name])
        elif run.store is not None:
            parts.append(_no_checkpoint(run))
        else:
            parts.append(_no_store(run))
    return parts


def predictions(material: Material) -> list[Markup]:
    """Reconstructions and prediction errors of every run."""
    parts = [page.paragraph(PREDICTIONS_NOTE)]
    for run in material.runs:
        parts.append(page.heading(material.name_of(run)))
        if run.store is None:
            parts.append(_no_store(run))
        elif run.model is None:
            parts.append(_no_checkpoint(run))
        else:
            parts += _show_predictions(material, run, crops_of(run, run.store, NUM_SHOWN))
    return parts


def _no_store(run: Run) -> Markup:
    folder = run.data.get("store", "STORE")
    words = f"No figures: {run.store_problem}. To prepare the same sources again:"
    return page.missing(words, f"melmask prepare SOURCES --out {folder}")


def _no_checkpoint(run: Run) -> Markup:
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


def _show_masks(material: Material, run: Run, crops: Crops) -> list[Markup]:
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
    return [
        material.figures.add(file_name("masks", run.name), figure, caption),
        page.part("sounds", _heard(run, crops)),
    ]


def _heard(run: Run, crops: Crops) -> list[dict[str, str]]:
    """The sounds of the crops that are shown, as the template takes them."""
    assert run.spec is not None and run.store is not None
    length_s, heard = run.recipe.crop_frames / run.spec.frames_per_s, []
    for i in crops.shown:
        row, one = int(crops.clip[i]), {"name": crops.names[i], "url": "", "fault": "synthesised: no recording"}
        if row >= 0:
            start_s = float(crops.start_frame[i]) / run.spec.frames_per_s
            one["name"] = f"{crops.files[i]}, from {start_s:.1f} s"
            try:
                one["url"] = as_url(excerpt(run.store.clips[row].clip.path, start_s, length_s))
            except AudioError as error:
                one["fault"] = f"no sound: {error.reason}"
        heard.append(one)
    return heard


def _show_predictions(material: Material, run: Run, crops: Crops) -> list[Markup]:
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
