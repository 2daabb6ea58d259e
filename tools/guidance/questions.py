"""The questions of the guidance, and the comparisons that answer each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from guidance.found import ALL, MATCHED, SAME_GUIDANCE, SCHEDULES, STATISTICS
from melmask.study.evidence import EVENTS, OTHERS

In = Literal["small", "ablations"]


@dataclass(frozen=True)
class Asked:
    """Comparisons of one study: of each group, in each scope, of each arm with another one.

    Args:
        study: whose runs are compared.
        arms: each with the one that it is compared with.
        scopes: what scores are averaged over.
        hoped: the finding that the paper or we hoped for; empty if none was.
        by: "paper" for what arXiv 2603.23810 claims, "hope" for ours.
    """

    study: In
    arms: Sequence[tuple[str, str]]
    scopes: Sequence[str]
    hoped: Literal["better", "worse", ""] = ""
    by: Literal["paper", "hope"] = "hope"


@dataclass(frozen=True)
class Question:
    """A question, and what answers it.

    Args:
        title: the question.
        asked: comparisons.
        about: what to know to read the answer.
        costs: arms whose cost belongs to the answer.
        short: what to call its first comparisons, and others with the same arm, in the short answer; empty: not there.
    """

    title: str
    asked: Sequence[Asked]
    about: str = ""
    costs: Sequence[str] = ()
    short: str = ""


def _to_random(*arms: str) -> list[tuple[str, str]]:
    return [(arm, "random") for arm in arms]


QUESTIONS = (
    Question(
        "Does DWM help events, and at what cost elsewhere?",
        (
            Asked("small", _to_random("dwm"), (EVENTS,), "better", "paper"),
            Asked("small", _to_random("dwm"), (ALL,), "better", "paper"),
            Asked("small", _to_random("dwm"), (OTHERS,)),
        ),
    ),
    Question(
        "Is it dispersion, or only a low-frequency profile?",
        (
            Asked("small", [("dwm", "freq_profile")], (ALL, EVENTS), "better"),
            Asked("small", _to_random("freq_profile", "dwm_band"), (ALL, EVENTS)),
            Asked("small", [("dwm", "dwm_band")], (ALL,)),
        ),
        "`freq_profile` masks low bands as often as DWM does on average, whatever the sound; `dwm_band` compares each "
        "patch with its own band, so that no band is preferred.",
    ),
    Question(
        "Does inverse DWM hurt?",
        (
            Asked("small", _to_random("dwm_inverse"), (ALL, EVENTS), "worse"),
            Asked("small", [("dwm", "dwm_inverse")], (ALL,), "better"),
        ),
    ),
    Question(
        "Does IBM trade generality for events?",
        (
            Asked("small", _to_random("ibm", "ibm-cover"), (EVENTS,), "better", "paper"),
            Asked("small", _to_random("ibm", "ibm-cover"), (OTHERS,), "worse", "paper"),
            Asked("small", [("dwm", "ibm")], (ALL,)),
        ),
        "On these short crops few of IBM's blocks fit ([masking](masking.md)); `ibm-cover` draws blocks until they "
        "cover what is to be visible.",
    ),
    Question(
        "What does SGIM's extra pass buy?",
        (
            Asked("small", _to_random("sgim"), (ALL, EVENTS), "better"),
            Asked("small", [("dwm", "sgim")], (ALL,)),
        ),
        costs=("random", "sgim", "dwm"),
    ),
    Question(
        "Which schedule, and which statistic?",
        (
            Asked("ablations", [(arm, "dwm") for arm in SCHEDULES], (ALL,)),
            Asked("ablations", [(arm, "dwm") for arm in STATISTICS], (ALL,)),
        ),
        "`dwm` has hints that fall as 1 - progress^2, and weights by mean absolute deviation.",
        short="other schedules and statistics of dwm, minus dwm, all tasks",
    ),
    Question(
        "Where to mask, at the same guidance?",
        (
            Asked("ablations", _to_random(*SAME_GUIDANCE), (ALL,)),
            Asked(
                "ablations",
                [(f"dwm-guidance-{MATCHED:g}", other) for other in SAME_GUIDANCE if not other.startswith("dwm-guid")],
                (ALL,),
            ),
        ),
        f"λ = {MATCHED:g} throughout, so that strategies differ in where they mask and not in how much they guide.",
        short=f"strategies with λ = {MATCHED:g} throughout, minus random, all tasks",
    ),
)
