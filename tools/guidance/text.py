"""The text of docs/guidance.md and the table of the README."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import wrap

from guidance.found import Found
from guidance.questions import QUESTIONS, Asked, In, Question
from melmask.escaping import in_markdown
from melmask.evaluation.task import FEW_GROUPS
from melmask.report.formats import markdown_table
from melmask.report.study_short import in_short, range_told, so_far
from melmask.report.study_tables import DIFFERENCES, contrasts_sheet, cost_sheet, difference_cells, points, span
from melmask.report.study_words import counted, lead, missing_runs, not_varied, shortfalls
from melmask.study.cost import MaskingCost, masking_costs
from melmask.study.curves import read_curves
from melmask.study.evidence import EVENTS, OTHERS, Evidence
from melmask.study.findings import Difference, margin_text
from melmask.study.shipped import STUDIES

WIDTH = 120
BEGIN, END = "<!-- study: written by make study-report -->", "<!-- end of study -->"
NOT_YET = "not measured yet"
HEAD = """# Which masking: what a study of small encoders shows

Written by `make study-report` from the results in `studies/small/` ([how](study.md)); no number here is typed. Each
strategy is compared with random masking of the same framework, steps and seed, in percentage points of accuracy.
{steps}Encoders are small and trained for minutes: what holds in the paper's setting (arXiv 2603.23810) they cannot say.
"""
READING = (
    "In the tables, differences are in points ({probe}); *p* is adjusted for all planned comparisons of the study "
    "(Holm); *seen* is the difference that would have been found four times in five. A finding is *better* or *worse* "
    "where p < .05; otherwise *equivalent* where the difference lies within {margin} (two one-sided tests), *not "
    "worse* where only a loss of more than {margin} is excluded, and *open* where nothing is. A difference of "
    "one seed is *open*: its interval says nothing of other seeds{groups}."
)
PROBE = (
    "The ridge probe of these runs chose its penalty on a single validation part, which is one speaker in the task of "
    "digits, and scores there vary for it. Since 2026-11-29 it chooses over several parts (LOG.md): new runs are not "
    "to be compared with these."
)
CLAIMS = {"paper": "the paper", "hope": "our hope"}
Row = tuple[str, In, Difference]  # what is compared, the study, and what was found


def guidance(found: Found, folder: Path) -> str:
    """The whole page.

    Args:
        found: what the studies show.
        folder: of curves.jsonl, for the cost.
    """
    steps = sorted({cell.recipe.steps for study in found.studies for cell in study.cells})
    told = f"A run takes {' or '.join(f'{one:,}' for one in steps)} steps. " if steps else ""
    costs = masking_costs(found.small.study, read_curves(folder)) if found.small else []
    title, _, about = HEAD.partition("\n\n")
    parts = [title, _filled(about.replace("\n", " ").format(steps=told))]
    parts += ["## In short", _bullets(_short(found)), *_pictures(found)]
    parts += ["## What there is", _bullets(_standing(found))]
    parts += [_filled(_reading(found.small)), _filled(PROBE)] if found.small else []
    parts += ["## Against the paper, or our hopes", *_against(found)]
    parts.append("## Questions")
    for question in QUESTIONS:
        parts += [f"### {question.title}", *([_filled(question.about)] if question.about else [])]
        parts += _answer(found, question, costs)
    parts += ["### How large is any of it beside other choices?", _bullets(_beside(found))]
    parts += _tables(found, costs, folder)
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def readme_section(found: Found) -> str:
    """The README's table: what each strategy gains in each framework, on event tasks and on the others."""
    evidence = found.small
    page = "[docs/guidance.md](docs/guidance.md)"
    if evidence is None:
        return _filled(f"What each masking gains is {NOT_YET}: no run of the study is finished. The questions: {page}.")
    columns = [(group, scope) for group in evidence.study.groups for scope in (EVENTS, OTHERS)]
    arms = dict.fromkeys(cell.arm for cell in evidence.study.cells if cell.arm != evidence.study.baseline)
    rows: list[list[str]] = []
    bold: set[tuple[int, int]] = set()
    for arm in arms:
        cells = [evidence.find(group, arm, scope) for group, scope in columns]
        bold |= {(len(rows), i) for i, one in enumerate(cells, start=1) if one and one.finding in ("better", "worse")}
        rows.append([arm, *(f"{points(one.value)} [{span(one.low, one.high)}]" if one else "–" for one in cells)])
    header = ["masking", *(f"{group}, {scope}" for group, scope in columns)]
    counts = f"{evidence.num_complete} of {len(evidence.runs)} runs"
    if evidence.num_complete < len(evidence.runs):
        counts = f"**only {counts} are done, and these findings may change**"
    seeds = f"{len(evidence.study.seeds)} seeds planned, {evidence.study.cells[0].recipe.steps:,} steps a run"
    caption = (
        f"*Points of accuracy ({evidence.probe}) minus {evidence.study.baseline} masking, with 95 % intervals "
        f"({counts}; {seeds}). Bold: a difference after Holm's adjustment for all means. What it means, and what it "
        f"cannot say: {page}.*"
    )
    advice = _filled(in_markdown(in_short(evidence)[0]))
    return f"{advice}\n\n{markdown_table(header, rows, numeric=True, bold=bold)}\n{_filled(caption)}"


def with_section(page: str, section: str) -> str:
    """A page with this section between the marks, in place of what is there.

    Raises:
        ValueError: the page has no marks.
    """
    if BEGIN not in page or END not in page:
        raise ValueError(f"the page has no place for the table of the study: give it the lines {BEGIN} and {END}")
    before, rest = page.split(BEGIN, 1)
    return f"{before}{BEGIN}\n\n{section.strip()}\n\n{END}{rest.split(END, 1)[1]}"


def _standing(found: Found) -> list[str]:
    """How much there is of each study, and what is missing."""
    lines = []
    for evidence in (found.small, found.ablations):
        if evidence is not None:
            lines += [f"`{evidence.study.name}`: {lead(evidence)}", missing_runs(evidence), *evidence.notes]
    lines += [f"`small`: {NOT_YET}: no run is finished."] if found.small is None else []
    lines += [f"`ablations`: {NOT_YET}: no run of its own is finished."] if found.ablations is None else []
    return [line for line in lines if line]


def _reading(evidence: Evidence) -> str:
    """How to read the tables."""
    few = min((one.num_groups for one in evidence.differences), default=FEW_GROUPS)
    groups = f", and those of a task whose clips form only {few} groups are rough" if few < FEW_GROUPS else ""
    return READING.format(probe=evidence.probe, margin=margin_text(evidence.study.margin), groups=groups)


def _against(found: Found) -> list[str]:
    """Floors that training does not pass, and findings that are not what the paper claims or we hoped."""
    if found.small is None:
        return [_bullets([f"{NOT_YET}: no run is finished."])]
    short = shortfalls(found.small)
    lines = [f"{in_markdown(text).removesuffix('.')} ([row](#other-choices))." for text in short]
    rows = [
        (f"{one.arm} is {asked.hoped} than {one.baseline}, {one.scope} ({CLAIMS[asked.by]})", asked.study, one)
        for question in QUESTIONS
        for asked in question.asked
        for one in _comparisons(found, asked).values()
        if asked.hoped and one is not None and one.finding != asked.hoped
    ]
    parts = [_bullets(lines)] if lines else []
    if rows:
        contradicted = [row for row in rows if row[-1].finding in ("better", "worse")]
        not_shown = [row for row in rows if row not in contradicted]
        number = f"{len(contradicted)} contradicted, {len(not_shown)} not shown"
        parts.append(f"Of what the paper claims or we hoped for, at this scale: {number}.")
        parts.append(_table("claim or hope", contradicted + not_shown))
    return parts or ["Nothing: training passes its floors, and each comparison found what was claimed or hoped for."]


def _answer(found: Found, question: Question, costs: Sequence[MaskingCost]) -> list[str]:
    """What answers a question: how many comparisons found what, all of them, what is missing, and costs."""
    rows: list[Row] = []
    lines: list[str] = []
    for asked in question.asked:
        there = _comparisons(found, asked)
        rows += [(f"{one.arm} − {one.baseline}, {one.scope}", asked.study, one) for one in there.values() if one]
        lacking = [name for name, one in there.items() if one is None]
        lines += [in_markdown(f"{NOT_YET}: {'; '.join(lacking)}.")] if lacking else []
    evidence = found.small
    if question.costs and evidence is not None:
        by_cell = {(one.cell.group, one.cell.arm): one for one in costs}
        for group in evidence.study.groups:
            told = []
            for arm in question.costs:
                cost = by_cell[group, arm]
                measured = "" if cost.mask_share is None else f"{cost.mask_share:.1%} of a step's time, "
                told.append(f"{arm} takes {measured}{cost.guide_flops / cost.flops:.1%} of its operations")
            lines.append(f"The masking of {group}: {'; '.join(told)} ([cost](#cost)).")
    parts = [_filled(f"Found: {counted([one for _, _, one in rows])}."), _table("comparison", rows)] if rows else []
    return parts + ([_bullets(lines)] if lines else [])


def _comparisons(found: Found, asked: Asked) -> dict[str, Difference | None]:
    """By what they are of, the comparisons of all groups; None where no pair of runs is complete."""
    study = STUDIES[asked.study]
    evidence = found.small if asked.study == "small" else found.ablations
    named: dict[str, Difference | None] = {}
    for scope in asked.scopes:
        for arm, other in asked.arms:
            for group in study.groups:
                one = found.direct.get((group, arm, other, scope))
                if other == study.baseline and evidence is not None:
                    one = evidence.find(group, arm, scope)
                named[f"{arm} against {other} ({group}, {scope})"] = one
    return named


def _table(first: str, rows: Sequence[Row]) -> str:
    """Comparisons, whose differences lead to their rows in the tables below, and findings to their picture."""
    cells, links = [], {}
    for number, (name, study, one) in enumerate(rows):
        difference, interval, p, *_, seen, finding = difference_cells(one)
        cells.append((name, one.group, difference, interval, p, seen, str(one.num_seeds), finding))
        to_random = one.baseline == STUDIES[study].baseline
        links[number, 2] = f"#{study}-{one.group}-minus-random" if to_random else "#direct-comparisons"
        if to_random:
            of_kinds = study == "small" and one.scope in (EVENTS, OTHERS)
            links[number, 7] = f"guidance/{'trade-off' if of_kinds else f'{study}-differences'}.png"
    header = (first, "framework", "difference", "95 % interval", "p", "seen", "seeds", "finding")
    return markdown_table(header, cells, numeric=True, links=links)


def _beside(found: Found) -> list[str]:
    """How large framework, probe and seed are, and what was not varied."""
    evidence = found.small
    if evidence is None:
        return [f"{NOT_YET}: framework, probe, seed, patch shape and training time."]
    lines = []
    for name, value, interval in contrasts_sheet(evidence, "").rows:
        within = interval if interval == "standard deviation" else f"95 % interval {interval}"
        lines.append(f"{name[0].upper()}{name[1:]}: {value} points ({within}) ([row](#other-choices)).")
    return lines + [line.replace("and so not measured", NOT_YET) for line in not_varied(evidence)]


def _short(found: Found) -> list[str]:
    """The answer, and where it does not reach."""
    if found.small is None:
        return [f"{NOT_YET}: no run is finished."]
    lines = [*in_short(found.small), *_ablations_in_short(found)]
    return [*map(in_markdown, lines), "Larger encoders and longer training may differ."]


def _ablations_in_short(found: Found) -> list[str]:
    """The range of differences in the questions that are for the short answer."""
    lines = []
    for question in QUESTIONS:
        _, other = question.asked[0].arms[0]
        there = [one for asked in question.asked for one in _comparisons(found, asked).values() if one is not None]
        of_other = [one for one in there if one.baseline == other]
        if question.short and of_other and found.ablations is not None:
            lines.append(range_told(question.short, of_other) + so_far(found.ablations))
    return lines


def _pictures(found: Found) -> list[str]:
    """The pictures of both studies, with their captions."""
    parts = []
    for evidence in filter(None, (found.small, found.ablations)):
        if evidence.differences:
            name, baseline = evidence.study.name, evidence.study.baseline
            about = f"Differences to {baseline} masking, of the study {name}, with 95 % intervals"
            parts += [
                f"![{about}](guidance/{name}-differences.png)",
                _filled(f"*{about}; shaded: within the margin; an arrow: it goes on.*"),
            ]
    if found.small is not None and found.small.trade_offs:
        about = "What each strategy gains on event tasks, against what it gains on the others"
        parts += [
            f"![{about}](guidance/trade-off.png)",
            _filled(f"*{about}; an ellipse holds 95 % of the joint draws.*"),
        ]
    return parts


def _tables(found: Found, costs: Sequence[MaskingCost], folder: Path) -> list[str]:
    """The rows that the tables of the questions lead to."""
    if found.small is None:
        return []
    parts = ["## All rows"]
    for evidence in filter(None, (found.small, found.ablations)):
        for group in evidence.study.groups:
            own = [one for one in evidence.means if one.group == group]
            title = f"### {evidence.study.name}, {group} minus {evidence.study.baseline}"
            parts += [title, _rows((f"{one.arm}, {one.scope}", one) for one in own)] if own else []
    if found.direct:
        named = ((f"{one.group}: {one.arm} − {one.baseline}, {one.scope}", one) for one in found.direct.values())
        parts += ["### Direct comparisons", _rows(named)]
    choices = contrasts_sheet(found.small, "")
    parts += ["### Other choices", choices.markdown] if choices.rows else []
    return [*parts, "### Cost", cost_sheet(costs, "").markdown, _filled(_about_cost(folder))]


def _about_cost(folder: Path) -> str:
    hardware = sorted({one.hardware for one in read_curves(folder).values() if one.hardware})
    measured = f"measured on {', '.join(hardware)}" if hardware else "not measured yet"
    return (
        f"Times are {measured}; operations are counted; GPU-hours are an estimate, of the paper's recipe with that "
        "strategy on AudioSet, from operations, the data sheet of an A100 and an assumed utilisation "
        "([planning](planning.md)). Runs were trained at different times beside other work: compare shares of a step, "
        "not milliseconds."
    )


def _rows(named: Iterable[tuple[str, Difference]]) -> str:
    return markdown_table(("arm", *DIFFERENCES), [(name, *difference_cells(one)) for name, one in named], numeric=True)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(_filled(f"- {line}", "  ") for line in lines)


def _filled(text: str, indent: str = "") -> str:
    """Lines of at most `WIDTH` letters; no word and no link's address is broken."""
    glued = re.sub(r"\[[^\]]*\]\([^)]*\)", lambda link: link[0].replace(" ", "\0"), text).replace(" %", "\0%")
    lines = wrap(glued, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\0", " ")
