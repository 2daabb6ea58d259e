"""comparisons.jsonl: pairs of encoders on the same clips, in the folders of runs and beside files of results.

`melmask compare` writes what it finds, and `melmask evaluate` how each encoder stands to its baselines.
"""

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


def keep_comparisons(
    encoders: Sequence[NamedEncoder], comparisons: Sequence[Comparison], command: str, out: Path | None = None
) -> list[Path]:
    """Append the comparisons of each run to its folder, and all of them beside the file of results ``out``, one a line.

    A comparison with a baseline is of the encoder's run, and not of others that share this baseline.

    Returns:
        The files that were written: none if no encoder is a run's, and no file is given.
    """
    runs_of = {encoder.name: () if encoder.baseline_of else encoder.runs for encoder in encoders}
    written = []
    for run in dict.fromkeys(run for runs in runs_of.values() for run in runs):
        own = [one for one in comparisons if run in (*runs_of[one.name_a], *runs_of[one.name_b])]
        written += _append(comparisons_of(run), own, command)
    return written + (_append(comparisons_of(out), comparisons, command) if out else [])


def comparisons_of(path: Path) -> Path:
    """The file of comparisons in a run's folder, or beside a file of results: scores.comparisons.jsonl."""
    return path / COMPARISONS if path.is_dir() else path.with_name(f"{path.stem}.{COMPARISONS}")


def _append(path: Path, comparisons: Sequence[Comparison], command: str) -> list[Path]:
    if not comparisons:
        return []
    append_lines(path, [asdict(KeptComparison(one, command, version("melmask"))) for one in comparisons])
    return [path]


def read_comparisons(paths: Sequence[Path]) -> list[KeptComparison]:
    """The comparisons in the folders of runs and beside files of results.

    Of each pair of encoders, task, probe and number of clips the newest is read. A comparison of two of the runs stands
    in both folders, and is given once. A damaged line is skipped, stays in the file, and is named in a warning.
    """
    newest: dict[tuple[Any, ...], KeptComparison] = {}
    for path in map(comparisons_of, paths):
        for kept in good_lines(path, from_line):
            one = kept.comparison
            newest[one.name_a, one.name_b, one.task, one.probe, one.difference.num_clips] = kept
    return list(newest.values())


def from_line(values: dict[str, Any]) -> KeptComparison:
    """A comparison from a line; fields that this version does not have are left out."""
    kept = {field.name: values["comparison"][field.name] for field in fields(Comparison)}
    return make(KeptComparison, {"comparison": kept, "command": values["command"], "version": values["version"]})
