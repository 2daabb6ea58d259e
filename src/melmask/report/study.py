"""Studies -> one self-contained page with their findings, and the same figures and tables as files beside it."""

import shlex
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from markupsafe import Markup

from melmask.demo.corpus import MIN_CLIPS_PER_TASK, make_demo
from melmask.evaluation.results import RESULTS, Result, read_results
from melmask.nn.encoder_file import ENCODER, EncoderFile
from melmask.report import page, study_tables, study_words
from melmask.report.study_short import in_short
from melmask.study.analysis import NUM_DRAWS
from melmask.study.cost import AT_SCALE, masking_costs
from melmask.study.curves import RunCurves, collect_curves
from melmask.study.evidence import Evidence, read_evidence
from melmask.study.findings import margin_text
from melmask.study.kept import RUNS
from melmask.study.study import Cell, Study
from melmask.viz.arms import Sound, arms_figure
from melmask.viz.study import Look, effects_figure, looks_of, study_curves_figure, trade_off_figure

PAGE = "study.html"
DIFFERENCES_NOTE = (
    "Points of accuracy, minus the baseline with the same seed on the same clips, with 95 % intervals. p: two-sided, "
    "after Holm's adjustment for all means over tasks of this probe. p not worse: of a loss of the margin or more; p "
    "equal: of a difference of the margin or more in either direction. Seen: the smallest difference that would have "
    "been found four times in five. The margin, shaded grey, is {margin} and was fixed before the runs."
)
EFFECTS_CAPTION = (
    "Each arm's difference to {baseline} masking with its 95 % interval, by {probe}. Filled: better or worse after "
    "Holm's adjustment. Grey: the margin of equivalence, {margin}. An arrow: the interval goes on."
)
TRADE_OFF_CAPTION = (
    "What an arm gains on event tasks, against what it gains on the other tasks: speech, music and the rest. "
    "{baseline} masking is at the origin. The ellipse holds 95 % of the joint draws of both differences: of seeds, "
    "which both share, and of clips; the largest are cut at the frame. An arm to the right and below trades the other "
    "tasks for events."
)
SCORES_NOTE = (
    "Accuracy in percent by {probe}, the mean over seeds, with its 95 % interval; below it the difference to "
    "{baseline} in points. ▲ better, ▼ worse after Holm's adjustment, = equivalent within the margin. The intervals of "
    "scores are wide where there are few seeds; those of differences are paired. The untrained encoder and log-mel "
    "statistics learned nothing: what training is worth is what lies above them."
)
COST_NOTE = (
    "Time is measured, as the median over logs of runs: {where}. Operations are counted from the recipe: matrix "
    "products of a step, for one sample. GPU-hours are an estimate: the paper's recipe of that framework with this "
    "strategy on AudioSet, on one {device}, from its operations, the data sheet and an assumed utilisation "
    "(melmask docs planning)."
)
CURVES_CAPTION = (
    "Means over the runs of each arm, and the runs faintly. Losses of different strategies are not comparable: one "
    "that masks harder patches has a higher loss without being worse. An effective rank that falls towards 1 is a "
    "collapse."
)
MASKS_CAPTION = (
    "A mask of each arm at the end of its schedule, and how often each patch is masked in 200 draws: orange more often "
    "than under random masking, teal less often. Sounds: {sounds}. {guided} What is fitted to data is "
    "fitted to each sound."
)
Section = Callable[["Part"], list[Markup]]


@dataclass(frozen=True)
class Part:
    """One study of the page.

    Args:
        evidence: what its runs show.
        out: its folder.
        curves: of its runs, by name.
        looks: of its arms.
        figures: writes the figures.
        folder: of the page.
        prefix: of its files, where the page is about several studies.
        sounds: whose masks are shown; those of the built-in corpus if empty.
    """

    evidence: Evidence
    out: Path
    curves: Mapping[str, RunCurves]
    looks: Mapping[str, Look]
    figures: page.Figures
    folder: Path
    prefix: str
    sounds: tuple[Sound, ...]

    @property
    def study(self) -> Study:
        return self.evidence.study

    @property
    def words(self) -> dict[str, object]:
        """What captions are filled with."""
        return {
            "baseline": self.study.baseline,
            "probe": self.evidence.probe,
            "margin": margin_text(self.study.margin),
        }

    @property
    def groups(self) -> list[str]:
        """Those with scores."""
        probe = self.evidence.probe
        scored = {cell[0] for cell, other in self.evidence.compared[probe] if other is None}
        return [group for group in self.study.groups if group in scored]


def study_report(
    studies: Sequence[Study],
    out: Path,
    folder: Path,
    *,
    sounds: Sequence[Path] = (),
    num_draws: int = NUM_DRAWS,
) -> Path:
    """Write one self-contained HTML page about studies that share a folder, with its figures and tables beside it.

    Figures are written as PNG and SVG, tables as CSV, Markdown and LaTeX. An incomplete grid is reported as one.

    Args:
        studies: one or several, whose runs are in one folder.
        out: that folder. Only its .jsonl files are needed; curves.jsonl is completed from run folders where there are
            some.
        folder: to write to; is created if missing, and files of an earlier report are replaced.
        sounds: recordings whose masks are shown; those of the built-in corpus if empty.
        num_draws: see `melmask.study.analysis.draw_differences`.

    Returns:
        The page.

    Raises:
        ValueError: the folder has no results of one of the studies, or a sound cannot be read.
    """
    found = [(study, read_evidence(study, out, num_draws)) for study in studies]
    folder.mkdir(parents=True, exist_ok=True)
    figures = page.Figures(folder, svg=True)
    shown = tuple(Sound(path, path.stem) for path in sounds)
    parts = []
    for study, evidence in found:
        looks = looks_of(list(dict.fromkeys(cell.arm for cell in study.cells)), study.baseline)
        prefix = f"{study.name}-" if len(found) > 1 else ""
        curves = collect_curves(study, out)
        parts.append(Part(evidence, out, curves, looks, figures, folder, prefix, shown))
    sections: dict[str, Section] = {
        "Grid": grid_section,
        "Differences": differences_section,
        "Trade-off": trade_off_section,
        "Scores": scores_section,
        "Other choices": others_section,
        "Cost": cost_section,
        "Masks": masks_section,
        "Curves": curves_section,
        "Provenance": provenance_section,
    }
    chapters = {title: _of_all(parts, make) for title, make in sections.items()}
    summary = Markup("").join(_summary(part) for part in parts)
    title = " and ".join(study.name for study in studies)
    return page.write(folder / PAGE, title, chapters, summary, kicker="melmask study report")


def _of_all(parts: Sequence[Part], make: Section) -> list[Markup]:
    """A section of every study, under the study's name where there are several."""
    return [
        element
        for part in parts
        for element in ([page.heading(part.study.name)] if len(parts) > 1 else []) + make(part)
    ]


def _summary(part: Part) -> Markup:
    """The answer in words, after the floors that training does not pass."""
    lines = [*study_words.shortfalls(part.evidence), *in_short(part.evidence)]
    return page.part("summary", study_words.lead(part.evidence), [{"name": "", "text": text} for text in lines], [])


def grid_section(part: Part) -> list[Markup]:
    """Which runs there are, which failed, and what is left out."""
    study, evidence = part.study, part.evidence
    lacking = study_words.missing_runs(evidence)
    parts = [page.missing(lacking, shlex.join(["melmask", "study", "run", study.name, "--out", str(part.out)]))]
    parts = parts if lacking else [page.paragraph(f"All {len(evidence.runs)} runs are there.")]
    rows = [
        [cell.name, *(f"{evidence.runs[cell.run_name(seed)]} of {len(study.tasks)}" for seed in study.seeds)]
        for cell in study.cells
    ]
    table = page.table(["tasks evaluated", *(f"seed {seed}" for seed in study.seeds)], rows, numeric=True)
    parts.append(page.part("fold", f"{len(study.cells)} cells, {len(study.seeds)} seeds each", table))
    failed = [f"{one.run}, {one.stage}: {one.error}" for one in part.evidence.failures]
    for title, lines in (("Notes", evidence.notes), ("What failed, at some time", dict.fromkeys(failed))):
        if lines:
            parts += [page.heading(title), page.part("bullets", [{"name": "", "text": line} for line in lines], "")]
    return parts


def differences_section(part: Part) -> list[Markup]:
    """Every arm against the baseline: a figure, and a table a group."""
    evidence = part.evidence
    shown = evidence.means
    if not shown:
        return [page.missing(f"No arm has a run of the same seed as one of {part.study.baseline} yet.")]
    study_tables.differences_sheet(evidence, f"{part.prefix}differences").write(part.folder)
    figure = effects_figure(shown, evidence.mean_scopes, part.looks)
    caption = EFFECTS_CAPTION.format(**part.words)
    parts = [part.figures.add(f"{part.prefix}differences", figure, caption)]
    parts.append(page.paragraph(DIFFERENCES_NOTE.format(**part.words), "note"))
    for group in dict.fromkeys(one.group for one in shown):
        parts += [page.heading(group), study_tables.differences_html(evidence, group, part.looks)]
    return parts


def trade_off_section(part: Part) -> list[Markup]:
    """The picture of event tasks against the others."""
    points = part.evidence.trade_offs
    if not points:
        return [
            page.missing("No trade-off: it takes tasks of both kinds, events and others, and a complete pair of runs.")
        ]
    figure = trade_off_figure(points, part.study.baseline, part.looks)
    return [part.figures.add(f"{part.prefix}trade-off", figure, TRADE_OFF_CAPTION.format(**part.words))]


def scores_section(part: Part) -> list[Markup]:
    """The scores of every arm on every task: a table a group; those of further probes in a fold."""
    evidence = part.evidence
    study_tables.scores_sheet(evidence, f"{part.prefix}scores").write(part.folder)
    parts = [page.paragraph(SCORES_NOTE.format(**part.words), "note")]
    for group in part.groups:
        parts += [page.heading(group), study_tables.scores_html(evidence, group, part.looks, evidence.probe)]
    for probe in list(evidence.answers)[1:]:
        tables = [study_tables.scores_html(evidence, group, part.looks, probe) for group in part.groups]
        parts.append(page.part("fold", f"The same by {probe}", Markup("").join(tables)))
    return parts


def others_section(part: Part) -> list[Markup]:
    """How large the choices of framework, probe and seed are, and what was not varied."""
    sheet = study_tables.contrasts_sheet(part.evidence, f"{part.prefix}other-choices")
    sheet.write(part.folder)
    words = [page.paragraph(text) for text in study_words.not_varied(part.evidence)]
    table = page.table(sheet.header, sheet.rows, numeric=True)
    return [table, *words] if sheet.rows else words


def cost_section(part: Part) -> list[Markup]:
    """Time, operations and an estimate at scale for every cell."""
    sheet = study_tables.cost_sheet(masking_costs(part.study, part.curves), f"{part.prefix}cost")
    sheet.write(part.folder)
    machines = dict.fromkeys(
        f"{one.hardware or 'hardware not recorded'}, {one.num_threads} threads" for one in part.curves.values()
    )
    where = "; ".join(machines) if machines else "no log was kept, so it is not known"
    note = COST_NOTE.format(where=where, device=AT_SCALE)
    return [page.paragraph(note, "note"), page.table(sheet.header, sheet.rows, numeric=True)]


def masks_section(part: Part) -> list[Markup]:
    """What the arms of the first group mask of some sounds."""
    first = part.study.cells[0].recipe
    cells = [
        cell for cell in part.study.cells
        if cell.group == part.study.cells[0].group and cell.recipe.make_strategy().needs.guide != "loss"
        and (cell.recipe.patch_shape, cell.recipe.crop_frames) == (first.patch_shape, first.crop_frames)
    ]  # fmt: skip
    if not cells:
        return [page.missing("No masks: strategies that are guided by losses need a run; see `melmask report RUN`.")]
    encoders = {cell.arm: path for cell in cells if (path := _encoder_of(part, cell)) is not None}
    with tempfile.TemporaryDirectory() as corpus:
        try:
            sounds = part.sounds or _built_in(Path(corpus))
        except ImportError as error:
            return [page.missing(f"No masks are shown: {error}. Or name recordings with --sounds.")]
        loaded = {arm: EncoderFile.load(path).encoder for arm, path in encoders.items()}
        figure = arms_figure(sounds, cells, loaded)
    guided = "Strategies that are guided by features take those of "
    guided += "their own first run." if encoders else "an untrained encoder, as no run folder is there."
    names = ", ".join(sound.name for sound in sounds) + ("" if part.sounds else ", of the built-in corpus")
    caption = MASKS_CAPTION.format(sounds=names, guided=guided)
    return [part.figures.add(f"{part.prefix}masks", figure, caption)]


def _encoder_of(part: Part, cell: Cell) -> Path | None:
    """The encoder of the cell's first run; None where its folder is not there."""
    path = part.out / RUNS / cell.run_name(part.study.seeds[0]) / ENCODER
    return path if path.exists() else None


def _built_in(folder: Path) -> tuple[Sound, ...]:
    """The longest clip of three sets of the built-in corpus: an instrument, a note and speech."""
    manifests = make_demo(folder, clips_per_task=MIN_CLIPS_PER_TASK)
    names = {"instruments": "instrument", "chroma": "note", "speech_other": "speech"}
    clips = {
        one.stem: max(one.with_suffix("").glob("*.wav"), key=lambda clip: clip.stat().st_size) for one in manifests
    }
    return tuple(Sound(clips[stem], name) for stem, name in names.items())


def curves_section(part: Part) -> list[Markup]:
    """Loss and effective rank of all runs whose log is kept."""
    curves = {
        (cell.group, cell.arm): kept
        for cell in part.study.cells
        if (kept := [part.curves[name] for seed in part.study.seeds if (name := cell.run_name(seed)) in part.curves])
    }
    if not curves:
        return [page.missing("No curves: no run folder is there, and no curves.jsonl was kept.")]
    figure = study_curves_figure(curves, part.looks)
    return [part.figures.add(f"{part.prefix}curves", figure, CURVES_CAPTION)]


def provenance_section(part: Part) -> list[Markup]:
    """The commands, seeds, data and versions."""
    study, names = part.study, set(part.evidence.runs)
    results = [one for one in read_results(part.out / RESULTS) if one.encoder in names]
    commands = [["melmask", "study", what, study.name, "--out", str(part.out)] for what in ("run", "analyse", "report")]
    kept = list(part.curves.values())
    facts = [
        ["question", study.question],
        ["trained on", ", ".join(Path(source).name for source in study.sources)],
        ["but for", ", ".join(study.exclude) or "nothing"],
        ["seeds", ", ".join(map(str, study.seeds))],
        ["probes", ", ".join(study.probe_labels)],
        ["test clips", _clips(results)],
        ["draws", f"{part.evidence.num_draws:,} of seeds and clips, seed 0"],
        ["evaluated with melmask", _joined(one.version for one in results)],
        ["curves kept with melmask", _joined(one.melmask for one in kept)],
        ["curves kept with torch", _joined(one.torch for one in kept)],
        ["trained on hardware", _joined(one.hardware for one in kept)],
        ["page written with", f"melmask {version('melmask')}, numpy {version('numpy')}"],
    ]
    return [page.table(["", ""], facts), page.part("code", "\n".join(map(shlex.join, commands)))]


def _clips(results: Sequence[Result]) -> str:
    counts = dict.fromkeys(f"{one.task} {one.num_clips:,}" for one in results)
    return ", ".join(counts) or study_tables.NONE


def _joined(values: Iterable[str]) -> str:
    return ", ".join(sorted({value for value in values if value})) or study_tables.NONE
