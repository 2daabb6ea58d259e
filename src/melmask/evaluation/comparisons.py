"""comparisons.jsonl: what `melmask compare` found, in the folder of each run that was compared."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from melmask.encoders.registry import NamedEncoder
from melmask.evaluation.compare import Comparison, McNemar
from melmask.evaluation.metrics import Score

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
        with path.open("a") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))
        written.append(path)
    return written


def read_comparisons(runs: Sequence[Path]) -> list[KeptComparison]:
    """The comparisons in the folders of runs: the newest of each pair of encoders, task, probe and number of clips.

    A comparison of two of the runs stands in both folders, and is given once. A line that a killed process left
    incomplete is skipped.

    Raises:
        ValueError: a line is not a comparison.
    """
    newest: dict[tuple[Any, ...], KeptComparison] = {}
    for path in (run / COMPARISONS for run in runs):
        for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], start=1):
            try:
                kept = _from_line(json.loads(line))
            except json.JSONDecodeError:
                continue
            except (KeyError, TypeError) as error:
                raise ValueError(
                    f"{path}, line {number} is no comparison ({error}): delete it, compare again"
                ) from error
            one = kept.comparison
            newest[one.name_a, one.name_b, one.task, one.probe, one.difference.num_clips] = kept
    return list(newest.values())


def _from_line(values: dict[str, Any]) -> KeptComparison:
    """A comparison from a line; fields that this version does not have are left out."""
    found: dict[str, Any] = {field.name: values["comparison"][field.name] for field in fields(Comparison)}
    scores = {name: Score(**found[name]) for name in ("a", "b", "difference")}
    test = McNemar(**found["mcnemar"]) if found["mcnemar"] else None
    comparison = Comparison(**{**found, **scores, "mcnemar": test, "notes": tuple(found["notes"])})
    return KeptComparison(comparison, values["command"], values["version"])
