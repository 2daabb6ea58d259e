"""What the studies `small` and `ablations` found in a folder, and the comparisons that the questions ask for."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from melmask.study.analysis import NUM_DRAWS, Pair
from melmask.study.evidence import EVENTS, OTHERS, Evidence, read_evidence
from melmask.study.findings import Difference
from melmask.study.kept import read_right
from melmask.study.shipped import ABLATIONS, MATCHED, STUDIES, matched
from melmask.study.study import Study

ALL = "all tasks"
SCHEDULES = ("dwm-k1", "dwm-k4", "dwm-k8", "dwm-constant-0.5", "dwm-constant-0")
STATISTICS = ("dwm-variance", "dwm-deterministic")
SAME_GUIDANCE = tuple(matched(MATCHED))


@dataclass(frozen=True)
class Found:
    """The evidence of both studies.

    Args:
        small: None without any result of it.
        ablations: None where no arm but those of `small` has results.
    """

    small: Evidence | None
    ablations: Evidence | None

    @property
    def studies(self) -> list[Study]:
        """Those with results."""
        return [one.study for one in (self.small, self.ablations) if one is not None]

    @cached_property
    def direct(self) -> Mapping[tuple[str, str, str, str], Difference]:
        """Differences of pairs of arms of which none is the baseline, by (group, arm, other, scope)."""
        found: dict[tuple[str, str, str, str], Difference] = {}
        for evidence, arms in (
            (self.small, [("dwm", other) for other in ("freq_profile", "dwm_band", "sgim", "ibm", "dwm_inverse")]),
            (self.ablations, _pairs_of_ablations()),
        ):
            if evidence is None:
                continue
            there = evidence.answers[evidence.probe].cells
            pairs: list[Pair] = [
                ((group, arm), (group, other))
                for group in evidence.study.groups
                for arm, other in arms
                if (group, arm) in there and (group, other) in there
            ]
            for one in evidence.between(pairs):
                if one.scope in (ALL, EVENTS, OTHERS):
                    found[one.group, one.arm, one.baseline, one.scope] = one
        return found


def _pairs_of_ablations() -> list[tuple[str, str]]:
    """Each ablation of dwm against dwm, and dwm against the others at the same guidance."""
    own = next(name for name in SAME_GUIDANCE if name.startswith("dwm-guidance"))
    pairs = [(arm, "dwm") for arm in (*STATISTICS, *SCHEDULES) if arm in ABLATIONS]
    return pairs + [(own, other) for other in SAME_GUIDANCE if other != own]


def read_found(folder: Path, num_draws: int = NUM_DRAWS) -> Found:
    """Read what both studies found in a folder; it may hold nothing yet.

    Args:
        folder: of results.jsonl, clips.jsonl and tasks.jsonl.
        num_draws: of the analysis.
    """
    there = {run for run, _, _ in read_right(folder)} if folder.is_dir() else set()
    small, ablations = STUDIES["small"], STUDIES["ablations"]
    shared = {run.name for run in small.runs}
    has_small = bool(there & shared)
    has_ablations = bool(there & {run.name for run in ablations.runs} - shared)
    return Found(
        read_evidence(small, folder, num_draws) if has_small else None,
        read_evidence(ablations, folder, num_draws) if has_ablations else None,
    )
