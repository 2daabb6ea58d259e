"""The command compare: two encoders on the same clips."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from rich.markup import escape
from rich.table import Table
from tyro.conf import OmitArgPrefixes, Positional, arg

from melmask.cli.console import answer, command_line, console, named, noted_bar, print_notes, print_path
from melmask.cli.evaluate import TaskOptions, print_report_next
from melmask.cli.options import OptionalFolder
from melmask.encoders.features import DEFAULT_SETTINGS, FeatureSettings
from melmask.evaluation.compare import Comparison
from melmask.evaluation.metrics import Score


def compare(
    a: Positional[Annotated[str, arg(metavar="A")]],
    b: Positional[Annotated[str, arg(metavar="B")]],
    task: OmitArgPrefixes[TaskOptions],
    features: OmitArgPrefixes[FeatureSettings] = DEFAULT_SETTINGS,
    out: OptionalFolder = None,
) -> None:
    """Compare two encoders on the same clips, with paired intervals.

    Example: melmask compare tiny logmel-stats --task clips.csv

    Probes, splits and seeds are the same for both.

    What is sure is said at the end, over all tasks and probes.

    Scores are appended to results.jsonl of runs, as by `melmask evaluate`.

    Differences are written to comparisons.jsonl of runs, for `melmask report`.

    Args:
        a: an encoder, as `melmask evaluate` takes; untrained-of:RUN is a run's own encoder untrained.
        b: the encoder that it is compared with.
        task: tasks and probes.
        features: of melmask encoders only.
        out: a folder for scores by class, confusions and calibration, as tables and figures.
    """
    from melmask.cli.steps import exit_if_left_out, print_appended, print_task_rejections
    from melmask.data.manifest import source_names
    from melmask.data.store import Store
    from melmask.encoders import registry
    from melmask.evaluation.compare import compare_evaluations, findings, paired
    from melmask.evaluation.comparisons import keep_comparisons
    from melmask.evaluation.per_class import details_of
    from melmask.evaluation.results import keep_results
    from melmask.evaluation.run import evaluate_table
    from melmask.files import file_name
    from melmask.report.per_class import save_per_class

    encoders = registry.name_encoders((a, b), features)
    stores: list[Store] = []
    compared: list[Comparison] = []
    answer["comparisons"] = compared  # also those before a task that fails
    written: list[Path] = []
    for table, name in zip(task.given_tables, source_names(task.given_tables), strict=True):
        with noted_bar(name) as show:
            found = evaluate_table(
                encoders,
                table,
                task.settings,
                name=name,
                command=command_line(),
                num_workers=task.workers,
                progress=show,
            )
            pairs = paired(found)
        stores += print_task_rejections(table, registry.specs_of(encoders))
        comparisons = [compare_evaluations(*pair) for pair in pairs]
        print_comparisons(comparisons)
        compared += comparisons
        results = [one.result for letter in zip(*pairs, strict=True) for one in letter]
        kept = [*keep_results(encoders, results), *keep_comparisons(encoders, comparisons, command_line())]
        print_appended([path for path in kept if path not in written])
        written += kept
        if out is None:
            continue
        for pair in pairs:
            for letter, one in zip("ab", pair, strict=True):
                folder = out / file_name(one.task.name, one.found.probe, letter)
                print_path(save_per_class(details_of(one.found, one.task), folder), "wrote ")
    for sentence in [compared[0].verdict] if len(compared) == 1 else findings(compared):
        console.print(escape(sentence))
    print_report_next([path for path in map(Path, (a, b)) if path.is_dir()], None)
    exit_if_left_out(store.rejected for store in stores)


def print_comparisons(comparisons: Sequence[Comparison]) -> None:
    """A table with a row for every probe and, under it, what is to be known about the intervals."""
    first = comparisons[0]
    table = Table(
        title=named(f"{first.task}: A = {first.name_a}, B = {first.name_b}"),
        caption=f"{first.metric} in %, 95 % intervals; {first.difference.num_clips:,} test clips",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("probe", overflow="fold")
    for column in ("A", "B", "A - B, paired", "P(A > B)", "only A : only B", "McNemar p"):
        table.add_column(column, justify="right")
    for one in comparisons:
        cells = [_cell(one.a), _cell(one.b), _cell(one.difference, "+")]
        test = one.mcnemar
        exact = (f"{test.num_only_a} : {test.num_only_b}", f"{test.p_value:.2g}") if test else ("", "")
        table.add_row(named(one.probe), *cells, f"{one.superiority:.3f}", *exact)
    console.print(table)
    print_notes(note for one in comparisons for note in one.notes)


def _cell(score: Score, sign: str = "") -> str:
    value, low, high = (f"{100 * number:{sign}z.1f}" for number in (score.value, score.low, score.high))
    return f"[bold]{value}[/]\n[dim]{low} to {high}[/]"
