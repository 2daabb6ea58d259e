"""The answer in short: which masking to choose, how large its effect is, and what may have been missed."""

from collections.abc import Sequence

from guidance.found import ALL, Found
from melmask.report.study_tables import points, span
from melmask.study.analysis import Difference
from melmask.study.evidence import EVENTS, OTHERS, Evidence


def in_short(found: Found) -> list[str]:
    """The answer in a few sentences, each made of the numbers; empty where no run is finished."""
    evidence = found.small
    if evidence is None:
        return []
    over_all = _of(evidence, ALL)
    return [
        line
        for line in (
            _advice(evidence, over_all),
            *(_kind(evidence, scope) for scope in (EVENTS, OTHERS)),
            _beside(evidence, over_all),
            _missed(evidence),
        )
        if line
    ]


def _of(evidence: Evidence, scope: str) -> list[Difference]:
    return [one for one in evidence.differences if one.probe == evidence.probe and one.scope == scope]


def _advice(evidence: Evidence, over_all: Sequence[Difference]) -> str:
    """What to choose: in each framework the best of the strategies that are shown to be better than the baseline."""
    baseline, best = evidence.study.baseline, dict[str, Difference]()
    for one in over_all:
        if one.finding == "better" and (one.group not in best or one.value > best[one.group].value):
            best[one.group] = one
    chosen = [
        f"in {group} **{best[group].arm}**: {points(best[group].value)} points over all tasks "
        f"({span(best[group].low, best[group].high)})" if group in best else f"in {group} **{baseline}** masking"
        for group in evidence.study.groups
    ]  # fmt: skip
    advice = f"Choose {'; '.join(chosen)}."
    if not best:
        advice = (
            f"Choose **{baseline}** masking, which needs no schedule and no second pass: no other was shown to be "
            "better over all tasks, in any framework."
        )
    if (done := evidence.num_complete) < len(evidence.runs):
        advice += f" So far, that is: {done} of {len(evidence.runs)} runs are there, and it may change."
    return advice


def _kind(evidence: Evidence, scope: str) -> str:
    """What was found on tasks of one kind."""
    own = _of(evidence, scope)
    if not own:
        return ""
    told = [
        f"{finding}: " + (", ".join(f"{one.arm} in {one.group}" for one in own if one.finding == finding) or "none")
        for finding in ("better", "worse")
    ]
    low, high = min(own, key=lambda one: one.value), max(own, key=lambda one: one.value)
    ends = " to ".join(f"{points(one.value)} ({one.arm} in {one.group})" for one in (low, high))
    return f"On {scope}, shown to be {'; shown to be '.join(told)}. Means from {ends} points."


def _beside(evidence: Evidence, over_all: Sequence[Difference]) -> str:
    """The range of masking's differences beside those of other choices."""
    if not over_all:
        return ""
    ends = f"{points(min(one.value for one in over_all))} to {points(max(one.value for one in over_all))}"
    others = "; ".join(f"{points(one.value)} ({one.what})" for one in evidence.contrasts)
    beside = f" Other choices move it by {others} ([rows](#other-choices))." if others else ""
    return f"Masking moves the mean over all tasks by {ends} points.{beside}"


def _missed(evidence: Evidence) -> str:
    """What could not be seen."""
    seen = [one.smallest for scope in evidence.mean_scopes for one in _of(evidence, scope)]
    if not seen:
        return ""
    return (
        f"Comparisons would have found differences of {100 * min(seen):.1f} to {100 * max(seen):.1f} points four times "
        "in five (*seen* in the tables); smaller ones may have gone unseen. Larger encoders and longer training may "
        "differ."
    )
