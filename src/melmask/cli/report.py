"""The command report: one page about runs."""

from pathlib import Path

from tyro.conf import Positional

from melmask.cli.console import console


def report(runs: Positional[tuple[Path, ...]], out: Path) -> None:
    """Write one self-contained HTML page about one or more runs.

    Args:
        runs: folders of runs.
        out: the folder to write to.
    """
    from melmask.report.report import report as write_report

    console.print(f"the report: [bold]{write_report(runs, out)}[/]", soft_wrap=True)
