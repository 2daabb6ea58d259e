"""The parts of what was checked, and the checks that all kinds share."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from melmask.files import TEMPORARY, named_lines, read_lines

State = Literal["whole", "damaged", "stale", "leftover"]
NUM_NAMED = 3  # bad lines whose faults are told
LEFT = "a killed process left it: it is removed by the next call that writes here, or remove it"


@dataclass(frozen=True)
class Part:
    """A part of what was checked.

    Args:
        name: of the file, relative to what was checked, or of what it holds.
        state: whole; damaged, so that it is refused or skipped where it is read; stale, so that something newer is to
            be made; or a leftover, which nothing reads.
        detail: what is wrong, and the remedy; empty for what is whole.
    """

    name: str
    state: State
    detail: str = ""


def part(name: str, check: Callable[[], object]) -> Part:
    """Whole, unless the check raises, or returns the reason why it is stale."""
    try:
        stale = check()
    except (ValueError, OSError, RuntimeError) as error:
        return Part(name, "damaged", str(error))
    return Part(name, "stale", stale) if isinstance(stale, str) and stale else Part(name, "whole")


def within(folder: Path, inner: Path, parts: Iterator[Part]) -> Iterator[Part]:
    """The parts of a folder in another, named as of the outer one."""
    return (replace(one, name=f"{inner.relative_to(folder)}/{one.name}") for one in parts)


def leftovers(folder: Path, *more: str) -> Iterator[Part]:
    """What a killed process left: temporary files, and those of further patterns."""
    for pattern in (f"*{TEMPORARY}", f"*/*{TEMPORARY}", *more):
        for path in sorted(folder.glob(pattern)):
            yield Part(str(path.relative_to(folder)), "leftover", LEFT)


def there(folder: Path, *names: str) -> list[str]:
    """Those of the names that the folder has."""
    return [name for name in names if (folder / name).exists()]


def json_lines(path: Path, parse: Callable[[Any], object]) -> Part:
    """A file of JSON lines; its bad lines are named."""
    bad = read_lines(path, parse)[1]
    faults = "; ".join(f"line {line.number}: {line.fault}" for line in bad[:NUM_NAMED])
    return Part(path.name, "damaged", f"{named_lines(path, bad)}: {faults}") if bad else Part(path.name, "whole")


def check_finite(path: Path, tensors: Sequence[tuple[str, Tensor]]) -> None:
    """Raise ValueError if a tensor of a file has values that are not finite."""
    bad = [name for name, tensor in tensors if not tensor.isfinite().all()]
    if bad:
        raise ValueError(f"{path} has weights that are not finite ({bad[0]}): restore it from a copy, or make it again")
