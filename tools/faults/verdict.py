"""What became of a fault: one of five words, and why."""

import re
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

SAFE, UNCLEAR, LOST, WRONG, CRASHED = KINDS = ("safe", "unclear", "lost", "wrong", "crashed")
MEANING = {
    SAFE: "mended, or refused with the file and the remedy named, or the result is the same",
    UNCLEAR: "refused, but the message lacks the file or the remedy",
    LOST: "data are missing, and nothing says so",
    WRONG: "another result, and nothing says so",
    CRASHED: "a traceback, a signal or no answer",
}
# What `melmask.cli.main` shows as one clear line.
CLEAR = (ValueError, OSError, RuntimeError, ImportError)
REMEDY = re.compile(
    r"\b(again|restore|remove|delete|choose|check|give|use|make|free|wait|close|set|name|install|export|convert|put|"
    r"write|resume|save|keep|leave|need|try|fetch|list|mend|lower|least|most|prepare|embed|start|move|larger|fewer|"
    r"scale|call|header is|known are|must|see|is a share|is two|there are|it keeps|is needed)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Verdict:
    """What became of one fault.

    Args:
        kind: one of KINDS.
        why: the message, the traceback or the difference.
    """

    kind: str
    why: str = ""


def same(is_same: bool, otherwise: str = "another result") -> Verdict:
    """Safe if the result is what it is without the fault, else wrong."""
    return Verdict(SAFE, "the result is the same") if is_same else Verdict(WRONG, otherwise)


def judged(
    call: Callable[[], Any], judge: Callable[[Any], Verdict], names: Sequence[object] = (), must: str = ""
) -> Verdict:
    """Make a call and judge what it returns or raises.

    Args:
        call: what meets the fault.
        judge: of what it returns.
        names: of which a message has to hold at least one: files, settings, values; none for any message.
        must: "refuse": it may not return; "work": it may not refuse.
    """
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            value = call()
        except CLEAR as error:
            return _of_message(str(error), names) if must != "work" else Verdict(WRONG, f"refused: {error}")
        except Exception:
            return Verdict(CRASHED, traceback.format_exc(limit=-3))
    if must == "refuse":
        return Verdict(WRONG, f"taken as it is: {str(value)[:100]}")
    verdict = judge(value)
    if verdict.kind in (LOST, WRONG) and any(str(name) in str(one.message) for name in names for one in told):
        return Verdict(SAFE, f"said: {told[0].message}")
    return verdict


def _of_message(message: str, names: Sequence[object]) -> Verdict:
    if names and not any(str(name) in message for name in names):
        return Verdict(UNCLEAR, f"does not name {names[0]}: {message}")
    if not REMEDY.search(message):
        return Verdict(UNCLEAR, f"no remedy: {message}")
    return Verdict(SAFE, f"refused: {message}")
