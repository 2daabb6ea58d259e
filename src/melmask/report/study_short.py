"""A study's answer in short: what to choose, how large its effect is beside other choices, and what may be missed."""

from collections.abc import Sequence

from melmask.report.study_tables import points, span
from melmask.study.evidence import Evidence
from melmask.study.findings import Difference


def in_short(evidence: Evidence) -> list[str]:
    """Some sentences, each made of the study's numbers, by its first probe; the first is the advice."""
    means = {scope: [one for one in evidence.means if one.scope == scope] for scope in evidence.mean_scopes}
    lines = [_advice(evidence, means[evidence.mean_scopes[0]])]
    lines += [range_told(scope, found) for scope, found in means.items() if found]
    if evidence.contrasts:
        others = "; ".join(f"{points(one.value)} ({one.what})" for one in evidence.contrasts)
        lines.append(f"Other choices move the mean over all tasks by {others}.")
    seen = [one.smallest for one in evidence.means]
    if seen:
        lines.append(
            f"Differences of {100 * min(seen):.1f} to {100 * max(seen):.1f} points, depending on the comparison, would "
            "have been found four times in five; smaller ones may have gone unseen."
        )
    return lines


def _advice(evidence: Evidence, found: Sequence[Difference]) -> str:
    """What to choose: in each group the best of the arms that are shown to be better than the baseline."""
    baseline = evidence.study.baseline
    if not found:
        return f"No arm can be compared with {baseline} yet."
    best = {one.group: one for one in sorted(found, key=lambda one: one.value) if one.finding == "better"}
    if best:
        chosen = dict.fromkeys(evidence.study.groups, baseline) | {
            group: f"{one.arm} ({points(one.value)} points, {span(one.low, one.high)})" for group, one in best.items()
        }
        advice = f"Over all tasks, choose {'; '.join(f'{group} {arm}' for group, arm in chosen.items())}."
    else:
        advice = f"Choose {baseline} masking: no other was shown to be better over all tasks."
    return advice + so_far(evidence)


def so_far(evidence: Evidence) -> str:
    """What to add to a sentence where runs are missing; empty if none are."""
    done, planned = evidence.num_complete, len(evidence.runs)
    return "" if done == planned else f" So far, that is: {done} of {planned} runs are there, and it may change."


def range_told(what: str, found: Sequence[Difference]) -> str:
    """The range of some differences, at least one, and those that were shown."""
    low, high = min(found, key=lambda one: one.value), max(found, key=lambda one: one.value)
    ends = " to ".join(f"{points(one.value)} ({one.arm} in {one.group})" for one in (low, high))
    better, worse = (_named([one for one in found if one.finding == finding]) for finding in ("better", "worse"))
    return (
        f"{what[0].upper()}{what[1:]}: differences of {ends} points. "
        f"Shown to be better: {better}; shown to be worse: {worse}."
    )


def _named(found: Sequence[Difference]) -> str:
    told = (f"{one.arm} in {one.group} ({points(one.value)}, {span(one.low, one.high)})" for one in found)
    return ", ".join(told) or "none"
