"""A study's answer in short: what to choose, how large its effect is beside other choices, and what may be missed."""

from collections.abc import Sequence

from melmask.report.study_tables import points, span
from melmask.study.analysis import Difference
from melmask.study.evidence import Evidence


def in_short(evidence: Evidence) -> list[str]:
    """Some sentences, each made of the study's numbers; by its first probe."""
    means = {scope: evidence.in_scope(scope) for scope in evidence.mean_scopes}
    lines = [_advice(evidence, means[evidence.mean_scopes[0]])]
    lines += [_scope(scope, found) for scope, found in means.items() if found]
    if evidence.contrasts:
        others = "; ".join(f"{points(one.value)} ({one.what})" for one in evidence.contrasts)
        lines.append(f"Other choices move the mean over all tasks by {others}.")
    seen = [one.smallest for found in means.values() for one in found]
    if seen:
        lines.append(
            f"Differences of {100 * min(seen):.1f} to {100 * max(seen):.1f} points, depending on the comparison, would "
            "have been found four times in five; smaller ones may have gone unseen."
        )
    return lines


def _advice(evidence: Evidence, found: Sequence[Difference]) -> str:
    """What to choose: in each group the best of the arms that are shown to be better than the baseline."""
    baseline, best = evidence.study.baseline, dict[str, Difference]()
    for one in found:
        if one.finding == "better" and (one.group not in best or one.value > best[one.group].value):
            best[one.group] = one
    chosen = [
        f"{group} {best[group].arm} ({points(best[group].value)} points, {span(best[group].low, best[group].high)})"
        if group in best
        else f"{group} {baseline}"
        for group in evidence.study.groups
    ]
    advice = f"Over all tasks, choose {'; '.join(chosen)}."
    if not best:
        advice = f"Choose {baseline} masking: no other was shown to be better over all tasks."
    if (done := evidence.num_complete) < len(evidence.runs):
        advice += f" So far, that is: {done} of {len(evidence.runs)} runs are there, and it may change."
    return advice


def _scope(scope: str, found: Sequence[Difference]) -> str:
    """The range of differences in one mean, and those that were shown."""
    low, high = min(found, key=lambda one: one.value), max(found, key=lambda one: one.value)
    ends = " to ".join(f"{points(one.value)} ({one.arm} in {one.group})" for one in (low, high))
    shown = [
        f"{finding}: "
        + (
            ", ".join(
                f"{one.arm} in {one.group} ({points(one.value)}, {span(one.low, one.high)})"
                for one in found
                if one.finding == finding
            )
            or "none"
        )
        for finding in ("better", "worse")
    ]
    return f"{scope[0].upper()}{scope[1:]}: differences of {ends} points. Shown to be {'; shown to be '.join(shown)}."
