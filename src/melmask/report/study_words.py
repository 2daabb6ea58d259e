"""A study's findings in plain words, made of its numbers: what contradicts the hope for an arm first."""

from collections import Counter
from collections.abc import Sequence

from melmask.report.study_tables import points, span
from melmask.study.evidence import Contrast, Evidence
from melmask.study.findings import SAID, Difference, margin_text


def lead(evidence: Evidence) -> str:
    """How much of the grid there is, and how many comparisons of all tasks gave what."""
    study = evidence.study
    found = [one for one in evidence.means if one.scope == evidence.mean_scopes[0]]
    there = f"{evidence.num_complete} of {len(evidence.runs)} runs are there"
    part = "" if evidence.num_complete == len(evidence.runs) else ": an incomplete grid, whose findings may change"
    if not found:
        return f"{study.question} {there}{part}."
    number = f"{len(found)} comparison{'s' if len(found) > 1 else ''}"
    return (
        f"{study.question} {there}{part}. Of {number} with {study.baseline} over all tasks ({evidence.probe}): "
        f"{counted(found)}."
    )


def counted(found: Sequence[Difference]) -> str:
    """How many comparisons found what."""
    counts, margin = Counter[str](one.finding for one in found), margin_text(found[0].margin) if found else ""
    return ", ".join(f"{counts[name]} {SAID[name].format(margin=margin)}" for name in SAID if counts[name])


def shortfalls(evidence: Evidence) -> list[str]:
    """Floors that training with the baseline's masking does not pass, in sentences; the farthest first."""
    floors = (one for one in evidence.contrasts if one.kind == "floor" and one.low <= 0)
    return [_floor_sentence(one) for one in sorted(floors, key=lambda one: one.value)]


def _floor_sentence(one: Contrast) -> str:
    below = "below it" if one.high < 0 else "not clearly above it"
    return f"{one.what}: {below}: {points(one.value)} points over all tasks, 95 % interval {span(one.low, one.high)}."


def not_varied(evidence: Evidence) -> list[str]:
    """Choices of which the grid says nothing, since all cells of a group share them."""
    cells = evidence.study.cells
    recipes = {group: [cell.recipe for cell in cells if cell.group == group] for group in evidence.study.groups}
    settings = {
        "patch shape": "patch_shape", "training time": "steps", "size of the encoder": "size",
        "batch size": "batch_size",
    }  # fmt: skip
    same = [
        words for words, name in settings.items()
        if all(len({vars(recipe)[name] for recipe in own}) == 1 for own in recipes.values())
    ]  # fmt: skip
    return [f"Not varied within a group, and so not measured: {', '.join(same)}."] if same else []


def missing_runs(evidence: Evidence) -> str:
    """The runs that are not complete, in one sentence; empty if all are."""
    lacking = [name for name, done in evidence.runs.items() if done < len(evidence.study.tasks)]
    if not lacking:
        return ""
    words = evidence.study.summed_up(lacking)
    return f"{len(lacking)} of {len(evidence.runs)} runs are missing or not evaluated on all tasks: {words}."
