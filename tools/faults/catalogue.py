"""The catalogue: every fault, by its group. A function is one fault, or one kind of fault of each of several files."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from faults.verdict import Verdict
from faults.workshop import Bench

FAULTS: list["Fault"] = []


@dataclass(frozen=True)
class Fault:
    """One fault.

    Args:
        group: as the page has it.
        what: is wrong, and what is done then.
        inject: injects it into fresh artefacts, does what is done then, and judges.
        is_slow: whether it takes processes of its own, or seconds.
    """

    group: str
    what: str
    inject: Callable[[Bench], Verdict]
    is_slow: bool = False


def fault(group: str, what: str, cases: Iterable[tuple[str, Any]] = (("", None),), slow: bool = False) -> Any:
    """Put a function into the catalogue.

    Args:
        group: of the page.
        what: in words.
        cases: for each a fault of its own: what is added to the words, and what the function is given.
        slow: whether it takes processes of its own, or seconds.
    """

    def register(inject: Callable[..., Verdict]) -> Callable[..., Verdict]:
        for words, case in cases:
            call = inject if case is None else partial(inject, case=case)
            FAULTS.append(Fault(group, f"{what}: {words}" if words else what, call, slow))
        return inject

    return register
