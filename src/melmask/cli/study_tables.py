"""The tables that the command study prints."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from melmask.cli.console import named

if TYPE_CHECKING:
    from melmask.study.cost import CellCost
    from melmask.study.findings import Difference
    from melmask.study.power import Design
    from melmask.study.study import Study


def costs_table(study: "Study", costs: "Sequence[CellCost]") -> Table:
    """A row for every cell: steps, time of a training and of embedding its tasks' clips, and both of all seeds."""
    from melmask.cli.plan import duration

    caption = f"{len(study.seeds)} seeds each, on {len(study.tasks)} tasks with {', '.join(study.probes)}"
    table = Table(
        title=named(f"{study.name}: {study.question}"), caption=named(caption), title_justify="left",
        caption_justify="left",
    )  # fmt: skip
    table.add_column("cell", overflow="fold")
    for column in ("steps", "training a run", "embedding", "both, all seeds"):
        table.add_column(column, justify="right")
    for cost in costs:
        whole_s = (cost.run_s + cost.embed_s) * len(study.seeds)
        times = duration(cost.run_s), duration(cost.embed_s) if cost.embed_s else "–", duration(whole_s)
        table.add_row(named(cost.cell.name), f"{cost.num_steps:,}", *times)
    return table


def differences_table(differences: "Sequence[Difference]", study: "Study") -> Table:
    """A row for every comparison."""
    caption = (
        f"points of accuracy, minus {study.baseline}; 95 % intervals; p after Holm within means, within single tasks; "
        f"margin of equivalence {100 * study.margin:g} points; seen: what would be found with a power of 80 %"
    )
    table = Table(title=named(study.question), caption=caption, title_justify="left", caption_justify="left")
    for column in ("arm", "scope", "probe"):
        table.add_column(column, overflow="fold")
    for column in ("difference", "p", "p not worse", "p equal", "seen"):
        table.add_column(column, justify="right")
    for one in differences:
        figures = f"[bold]{100 * one.value:+z.1f}[/]\n[dim]{100 * one.low:+z.1f} to {100 * one.high:+z.1f}[/]"
        ps = [f"{p:.2g}" for p in (one.p_holm, one.p_not_worse, one.p_equivalent)]
        words = [named(text) for text in (f"{one.group} {one.arm}", one.scope, one.probe)]
        table.add_row(*words, figures, *ps, f"{100 * one.smallest:.1f}")
    return table


def designs_table(designs: "Sequence[Design]") -> Table:
    """A row for every design, the one that sees most first."""
    table = Table(title="designs that fit the budget", title_justify="left")
    for column in ("seeds", "tasks", "folds", "smallest difference, points", "h"):
        table.add_column(column, justify="right")
    for one in designs:
        figures = f"{one.folds:.0%}", f"{100 * one.smallest:.2f}", f"{one.hours:.1f}"
        table.add_row(str(one.num_seeds), str(one.num_tasks), *figures)
    return table
