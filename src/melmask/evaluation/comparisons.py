"""comparisons.jsonl: what `melmask compare` found, in the folder of each run that was compared."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from melmask.encoders.registry import NamedEncoder
from melmask.evaluation.compare import Comparison
from melmask.fields import make
from melmask.files import append_lines, good_lines

COMPARISONS = "comparisons.jsonl"


@dataclass(frozen=True)
class KeptComparison:
    """A line of comparisons.jsonl.

    Args:
        comparison: what was found.
        command: the command line.
        version: of melmask.
    """

    comparison: Comparison
    command: str
    version: str


def keep_comparisons(encoders: Sequence[NamedEncoder], comparisons: Sequence[Comparison], command: str) -> list[Path]:
    """Append comparisons to comparisons.jsonl in the folder of each run among the encoders, one a line.

    Returns:
        The files that were written: none if no encoder is a run's.
    """
    lines = [asdict(KeptComparison(one, command, version("melmask"))) for one in comparisons]
    written = []
    for run in dict.fromkeys(run for encoder in encoders for run in encoder.runs):
        path = run / COMPARISONS
        append_lines(path, lines)
        written.append(path)
    return written


def read_comparisons(runs: Sequence[Path]) -> list[KeptComparison]:
    """The comparisons in the folders of runs: the newest of each pair of encoders, task, probe and number of clips.

    A comparison of two of the runs stands in both folders, and is given once. A damaged line is skipped, stays in the
    file, and is named in a warning.
    """
    newest: dict[tuple[Any, ...], KeptComparison] = {}
    for path in (run / COMPARISONS for run in runs):
        for kept in good_lines(path, from_line):
            one = kept.comparison
            newest[one.name_a, one.name_b, one.task, one.probe, one.difference.num_clips] = kept
    return list(newest.values())


def from_line(values: dict[str, Any]) -> KeptComparison:
    """A comparison from a line; fields that this version does not have are left out."""
    kept = {field.name: values["comparison"][field.name] for field in fields(Comparison)}
    return make(KeptComparison, {"comparison": kept, "command": values["command"], "version": values["version"]})
