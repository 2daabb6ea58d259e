"""The command study: a grid of runs and their evaluations, planned, run and analysed."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from rich.markup import escape
from tyro.conf import OmitArgPrefixes, Positional, arg, subcommand

from melmask.cli.console import answer, bar, console, named, print_next, print_notes, print_path
from melmask.cli.main import EXIT_INTERRUPTED, EXIT_LEFT_OUT
from melmask.cli.options import Folder, OptionalFolder, Sounds, Workers
from melmask.cli.study_tables import costs_table, designs_table, differences_table
from melmask.plan.devices import DEVICES

if TYPE_CHECKING:
    from melmask.study.progress import Standing
    from melmask.study.run import Outcome
    from melmask.study.study import Study

Named = Positional[Annotated[str, arg(metavar="FILE|NAME", help="a Python file that defines study, or smoke, small, "
    "ablations or paper.")]]  # fmt: skip
Data = Annotated[
    Path | None,
    arg(
        metavar="FOLDER",
        help="where the study's recordings and tables lie.",
        help_behavior_hint="(default: the folder of the study's file, or the current one)",
    ),
]
SeveralNamed = Positional[Annotated[tuple[str, ...], arg(metavar="FILE|NAME [FILE|NAME ...]", help="one study, or "
    "several that share a folder, such as small and ablations.", help_behavior_hint="(required)")]]  # fmt: skip
OptionalNumber = Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: of the study)")]
HOUR_S, HOUR_MIN = 3600, 60
NUM_SHOWN = 10  # designs


@dataclass(frozen=True)
class Planning:
    """Say what a study will take before it starts: runs, steps, time and commands.

    Example: melmask study plan smoke

    Args:
        clips: number of recordings, where runs are counted in epochs; the length is that of --clip-s.
        clip_s: their length in seconds.
        device: an accelerator, by its data sheet; without one this machine is measured, which takes some seconds.
        devices: number of devices that share a run.
        commands: print the commands of every run too.
        out: the study's folder in these commands.
    """

    study: Named
    data: Data = None
    clips: int = 10_000
    clip_s: float = 10.0
    device: Literal[tuple(DEVICES)] | None = None  # type: ignore[valid-type]
    devices: int = 1
    commands: bool = False
    out: Folder = Path("STUDY")


@dataclass(frozen=True)
class Running:
    """Train and evaluate what is missing of a study; killed, the same call goes on.

    Example: melmask study run smoke --out STUDY

    Args:
        out: the study's folder.
        jobs: runs at once; 1 if not given, with --submit slurm as many as there is room for; 0 trains in this process.
        shard: i/n: only every n-th run, from the i-th on, so that n machines share the work.
        dry_run: train nothing; list what is missing.
        submit: as jobs of a Slurm cluster, and return; or as jobs of this machine, and wait (extra slurm).
        slurm_options: KEY=VALUE of sbatch, such as partition=gpu time=240 gpus_per_node=1 cpus_per_task=8 mem=32GB.
    """

    study: Named
    out: Folder
    data: Data = None
    jobs: int | None = None
    shard: str = "1/1"
    workers: Workers = None
    dry_run: bool = False
    submit: Literal["slurm", "local"] | None = None
    slurm_options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Analysing:
    """Differences to the baseline, with 95 % intervals, p values adjusted for their number, and equivalence.

    Example: melmask study analyse smoke --out STUDY

    Args:
        out: the study's folder.
        tasks: fixed: the intervals are for these tasks; resampled: for other tasks like them.
        csv: a file for the table.
    """

    study: Named
    out: Folder
    tasks: Literal["fixed", "resampled"] = "fixed"
    csv: OptionalFolder = None


@dataclass(frozen=True)
class Power:
    """From a pilot's variances, the smallest difference that designs can see, and the design that fits a budget best.

    Example: melmask study power smoke --out PILOT --budget-hours 24

    Args:
        out: the folder of the pilot: a study that ran with two seeds or more.
        budget_hours: for all runs and evaluations, one after the other.
        cells: that are trained with every seed; as many as the study has if not given.
        run_minutes: that a training takes.
        task_minutes: that the evaluation of a run on all folds of a task takes.
        max_tasks: that there are; as many as the pilot has if not given.
        tasks: fixed: the tasks are the ones that matter; resampled: they are a sample of such tasks.
    """

    study: Named
    out: Folder
    budget_hours: float = 24.0
    cells: OptionalNumber = None
    run_minutes: float = 10.0
    task_minutes: float = 0.5
    max_tasks: OptionalNumber = None
    tasks: Literal["fixed", "resampled"] = "fixed"


@dataclass(frozen=True)
class Reporting:
    """Write a page with all that a study shows, and its figures and tables as files; whole or incomplete.

    Example: melmask study report smoke --out STUDY

    Args:
        out: the study's folder; its .jsonl files are enough.
        page: the folder of the page; "report" within the study's if not given.
        sounds: recordings whose masks are shown; those of the built-in corpus if not given.
    """

    study: SeveralNamed
    out: Folder
    page: OptionalFolder = None
    sounds: Sounds = ()


Do = (
    Annotated[Planning, subcommand("plan", prefix_name=False)]
    | Annotated[Running, subcommand("run", prefix_name=False)]
    | Annotated[Analysing, subcommand("analyse", prefix_name=False)]
    | Annotated[Reporting, subcommand("report", prefix_name=False)]
    | Annotated[Power, subcommand("power", prefix_name=False)]
)


def study(do: OmitArgPrefixes[Do]) -> None:
    """Run a grid of recipes, seeds and tasks, and say what it shows.

    Example: melmask study plan smoke
    """
    if isinstance(do, Planning):
        _plan(do)
    elif isinstance(do, Running):
        _run(do)
    elif isinstance(do, Analysing):
        _analyse(do)
    elif isinstance(do, Reporting):
        _report(do)
    else:
        _power(do)


def find(name: str, data: Path | None) -> "Study":
    """A study by its name or file, with the paths of its data made absolute."""
    from melmask.study.shipped import STUDIES
    from melmask.study.study import load_study

    found = load_study(name, STUDIES)
    return found.at(data or (Path() if name in STUDIES else Path(name).parent))


def _print_next_run(do: Planning | Running) -> None:
    """The command that trains what is missing."""
    data = () if do.data is None else ("--data", do.data)
    print_next("melmask", "study", "run", do.study, *data, "--out", do.out)


def _plan(do: Planning) -> None:
    from melmask.cli.plan import duration
    from melmask.plan.plan import Data as Recordings
    from melmask.plan.plan import notes_on_short_steps
    from melmask.study.cost import commands_of, cost_of, task_clips

    found = find(do.study, do.data)
    device, recordings = None if do.device is None else DEVICES[do.device], Recordings(do.clips, do.clip_s)
    with console.status("measuring this machine" if device is None else "counting"):
        tasks = task_clips(found, recordings.spec)
        costs = cost_of(found, recordings, device, do.devices, tasks.seconds)
    console.print(costs_table(found, costs))
    total_s = len(found.seeds) * sum(cost.run_s for cost in costs)
    embed_s = len(found.seeds) * sum(cost.embed_s for cost in costs)
    evaluations = f"[bold]{duration(embed_s)}[/] of embedding the {tasks.num_clips:,} clips of its tasks "
    evaluations += f"({duration(tasks.seconds)} of audio); probes and the untrained encoders come on top"
    console.print(
        f"{len(found.runs)} runs, one after the other: [bold]{duration(total_s)}[/] of training; "
        + (evaluations if tasks.num_clips else "evaluations come on top"),
        highlight=False,
    )
    if tasks.not_there:
        print_notes([f"not counted, as {', '.join(tasks.not_there)} cannot be read: name the folder with --data"])
    if device:
        print_notes(notes_on_short_steps(min(cost.run_s / cost.num_steps for cost in costs)))
    over = [cost.cell.name for cost in costs if cost.over_budget]
    if over:
        print_notes([f"a run takes longer than the budget of {duration(found.budget_s or 0)}: {', '.join(over)}"])
    if do.commands:
        for run in found.runs:
            for command in commands_of(found, run, do.out):
                console.print(escape(command), soft_wrap=True)
    answer.update(study=found.name, num_runs=len(found.runs), total_s=total_s, embed_s=embed_s, cells=[
        {"name": cost.cell.name, "num_steps": cost.num_steps, "run_s": cost.run_s, "embed_s": cost.embed_s}
        for cost in costs
    ])  # fmt: skip
    _print_next_run(do)


def _run(do: Running) -> None:
    from melmask.extras import need
    from melmask.study.progress import missing
    from melmask.study.run import open_store, run_study, shard_of

    if do.submit:
        need("slurm", "melmask study run --submit")
    if do.slurm_options and do.submit != "slurm":
        raise ValueError("--slurm-options are for --submit slurm")
    found = find(do.study, do.data)
    if do.submit == "slurm" and not do.dry_run:
        _submit(do, found)
        return
    if do.dry_run:
        found.check_data()
        store = open_store(found, do.out, do.workers)
        for run in shard_of(found.runs, do.shard):
            lacks = missing(found, do.out, run, store)
            console.print(f"{named(run.name)}: {escape(', '.join(lacks)) or 'done'}", soft_wrap=True)
        return
    if do.submit:
        from melmask.study.submit import LocalJobs
    with bar(found.name) as (progress, task):

        def show(standing: "Standing") -> None:
            left = "" if standing.left_s is None else f", {standing.left_s / HOUR_S:.1f} h left"
            failed = f", [red]{standing.num_failed} failed[/]" if standing.num_failed else ""
            note = (
                f"{standing.num_done} of {standing.num_runs} runs{failed}{left}: {escape(', '.join(standing.running))}"
            )
            progress.update(task, completed=standing.steps_done, total=standing.num_steps, note=note)

        outcome = run_study(
            found,
            do.out,
            jobs=1 if do.jobs is None else do.jobs,
            shard=do.shard,
            num_workers=do.workers,
            start=LocalJobs(do.out) if do.submit == "local" else None,
            report=show,
        )
    _print_outcome(do, outcome, len(shard_of(found.runs, do.shard)))


def _submit(do: Running, found: "Study") -> None:
    """Submit what is missing to Slurm, and say what is done, queued and at work."""
    from melmask.study.submit import LOGS, slurm_options, submit_to_slurm

    options = slurm_options(do.slurm_options)
    done, queued = submit_to_slurm(found, do.out, options, jobs=do.jobs, shard=do.shard, num_workers=do.workers)
    for one in queued:
        console.print(f"{named(one.run)}: job {one.job}, {escape(one.state)}", soft_wrap=True, highlight=False)
    answer.update(done=done, queued=[vars(one) for one in queued])
    print_path(do.out, after=f": {len(done)} of {len(done) + len(queued)} runs are trained and evaluated")
    if queued:
        print_notes([f"squeue --me lists the jobs, {do.out / LOGS} has their output; the same call again says how far "
                     "they are, and submits those that failed"])  # fmt: skip
    if not queued:
        print_next("melmask", "study", "analyse", do.study, "--out", do.out)


def _print_outcome(do: Running, outcome: "Outcome", num_runs: int) -> None:
    """What is done and what failed, and the next command; ends with a status that says so."""
    for failure in outcome.failures:
        console.print(f"[red]{named(failure.run)}, {escape(failure.stage)}:[/] {escape(failure.error)}", soft_wrap=True)
    print_notes(f"{name} is being trained by another process" for name in outcome.busy)
    answer.update(done=list(outcome.done), num_runs=num_runs, failures=list(outcome.failures))
    print_path(do.out, after=f": {len(outcome.done)} of {num_runs} runs are trained and evaluated")
    if len(outcome.done) == num_runs:
        print_next("melmask", "study", "analyse", do.study, "--out", do.out)
        return
    _print_next_run(do)
    sys.exit(EXIT_INTERRUPTED if outcome.interrupted else EXIT_LEFT_OUT)


def _analyse(do: Analysing) -> None:
    from melmask.files import write_text
    from melmask.report.formats import csv_table
    from melmask.study.analysis import analyse
    from melmask.study.answers import read_answers

    found, differences, notes = find(do.study, None), [], []
    for probe in found.probe_labels:
        answers = read_answers(found, do.out, probe)
        differences += analyse(answers, found.baseline, found.margin, tasks=do.tasks)
        notes += list(answers.notes)
    console.print(differences_table(differences, found))
    for one in differences:
        if one.scope == "all tasks" and one.probe == found.probe_labels[0]:
            console.print(escape(one.sentence), soft_wrap=True)
    print_notes(notes)
    answer.update(differences=[vars(one) | {"finding": one.finding} for one in differences])
    if do.csv:
        rows = [vars(one) | {"finding": one.finding} for one in differences]
        write_text(do.csv, csv_table(list(rows[0]), [list(row.values()) for row in rows]))
        print_path(do.csv, "wrote ")
    print_next("melmask", "study", "report", do.study, "--out", do.out)


def _report(do: Reporting) -> None:
    from melmask.report.study import study_report

    if not do.study:
        raise ValueError("a report needs a study: name one of smoke, small, ablations and paper, or a Python file")
    found = [find(name, None) for name in do.study]
    with console.status("drawing"):
        written = study_report(found, do.out, do.page or do.out / "report", sounds=do.sounds)
    answer.update(page=written)
    print_path(written, "wrote ")


def _power(do: Power) -> None:
    from melmask.study.answers import read_answers
    from melmask.study.power import best_designs, components_of

    found = find(do.study, None)
    answers = read_answers(found, do.out, found.probe_labels[0])
    components = components_of(answers, found.baseline)
    designs = best_designs(
        components,
        num_cells=do.cells or len(found.cells),
        run_hours=do.run_minutes / HOUR_MIN,
        task_hours=do.task_minutes / HOUR_MIN,
        budget_hours=do.budget_hours,
        max_tasks=do.max_tasks or len(answers.tasks),
        tasks=do.tasks,
    )
    console.print(f"standard deviations of the difference of two arms, in points, by {answers.probe}:")
    for what in ("seeds", "seeds_tasks", "groups", "both", "tasks"):
        deviation = 100 * vars(components)[what] ** 0.5
        console.print(f"  {what.replace('_', ' x ').replace('both', 'seeds x groups')}: {deviation:.2f}")
    console.print(designs_table(designs[:NUM_SHOWN]))
    best = designs[0]
    console.print(
        f"[bold]{best.num_seeds} seeds, {best.num_tasks} tasks and {best.folds:.0%} of their folds[/] see "
        f"{100 * best.smallest:.2f} points with a power of 80 %, in {best.hours:.1f} h"
    )
    print_notes(answers.notes)
    answer.update(components=components, designs=designs[:NUM_SHOWN])
    print_next("melmask", "study", "plan", do.study)
