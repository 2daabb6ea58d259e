"""The sections of a report that are tables, charts and commands: evaluations, recipes, training, provenance."""

import dataclasses
import platform
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

from melmask.data.store import Store
from melmask.study import charts, page
from melmask.study.results import Column, Row, best_of, interval, overlap, percent, sentence, verdict
from melmask.study.runs import Run
from melmask.train.recipe import Recipe

TABLE_WORDS = (
    "Scores in percent, each with its 95 % interval over the choice of test clips. Shaded: the best of its column. "
    "Dotted: the interval overlaps that of the best, so the order of the two may be chance. Grey: the floors, on which "
    "no training was spent, namely the same encoder with fresh weights, and statistics of the log-mel spectrogram."
)
FIGURE_WORDS = (
    "Each bar is a score, its black line the 95 % interval. Coloured bars are trained encoders, grey ones the floors: "
    "what training is worth is the distance from the grey bars."
)
CURVE_WORDS = (
    "Noisy values are drawn faint, under their moving average. An effective rank or a feature deviation that falls "
    "towards its lowest value would show that the features collapse. Losses can be compared within a framework only, "
    "and even there a strategy that masks harder patches has the higher loss without being worse."
)


@dataclass(frozen=True)
class Material:
    """What all sections of a report draw on.

    Args:
        runs: the runs.
        colours: of the runs, by name, in all figures.
        columns: of the table of evaluations.
        rows: of the table of evaluations.
        pictures: takes the figures.
    """

    runs: Sequence[Run]
    colours: Mapping[str, str]
    columns: Sequence[Column]
    rows: Sequence[Row]
    pictures: page.Pictures

    def name_of(self, run: Run) -> str:
        """A run's name with its colour, as HTML."""
        return f"{page.chip(self.colours[run.name])}{escape(run.name)}"


def summary(material: Material) -> str:
    """What the evaluations say in plain words, and what each run is."""
    said = [
        f"<li><b>{escape(column.title)}</b>: {escape(sentence(column, material.rows))}</li>"
        for column in material.columns
    ]
    runs = [f"<li><b>{material.name_of(run)}</b>: {escape(describe(run))}</li>" for run in material.runs]
    lead = f'<p class="lead">{escape(verdict(material.columns, material.rows))}</p>'
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
    if material.columns:
        chart = charts.results_figure(material.columns, material.rows, material.colours)
        table = results_table(material)
        parts = [f'<p class="note">{escape(TABLE_WORDS)}</p>', table]
        parts.append(material.pictures.add("evaluations", chart, FIGURE_WORDS))
    for run in material.runs:
        if not run.results:
            command = shlex.join(["melmask", "evaluate", str(run.folder), "--task", "TASK.csv"])
            parts.append(page.missing(f"{run.name} has not been evaluated. This command does it:", command))
    return parts


def results_table(material: Material) -> str:
    """Runs and floors against tasks and probes, the best of each column marked."""
    heads = [
        f'<th class="number">{escape(c.task)}<small>{escape(c.probe)} probe, {escape(c.metric)}</small>'
        f"<small>{escape(c.note)}</small></th>"
        for c in material.columns
    ]
    body = []
    for row in material.rows:
        cells = "".join(_result_cell(row, column, material.rows) for column in material.columns)
        name = page.chip(material.colours[row.run]) if row.is_run else ""
        body.append(f'<tr class="{"run" if row.is_run else "floor"}"><th>{name}{escape(row.label)}</th>{cells}</tr>')
    return page.raw_table(f"<tr><th></th>{''.join(heads)}</tr>", body)


def _result_cell(row: Row, column: Column, rows: Sequence[Row]) -> str:
    if column not in row.cells:
        return '<td class="number muted">–</td>'
    cell, best = row.cells[column], best_of(column, rows)
    mark = " best" if row is best else " near" if overlap(cell, best.cells[column]) else ""
    seeds = f", {cell['num_seeds']} seeds" if cell["num_seeds"] > 1 else ""
    return f'<td class="number{mark}"><b>{percent(cell["score"])}</b><small>{interval(cell)}{seeds}</small></td>'


def recipes(material: Material) -> list[str]:
    """The settings in which the runs differ, and all of them folded away."""
    names = [field.name for field in dataclasses.fields(Recipe)]
    settings = [[name, *(_shown(getattr(run.recipe, name)) for run in material.runs)] for name in names]
    header = ["setting", *(run.name for run in material.runs)]
    folded = f"<details><summary>All {len(settings)} settings</summary>{page.table(header, settings)}</details>"
    if len(material.runs) == 1:
        return [f"<p>{escape(describe(material.runs[0]))}.</p>", folded]
    different = [row for row in settings if len(set(row[1:])) > 1]
    if not different:
        return ["<p>The runs have the same recipe.</p>", folded]
    words = f"<p>The runs differ in these settings; the other {len(settings) - len(different)} are the same.</p>"
    return [words, page.table(header, different), folded]


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
    parts = [page.table(header, [_state(run) for run in material.runs], numeric=True)]
    parts.append('<p class="note">Each the median of the last tenth of the log.</p>')
    logged = [run for run in material.runs if run.log]
    if logged:
        chart = charts.curves_figure(logged, material.colours)
        parts.append(material.pictures.add("training", chart, CURVE_WORDS))
    for run in material.runs:
        if not run.is_complete:
            words = f"{run.name} is not complete. This command goes on with it:"
            parts.append(page.missing(words, f"{run.pretrain_command} --resume"))
    return parts


def _state(run: Run) -> list[str]:
    last = run.log[-max(1, len(run.log) // 10) :]

    def median(name: str, form: str) -> str:
        values = sorted(line[name] for line in last)
        return format(values[len(values) // 2], form) if values else "–"

    of = f"{run.num_steps:,}" if run.num_steps else "–"
    numbers = [median("loss", ".4f"), median("effective_rank", ".1f"), median("feature_deviation", ".3f")]
    return [run.name, f"{run.num_steps_done:,}", of, *numbers, median("samples_per_s", ",.0f")]


def provenance(material: Material, out: Path) -> list[str]:
    """The data, the commands that make all this again, and the versions at work."""
    data = [row for run in material.runs for row in [_data_row(run)]]
    header = ["run", "store", "fingerprint", "clips", "hours", "sources", "front end", "log-mel mean, deviation"]
    commands = [
        "melmask prepare SOURCES --out " + shlex.quote(store) for store in dict.fromkeys(row[1] for row in data)
    ]
    commands += [run.pretrain_command for run in material.runs]
    commands += dict.fromkeys(result["command"] for run in material.runs for result in run.results)
    commands.append(shlex.join(["melmask", "report", *(str(run.folder) for run in material.runs), "--out", str(out)]))
    evaluated = sorted({result["version"] for run in material.runs for result in run.results})
    versions = [["Python", platform.python_version()]]
    versions += [[name, version(name)] for name in ("melmask", "torch", "numpy", "matplotlib")]
    versions += [["evaluated with melmask", ", ".join(evaluated)]] if evaluated else []
    return [
        "<h3>Data</h3>",
        page.table(header, data),
        "<h3>Commands</h3>",
        f"<pre>{escape(chr(10).join(commands))}</pre>",
        "<h3>Versions that made this page</h3>",
        page.table(["package", "version"], versions),
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
