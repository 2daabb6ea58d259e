"""Encoders that are no runs, read for reports from files of results: shipped, published and those of other makes."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from melmask.encoders.features import WHITENED
from melmask.encoders.registry import ENCODER, LOGMEL_STATISTICS, UNTRAINED
from melmask.evaluation.results import Result, read_results
from melmask.study.runs import Run

BASELINES = (UNTRAINED, LOGMEL_STATISTICS)  # what results call the features of those


@dataclass(frozen=True)
class OtherEncoder:
    """The evaluations of an encoder that is no run's, and of its baselines.

    Args:
        name: its name in tables.
        results: the newest of each kind; its own have the features "encoder".
    """

    name: str
    results: Sequence[Result]


def read_others(files: Sequence[Path], runs: Sequence[Run] = ()) -> list[OtherEncoder]:
    """The encoders in files that `melmask evaluate --out FILE` wrote, in their order there.

    Args:
        files: of results.
        runs: of the same report, whose encoders are left out, as their folders hold these results too.

    Raises:
        ValueError: a file is missing, or a line is not a result.
    """
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise ValueError(f"no results at {missing[0]}: make them with `melmask evaluate ENCODER --out {missing[0]}`")
    names, known = {run.name for run in runs}, {one.identity for run in runs for one in run.results if one.identity}
    lines = [result for file in files for result in read_results(file)]
    baselines = [result for result in lines if result.features in BASELINES]
    own: dict[str, list[Result]] = {}
    for result in lines:
        if result.features not in BASELINES and result.identity not in known:
            own.setdefault(_name(result), []).append(replace(result, features=ENCODER, step=None))
    for name, results in own.items():
        named = {one.encoder for one in results}
        results += [one for one in baselines if _is_baseline(one, name, named)]
    return [OtherEncoder(f"{name} (no run)" if name in names else name, results) for name, results in own.items()]


def _is_baseline(result: Result, name: str, named: Set[str]) -> bool:
    """Whether a baseline's result is of the encoder ``name``, which results call ``named``."""
    is_shared = not named.isdisjoint(result.baseline_of)  # the untrained form of several encoders
    return result.features == LOGMEL_STATISTICS or _name(result) == name or is_shared


def _name(result: Result) -> str:
    """The name of the encoder without its feature settings, or that of the encoder whose untrained form it is."""
    name = result.encoder.removesuffix(" untrained") if result.features == UNTRAINED else result.encoder
    # Of whitened features the untrained form has the name with the whitening, and the settings without.
    return name.replace(WHITENED, "").removesuffix(f" ({result.settings.replace(WHITENED, '')})")
