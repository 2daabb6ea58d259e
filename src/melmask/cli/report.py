"""The command report: one page about runs."""

from tyro.conf import Positional

from melmask.cli.console import print_path
from melmask.cli.options import Folder, Runs


def report(runs: Positional[Runs], out: Folder) -> None:
    """Write an HTML report about one or more runs.

    The page holds all its figures; tables are also written as CSV and Markdown.

    Args:
        runs: folders of runs.
        out: the folder to write to.
    """
    from melmask.report.report import report as write_report

    print_path(write_report(runs, out), "the report: ")
