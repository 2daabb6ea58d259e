"""Write docs/guidance.md, its pictures, the README's table and the page of the studies, from their results.

make study-report     # or: PYTHONPATH=tools python -m guidance
"""

import argparse
from pathlib import Path

from guidance.found import Found, read_found
from guidance.text import guidance, readme_section, with_section
from melmask.files import write_bytes, write_text
from melmask.report.study import study_report
from melmask.viz.study import effects_figure, looks_of, trade_off_figure
from melmask.viz.style import png_of


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, and write all of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("studies/small"), help="folder of the studies' results")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of guidance.md and its pictures")
    parser.add_argument("--readme", type=Path, default=Path("README.md"), help="page with the table of the study")
    parser.add_argument("--page", type=Path, default=Path("out/study"), help="folder of the page of the studies")
    given = parser.parse_args(arguments)
    found = read_found(given.results)
    given.docs.mkdir(parents=True, exist_ok=True)
    write_text(given.docs / "guidance.md", guidance(found, given.results))
    write_text(given.readme, with_section(given.readme.read_text(encoding="utf-8"), readme_section(found)))
    written = [given.docs / "guidance.md", given.readme, *draw(found, given.docs / "guidance")]
    if found.studies:
        written.append(study_report(found.studies, given.results, given.page))
    else:
        print(f"{given.results} has no results of small or ablations yet: no page is written")
    print("\n".join(map(str, written)))


def draw(found: Found, folder: Path) -> list[Path]:
    """Draw the pictures of the guidance; the files."""
    figures = {}
    for evidence in (found.small, found.ablations):
        if evidence is None:
            continue
        study = evidence.study
        looks = looks_of(list(dict.fromkeys(cell.arm for cell in study.cells)), study.baseline)
        if evidence.means:
            figures[f"{study.name}-differences"] = effects_figure(evidence.means, evidence.mean_scopes, looks)
        if evidence is found.small and evidence.trade_offs:
            figures["trade-off"] = trade_off_figure(evidence.trade_offs, study.baseline, looks)
    for name, figure in figures.items():
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / f"{name}.png", png_of(figure))
    return [folder / f"{name}.png" for name in figures]


if __name__ == "__main__":
    main()
