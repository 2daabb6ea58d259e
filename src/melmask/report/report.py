"""Runs -> one self-contained HTML page, with its figures and tables as files beside it."""

from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path

from markupsafe import Markup

from melmask.encoders.embeddings import Embeddings
from melmask.evaluation.comparisons import read_comparisons
from melmask.files import write_text
from melmask.report import page, sections
from melmask.report.comparisons import comparisons_section
from melmask.report.map import map_section
from melmask.report.provenance import provenance
from melmask.report.tables import as_csv, as_markdown
from melmask.study.others import OtherEncoder, read_others
from melmask.study.runs import Run, read_runs
from melmask.study.table import tabulate
from melmask.viz import style

PAGE, TABLE_CSV, TABLE_MARKDOWN = "report.html", "results.csv", "results.md"


def report(runs: Sequence[Path], out: Path, *, results: Sequence[Path] = (), embeddings: Path | None = None) -> Path:
    """Write one self-contained HTML page about runs, and next to it its figures, results.csv and results.md.

    The page depends on the run folders, their stores and the other files that are named only, and is the same for the
    same files. Where a store, an evaluation or a checkpoint is missing, it states the command that makes it.

    Args:
        runs: folders of runs, of any frameworks; may be none where results or embeddings are given.
        out: the folder to write to; is created if missing, and files of an earlier report are replaced.
        results: files that `melmask evaluate --out` wrote, for the scores of encoders that are no runs; comparisons are
            read beside them.
        embeddings: a file that `melmask embed` wrote, for a map of the recordings, some of whose sounds it plays.

    Returns:
        The page.

    Raises:
        ValueError: nothing to report, a run twice, one that is not a run folder or is damaged, or another file that
            is not what `melmask` wrote.
    """
    if not (runs or results or embeddings):
        raise ValueError(
            "a report needs at least one run, or results or embeddings: name the folders that `melmask pretrain` wrote"
        )
    found = read_runs(runs)
    others = read_others(results, found)
    embedded = Embeddings.load(embeddings) if embeddings else None
    out.mkdir(parents=True, exist_ok=True)
    scored: list[Run | OtherEncoder] = [*others, *found]
    colours = {one.name: colour for one, colour in zip(scored, cycle(style.RUN_COLOURS), strict=False)}
    comparisons = read_comparisons([*results, *(run.folder for run in found)])
    material = sections.Material(found, others, colours, tabulate(scored), comparisons, page.Figures(out))
    chapters: dict[str, list[Markup]] = {}
    if scored:
        chapters["Evaluations"] = sections.evaluations(material)
    if comparisons:
        chapters["Comparisons"] = comparisons_section(comparisons, colours, material.figures)
    if embedded and embeddings:
        chapters["Map"] = map_section(embedded, embeddings)
    of_runs: dict[str, Callable[[sections.Material], list[Markup]]] = {
        "Masks": sections.masks,
        "Predictions": sections.predictions,
        "Training": sections.training,
        "Recipes": sections.recipes,
    }
    if found:
        chapters |= {title: make(material) for title, make in of_runs.items()}
    inputs = {"--results": results, "--map": [embeddings] if embeddings else []}
    chapters["Provenance"] = provenance(material, inputs, out)
    write_text(out / TABLE_CSV, as_csv(scored), errors="replace")
    write_text(out / TABLE_MARKDOWN, as_markdown(material.table), errors="replace")
    return page.write(out / PAGE, _title(material, embedded), chapters, sections.summary(material))


def _title(material: sections.Material, embedded: Embeddings | None) -> str:
    names = [one.name for one in material.scored]
    if len(names) > 1:
        return f"{len(names)} {'encoders' if material.others else 'runs'} compared"
    return names[0] if names else f"{len(embedded.clips) if embedded else 0:,} recordings"
