"""The command report: one page about runs, other encoders and recordings."""

from tyro.conf import Positional

from melmask.cli.console import print_next, print_path
from melmask.cli.options import Embedded, Folder, OptionalRuns, Results


def report(
    out: Folder,
    runs: Positional[OptionalRuns] = (),
    results: Results = (),
    map: Embedded = None,
) -> None:
    """Write an HTML report about one or more runs.

    Example: melmask report run --out report

    The page holds its figures and sounds; tables are CSV and Markdown files too.

    Args:
        runs: folders of runs.
        out: the folder to write to.
        results: files of `melmask evaluate --out`, for the scores of encoders that are no runs.
        map: a file of `melmask embed`, for a map of its recordings that plays their sounds.
    """
    from melmask.report.report import report as write_report

    page = write_report(runs, out, results=results, embeddings=map)
    print_path(page, "the report: ")
    print_next("python", "-m", "webbrowser", page)
