"""Runs -> one self-contained HTML page, with its figures and tables as files beside it."""

from collections.abc import Sequence
from html import escape
from importlib.metadata import version
from itertools import cycle
from pathlib import Path

from melmask.report import page, sections
from melmask.report.tables import as_csv, as_markdown
from melmask.study.runs import read_runs
from melmask.study.table import tabulate
from melmask.viz import style

PAGE, TABLE_CSV, TABLE_MARKDOWN = "report.html", "results.csv", "results.md"


def report(runs: Sequence[Path], out: Path) -> Path:
    """Write one self-contained HTML page about runs, and next to it its figures, results.csv and results.md.

    The page depends on the run folders and their stores only, and is the same for the same files. Where a store, an
    evaluation or a checkpoint is missing, it states the command that makes it.

    Args:
        runs: folders of runs, of any frameworks.
        out: the folder to write to; is created if missing, and files of an earlier report are replaced.

    Returns:
        The page.

    Raises:
        ValueError: no runs, one twice, or one that is not a run folder or is damaged.
    """
    found = read_runs(runs)
    out.mkdir(parents=True, exist_ok=True)
    colours = {run.name: colour for run, colour in zip(found, cycle(style.RUN_COLOURS), strict=False)}
    table = tabulate(found)
    material = sections.Material(found, colours, table, page.Figures(out))
    chapters = {
        "Evaluations": sections.evaluations(material),
        "Recipes": sections.recipes(material),
        "Training": sections.training(material),
        "Masks": sections.masks(material),
        "Predictions": sections.predictions(material),
        "Provenance": sections.provenance(material, out),
    }
    (out / TABLE_CSV).write_text(as_csv(found), encoding="utf-8", errors="replace")
    (out / TABLE_MARKDOWN).write_text(as_markdown(table), encoding="utf-8", errors="replace")
    html = page.fill(
        title=escape(found[0].name if len(found) == 1 else f"{len(found)} runs compared"),
        summary=sections.summary(material),
        nav="".join(f'<a href="#{title.lower()}">{title}</a>' for title in chapters),
        sections="\n".join(page.section(title.lower(), title, *parts) for title, parts in chapters.items()),
        version=escape(version("melmask")),
    )
    (out / PAGE).write_text(html, encoding="utf-8", errors="replace")
    return out / PAGE
