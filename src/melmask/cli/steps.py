"""Steps that several commands share: prepare recordings under a progress bar, and print results."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from melmask.audio import Note
from melmask.cli.console import bar, console, named, print_notes, print_path
from melmask.cli.main import EXIT_LEFT_OUT
from melmask.data.checks import Verify
from melmask.data.manifest import Rejected
from melmask.data.notes import summed_up
from melmask.data.prepare import prepare
from melmask.data.store import NOTES, REJECTED, NotedClip, Store, write_rejected
from melmask.datasets.base import OURS
from melmask.evaluation.evar import EVAR_TASKS, PUBLISHED, NineTasks, average
from melmask.evaluation.prepared import task_store_folder
from melmask.evaluation.results import Result
from melmask.logmel import LogMelSpec

DEFAULT_SPEC = LogMelSpec()
PROBE_WIDTH = 20


def prepare_shown(
    sources: Sequence[Path],
    out: Path,
    workers: int | None,
    spec: LogMelSpec = DEFAULT_SPEC,
    verify: Verify = "first",
    max_memory_gib: float | None = None,
) -> Store:
    """Prepare under a progress bar."""
    with bar("preparing") as (progress, task):

        def show(done: int, total: int, audio_s: float, num_rejected: int) -> None:
            rejected = f", [red]{num_rejected} rejected[/]" if num_rejected else ""
            progress.update(task, completed=done, total=total, note=f"{audio_s / 3600:.2f} h of audio{rejected}")

        return prepare(
            sources,
            out,
            spec=spec,
            num_workers=workers,
            verify=verify,
            max_memory_gib=max_memory_gib,
            progress=show,
            say=lambda text: print_notes([text]),
        )


def accounted(num_used: int, rejected: Sequence[Rejected], listed: Path) -> str:
    """What became of all that was found, in a sum, and where the rest is listed."""
    num_excluded = sum(one.is_excluded for one in rejected)
    num_rejected = len(rejected) - num_excluded
    line = f"{num_used + len(rejected):,} found = {num_used:,} used + {num_rejected:,} rejected"
    return f"{line} + {num_excluded:,} excluded" + (f"; listed in {listed}" if rejected else "")


def list_rejected(out: Path, rejected: Sequence[Rejected]) -> Path:
    """List what was rejected beside an output, in FILE.rejected.csv; a list of an earlier call is removed."""
    listed = out.with_name(f"{out.name}.rejected.csv")
    listed.unlink(missing_ok=True)
    if rejected:
        write_rejected(listed, rejected)
    return listed


def exit_if_left_out(lists: Iterable[Sequence[Rejected]]) -> None:
    """End with the exit status that says so if recordings could not be used; other files in folders do not count."""
    if any(not rejected.is_excluded for one in lists for rejected in one):
        sys.exit(EXIT_LEFT_OUT)


def prepare_task(table: Path, spec: LogMelSpec, workers: int | None) -> Store:
    """A task's recordings, prepared in the cache, where the next command finds them."""
    store = prepare_shown([table], task_store_folder(table, spec), workers, spec)
    print_rejections(store)
    return store


def print_rejections(store: Store) -> None:
    """How many files were rejected, by reason, what was found about others, and where both are listed."""
    print_notes(notes_of(store.notes, str(store.folder / NOTES)))
    if store.rejected:
        console.print(rejections_table(store.rejected))
        console.print(escape(accounted(len(store), store.rejected, store.folder / REJECTED)), soft_wrap=True)


def notes_of(notes: Sequence[NotedClip], listed: str) -> list[str]:
    """One line for every kind of thing that was found about recordings that are used."""
    return summed_up(((noted.path.name, Note(noted.kind, noted.detail)) for noted in notes), listed)


def front_end_of(settings: Sequence[str], base: LogMelSpec = DEFAULT_SPEC) -> LogMelSpec:
    """A front end with some of its settings changed, each given as NAME=VALUE.

    Raises:
        ValueError: no such setting, no number, or one out of range.
    """
    types = {field.name: type(getattr(DEFAULT_SPEC, field.name)) for field in fields(LogMelSpec)}
    values = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in types:
            raise ValueError(f"--front-end {setting!r}: give NAME=VALUE, with one of the names {', '.join(types)}")
        try:
            values[name] = types[name](value)
        except ValueError as error:
            raise ValueError(f"--front-end {setting!r}: {value!r} is no {types[name].__name__}") from error
    return replace(base, **values)


def print_task_rejections(table: Path, specs: Sequence[LogMelSpec]) -> list[Store]:
    """What was rejected of a task that was prepared with each of these log-mel settings, and these stores."""
    stores = [Store.open(task_store_folder(table, spec)) for spec in specs]
    for store in stores:
        print_rejections(store)
    return stores


def rejections_table(found: Sequence[Rejected]) -> Table:
    """How many files were rejected, by reason."""
    reasons = [rejected.reason for rejected in found]
    table = Table(title=f"rejected files: {len(reasons):,}", title_justify="left")
    table.add_column("reason")
    table.add_column("files", justify="right")
    table.add_column("for example", overflow="fold")
    for reason in sorted(set(reasons), key=lambda reason: (-reasons.count(reason), reason)):
        example = found[reasons.index(reason)].path
        table.add_row(reason, f"{reasons.count(reason):,}", named(example.name))
    return table


def print_results(results: Sequence[Result]) -> None:
    """The table of results and, under it, their notes."""
    console.print(results_table(results))
    print_notes(note for result in results for note in result.notes)


def print_appended(paths: Sequence[Path]) -> None:
    """The files that lines of results were appended to."""
    for path in paths:
        print_path(path, "appended to ")


def results_table(results: Sequence[Result]) -> Table:
    """A row for every encoder and probe: its score with the 95 % interval."""
    first = results[0]
    tested = f"test folds {', '.join(first.test_folds)}" if first.test_folds else "all folds"
    caption = (
        f"{first.metric} in %, 95 % interval; {first.num_clips:,} test clips, {first.num_classes} classes, {tested}"
    )
    if first.rejected:
        caption += f"; clips rejected: {first.rejected}"
    title = f"{first.task}: {first.split}, protocol {first.protocol}"
    table = Table(title=named(title), caption=caption, title_justify="left", caption_justify="left")
    probes = [probe_shown(result) for result in results]
    table.add_column("encoder", overflow="fold")  # long names wrap, so that all figures can be read
    table.add_column("probe", overflow="fold", min_width=min(PROBE_WIDTH, max(map(len, probes))))
    for column in ("dims", first.metric, "95 % interval"):
        table.add_column(column, justify="right", no_wrap=True)
    for before, result, probe in zip([None, *results], results, probes, strict=False):
        is_next = before is not None and before.encoder != result.encoder
        if is_next:
            table.add_section()
        table.add_row(
            named(result.encoder) if before is None or is_next else "",
            named(probe),
            f"{result.num_dims:,}",
            f"[bold]{100 * result.score:.1f}[/]",
            f"{100 * result.low:.1f} to {100 * result.high:.1f}",
        )
    return table


def print_fault(task: str, results: Sequence[Result], fault: str) -> None:
    """Why a task was not evaluated; nothing if it was."""
    if fault:
        console.print(f"[red]{named(task)} failed:[/] {escape(fault)}", soft_wrap=True)


def print_nine(nine: NineTasks, protocol: str) -> None:
    """The table of EVAR's nine tasks, and under it splits, faults and the sources of published rows."""
    console.print(nine_table(nine, protocol))
    for task, fault in nine.faults.items():
        console.print(f"[red]{EVAR_TASKS[task]} ({task}) has no score:[/] {escape(fault)}", soft_wrap=True)
    splits = {task: results[0].split for task, results in nine.results.items() if results}
    console.print(escape("splits: " + "; ".join(f"{task} {split}" for task, split in splits.items())), soft_wrap=True)
    ours = [task for task, split in splits.items() if split == OURS]
    if ours:
        print_notes([f"published rows are on EVAR's split of {', '.join(ours)}, which is another than melmask's"])
    for row in PUBLISHED if protocol == "evar" else ():
        console.print(f"[dim]{escape(row.name)}: {escape(row.source)}[/]", soft_wrap=True)


def nine_table(nine: NineTasks, protocol: str) -> Table:
    """A row for every encoder, and under protocol evar for published ones, in EVAR's order of tasks."""
    caption = f"accuracy in %, protocol {protocol}; an average only where all nine tasks have a score"
    table = Table(title="EVAR's nine tasks", caption=caption, title_justify="left", caption_justify="left")
    table.add_column("encoder", overflow="fold")
    for name in (*EVAR_TASKS.values(), "average"):
        table.add_column(name, justify="right", no_wrap=True)
    for (encoder, _), scores in nine.rows.items():
        mean = average(scores)
        table.add_row(escape(encoder), *_nine_cells(scores), "-" if mean is None else f"[bold]{mean:.1f}[/]")
    if protocol == "evar":
        table.add_section()
        for row in PUBLISHED:
            table.add_row(f"{escape(row.name)} (published)", *_nine_cells(row.scores), f"{row.average:.1f}")
    return table


def _nine_cells(scores: Mapping[str, float]) -> list[str]:
    return [f"{scores[task]:.1f}" if task in scores else "-" for task in EVAR_TASKS]


def probe_shown(result: Result) -> str:
    """A probe's name, and the number of trainings that its score is the mean of."""
    return result.probe + (f" ({result.num_seeds} seeds)" if result.num_seeds > 1 else "")
