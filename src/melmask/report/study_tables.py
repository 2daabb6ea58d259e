"""The tables of a study's report: for the page, and as CSV, Markdown and LaTeX files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from melmask.files import write_text
from melmask.report import page
from melmask.report.formats import csv_table, latex_table, markdown_table
from melmask.study.cost import MaskingCost
from melmask.study.evidence import Evidence
from melmask.study.findings import Difference
from melmask.study.table import features_label
from melmask.viz.study import Look

DIFFERENCES = ("difference", "95 % interval", "p", "p not worse", "p equal", "seen", "finding")
NONE = "–"


@dataclass(frozen=True)
class Sheet:
    """A table of figures.

    Args:
        name: of its files.
        header: names of the columns.
        rows: as text, for readers.
        columns, values: the same unrounded and in full, for CSV.
    """

    name: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    columns: tuple[str, ...]
    values: tuple[tuple[object, ...], ...]

    @property
    def markdown(self) -> str:
        return markdown_table(self.header, self.rows, numeric=True)

    def write(self, folder: Path) -> None:
        """Write name.csv, name.md and name.tex."""
        write_text(folder / f"{self.name}.csv", csv_table(self.columns, self.values), errors="replace")
        write_text(folder / f"{self.name}.md", self.markdown, errors="replace")
        write_text(folder / f"{self.name}.tex", latex_table(self.header, self.rows), errors="replace")


def points(value: float) -> str:
    """A difference of scores in points.

    >>> points(0.0123), points(-0.00001)
    ('+1.2', '0.0')
    """
    text = f"{100 * value:+z.1f}"
    return "0.0" if text == "+0.0" else text


def span(low: float, high: float) -> str:
    """The ends of an interval of a difference, in points."""
    return f"{points(low)} to {points(high)}"


def p_text(p_value: float) -> str:
    """A p value with two digits; what few draws cannot tell from 0 is named by its bound."""
    return f"{p_value:.2g}" if p_value >= 0.001 else "< 0.001"


def difference_cells(one: Difference) -> tuple[str, ...]:
    """The cells of `DIFFERENCES`."""
    ps = (p_text(p) for p in (one.p_holm, one.p_not_worse, one.p_equivalent))
    return points(one.value), span(one.low, one.high), *ps, f"{100 * one.smallest:.1f}", one.finding


def differences_sheet(evidence: Evidence, name: str) -> Sheet:
    """Every arm against the baseline of its group, in the means over tasks; the CSV has all probes and single tasks."""
    rows = tuple((f"{one.group} {one.arm}, {one.scope}", *difference_cells(one)) for one in evidence.means)
    columns = (*Difference.__dataclass_fields__, "finding")
    values = tuple((*vars(one).values(), one.finding) for one in evidence.differences)
    return Sheet(name, ("arm", *DIFFERENCES), rows, columns, values)


def scores_sheet(evidence: Evidence, name: str) -> Sheet:
    """The score of every cell and floor on every task and in the means, with its interval; the CSV has all probes."""
    scopes, rows, values = evidence.score_scopes, [], []
    for cell in evidence.answers[evidence.probe].cells:
        found = [evidence.score(cell, scope) for scope in scopes]
        if any(found):
            rows.append((" ".join(cell).strip(), *(_score_text(one) for one in found)))
    for probe, answers in evidence.answers.items():
        for cell in answers.cells:
            for scope in answers.scopes():
                one = evidence.score(cell, scope, probe)
                if one is not None:
                    values.append((*cell, probe, scope, *one))
    columns = ("group", "arm", "probe", "scope", "score", "low", "high", "num_seeds")
    return Sheet(name, ("arm", *scopes), tuple(rows), columns, tuple(values))


def _score_text(one: tuple[float, float, float, int] | None) -> str:
    return NONE if one is None else f"{100 * one[0]:.1f} [{100 * one[1]:.1f}, {100 * one[2]:.1f}]"


def cost_sheet(costs: Sequence[MaskingCost], name: str) -> Sheet:
    """What the masking of every cell takes: measured time, counted operations, and an estimate at AudioSet's scale."""
    header = ("arm", "ms a step", "ms of masking", "share of a step", "MFLOP a sample", "of these masking", "GPU-hours")
    rows, values = [], []
    for one in costs:
        hours = NONE if one.hours is None else f"{one.hours:,.0f}"
        measured = (NONE, NONE, NONE)
        if one.step_s is not None and one.mask_s is not None and one.mask_share is not None:
            measured = (f"{1e3 * one.step_s:,.0f}", f"{1e3 * one.mask_s:,.1f}", f"{one.mask_share:.1%}")
        counted = (f"{one.flops / 1e6:,.1f}", f"{one.guide_flops / one.flops:.1%}")
        rows.append((f"{one.cell.group} {one.cell.arm}", *measured, *counted, hours))
        values.append((one.cell.group, one.cell.arm, *list(vars(one).values())[1:]))
    columns = ("group", "arm", *list(MaskingCost.__dataclass_fields__)[1:])
    return Sheet(name, header, tuple(rows), columns, tuple(values))


def contrasts_sheet(evidence: Evidence, name: str) -> Sheet:
    """How large other choices are: framework, probe, and the seed, in all tasks."""
    rows = [(one.what, points(one.value), span(one.low, one.high)) for one in evidence.contrasts]
    values: list[tuple[object, ...]] = [tuple(vars(one).values()) for one in evidence.contrasts]
    for group in evidence.study.groups:
        deviation = evidence.seed_deviation(group)
        if deviation is not None:
            what = f"two runs of {group} with {evidence.study.baseline} masking that differ in their seed"
            rows.append((what, f"±{100 * deviation * 2**0.5:.1f}", "standard deviation"))
            values.append(("seed", what, deviation * 2**0.5, "", ""))
    header = ("other choice", "difference", "95 % interval")
    return Sheet(name, header, tuple(rows), ("kind", "what", "value", "low", "high"), tuple(values))


def differences_html(evidence: Evidence, group: str, looks: Mapping[str, Look]) -> Markup:
    """The differences of one group, a row for each arm and scope."""
    rows = [
        [page.chip(looks[one.arm].colour) + f"{one.arm}, {one.scope}", *difference_cells(one)]
        for one in evidence.means
        if one.group == group
    ]
    return page.table(["arm", *DIFFERENCES], rows, numeric=True)


def scores_html(evidence: Evidence, group: str, looks: Mapping[str, Look], probe: str) -> Markup:
    """The scores of one group and of its floors: each with its interval, and the difference to the baseline."""
    scopes, rows = [scope for scope in evidence.score_scopes if scope in evidence.answers[probe].scopes()], []
    for own, arm in evidence.answers[probe].cells:
        if own not in (group, ""):
            continue
        found = [evidence.score((own, arm), scope, probe) for scope in scopes]
        if not any(found):
            continue
        cells = [
            NONE if one is None else _score_html(one, evidence.find(group, arm, scope, probe))
            for scope, one in zip(scopes, found, strict=True)
        ]
        rows.append([page.chip(looks[arm].colour) + arm if arm in looks else features_label(arm), *cells])
    return page.table(["arm", *scopes], rows, numeric=True)


def _score_html(score: tuple[float, float, float, int], one: Difference | None) -> Markup:
    lines = [f"{100 * score[1]:.1f} to {100 * score[2]:.1f}"]
    if one is not None:
        mark = {"better": " ▲", "worse": " ▼", "equivalent": " ="}.get(one.finding, "")
        lines += [f"{points(one.value)}{mark}", f"({span(one.low, one.high)})"]
    return page.cell(f"{100 * score[0]:.1f}", lines)
