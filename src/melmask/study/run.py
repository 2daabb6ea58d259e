"""Run a study: train and evaluate what is missing, in parallel processes, and go on where a killed call stopped."""

import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from melmask.data.prepare import prepare
from melmask.data.store import DESCRIPTION, Store
from melmask.demo.procedural.stream import NAME as PROCEDURAL
from melmask.demo.procedural.stream import ProceduralSound
from melmask.evaluation.prepared import prepare_task
from melmask.evaluation.results import RESULTS, keep_results
from melmask.evaluation.run import evaluate_table
from melmask.locks import Locked, exclusive
from melmask.study.curves import keep_curves
from melmask.study.floors import encoder_of
from melmask.study.kept import (
    LOCK,
    LOCK_WAIT_S,
    RUNS,
    STORE,
    Failure,
    keep_clips,
    keep_failure,
    read_failures,
    read_right,
)
from melmask.study.progress import (
    Report,
    Standing,
    Watch,
    evaluation_in_words,
    missing,
    missing_probes,
    needs_training,
    num_steps_of,
)
from melmask.study.study import PlannedRun, Study
from melmask.train.loop import pretrain
from melmask.train.recipe import Recipe
from melmask.train.run_folder import RECIPE
from melmask.train.signals import stop_requests

POLL_S = 0.5
DONE, FAILED, BUSY, INTERRUPTED = 0, 1, 3, 130  # how the process of a run ends
TRAIN_OR_EVALUATE = "train or evaluate"  # the stage of a failure that is known by the end of its process alone


@dataclass(frozen=True)
class Outcome:
    """How a call of `run_study` ended.

    Args:
        done: names of the runs that are trained and evaluated.
        failures: what failed in this call.
        busy: names of runs that another process is training.
        interrupted: whether it was stopped before all runs were tried.
    """

    done: tuple[str, ...]
    failures: tuple[Failure, ...]
    busy: tuple[str, ...]
    interrupted: bool


class Working(Protocol):
    """A run at work in a process of its own."""

    def ended(self) -> int | str | None:
        """How it ended: the status of `do_run`, or in words where there is none; None while it works."""

    def stop(self) -> None:
        """Ask it to save its state and to end."""


Start = Callable[[Study, Path, PlannedRun], Working]


def show_nothing(standing: Standing) -> None:
    """The progress of a call that nobody watches."""


def open_store(study: Study, out: Path, num_workers: int | None = None) -> Store:
    """What the study trains on: its one store, procedural sound, or its sources prepared to ``out/store``.

    Raises:
        ValueError, RuntimeError: see `melmask.data.prepare.prepare`.
    """
    only = study.sources[0] if len(study.sources) == 1 else ""
    if only == PROCEDURAL:
        return ProceduralSound()
    if only and (Path(only) / DESCRIPTION).exists():
        return Store.open(Path(only))
    out.mkdir(parents=True, exist_ok=True)
    return prepare([Path(source) for source in study.sources], out / STORE, num_workers=num_workers)


def shard_of(runs: Sequence[PlannedRun], shard: str) -> list[PlannedRun]:
    """The runs of a shard "i/n": every n-th one, from the i-th on.

    Raises:
        ValueError: it is no such text, or i is not from 1 to n.

    >>> shard_of([], "2/2")
    []
    """
    number, _, total = shard.partition("/")
    if not (number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total)):
        raise ValueError(f"shard {shard!r}: give i/n with i from 1 to n, such as 1/4")
    return list(runs[int(number) - 1 :: int(total)])


def prepare_study(
    study: Study, out: Path, shard: str = "1/1", num_workers: int | None = None
) -> tuple[list[PlannedRun], Store]:
    """Check and prepare all that runs read; returns those of the shard, and what they train on.

    Raises:
        ValueError, RuntimeError: see `run_study`.
    """
    runs = shard_of(study.runs, shard)
    study.check_data()
    out.mkdir(parents=True, exist_ok=True)
    store = open_store(study, out, num_workers)
    for task in study.tasks:
        prepare_task(Path(task.table), store.spec, num_workers=num_workers)
    return runs, store


def run_study(
    study: Study,
    out: Path,
    *,
    jobs: int = 1,
    shard: str = "1/1",
    num_workers: int | None = None,
    start: Start | None = None,
    report: Report = show_nothing,
) -> Outcome:
    """Train and evaluate the runs of a study that are missing in a folder.

    A call that was killed goes on where it stopped, within a run too. What failed is recorded, stops nothing, and is
    tried again by the next call. Several calls may work on one folder at once, as shards.

    Args:
        study: with the paths of its data made absolute.
        out: the folder, see `melmask.study.kept`.
        jobs: processes that train at once; 0 trains in this process.
        shard: "i/n": only every n-th run, from the i-th on.
        num_workers: processes that decode recordings, see `prepare`.
        start: starts a run elsewhere than in a child of this process, such as `melmask.study.submit.LocalJobs`.
        report: called with how far it has got, every half second, or with jobs 0 at every entry of a log.

    Raises:
        ValueError: data are missing, the shard is none, or the recordings or a task cannot be prepared.
    """
    if jobs < 0:
        raise ValueError(f"jobs must not be negative, got {jobs}: 0 trains in this process")
    if jobs == 0 and start:
        raise ValueError("jobs 0 trains in this process: give the number of runs that are submitted at once")
    runs, store = prepare_study(study, out, shard, num_workers)
    num_before = len(read_failures(out))
    watch = Watch(study, out, runs, [num_steps_of(run.recipe, store) for run in runs], num_before, report)
    todo = [run for run in runs if missing(study, out, run, store)]
    if jobs == 0:
        busy, interrupted = _one_by_one(study, out, todo, watch)
    else:
        busy, interrupted = _at_once(study, out, todo, jobs, start or _Process, watch)
    done = tuple(run.name for run in runs if not missing(study, out, run, store))
    names = {run.name for run in runs}
    failures = tuple(one for one in read_failures(out)[num_before:] if one.run in names)
    return Outcome(done, failures, tuple(busy), interrupted)


def do_run(study: Study, out: Path, run: PlannedRun, tell: Callable[[], None] = lambda: None) -> int:
    """Train one run, or resume it, and evaluate it; what fails is recorded in the folder.

    Args:
        study, out: see `run_study`; recordings and tasks are prepared.
        run: of this study.
        tell: called at every entry of the log, and after every task.

    Returns:
        DONE, FAILED, BUSY if another process trains it, or INTERRUPTED, with its state saved.
    """
    folder = out / RUNS / run.name
    try:
        store = open_store(study, out)
        started = (folder / RECIPE).exists()
        if started and Recipe.load(folder / RECIPE) != run.recipe.on(store):
            raise ValueError(f"{folder} holds a run of another recipe: choose another folder for the study")
        lacks = needs_training(study, out, run, store)
        if lacks and not pretrain(run.recipe, store, folder, resume=started, report=lambda entry: tell()):
            return INTERRUPTED
    except Locked:
        return BUSY
    except Exception as error:
        return _failed(out, run, "train", error)
    try:
        keep_curves(out, [run.name])
    except Exception as error:
        return _failed(out, run, "keep its curves", error)
    return evaluate_run(study, out, run, folder if folder.exists() else store, tell)


def evaluate_run(
    study: Study, out: Path, run: PlannedRun, source: Path | Store, tell: Callable[[], None] = lambda: None
) -> int:
    """Evaluate a run, and its floors, where that is missing; what fails is recorded in the folder.

    Args:
        study, out, run, tell: see `do_run`.
        source: its folder or encoder file; or what it would train on, where only floors are missing.

    Returns:
        DONE or FAILED.
    """
    status, tasks = DONE, dict(zip(study.task_names, study.tasks, strict=True))
    for (name, called), probes in missing_probes(study, read_right(out), run).items():
        task = tasks[called]
        try:
            encoder = encoder_of(run, name, source)
            settings = study.settings(task, probes)
            for one in evaluate_table([encoder], Path(task.table), settings, name=called, num_workers=0):
                with exclusive(out / LOCK, wait_s=LOCK_WAIT_S):
                    keep_results([encoder], [one.result], out / RESULTS)
                keep_clips(out, name, task.kind, one)
        except Exception as error:
            status = _failed(out, run, f"evaluate {evaluation_in_words(run, name, called)}", error)
        tell()
    return status


def _failed(out: Path, run: PlannedRun, stage: str, error: Exception) -> int:
    """Record what failed; the status that says so."""
    keep_failure(out, Failure(run.name, stage, f"{type(error).__name__}: {error}"))
    return FAILED


def _one_by_one(study: Study, out: Path, todo: Sequence[PlannedRun], watch: Watch) -> tuple[list[str], bool]:
    """Do runs in this process; the names of those that others train, and whether it was interrupted."""
    busy = []
    for run in todo:
        watch.tell([run.name])
        status = do_run(study, out, run, lambda run=run: watch.tell([run.name]))  # type: ignore[misc]
        if status == BUSY:
            busy.append(run.name)
        if status == INTERRUPTED:
            return busy, True
    watch.tell([])
    return busy, False


def _at_once(
    study: Study, out: Path, todo: Sequence[PlannedRun], jobs: int, start: Start, watch: Watch
) -> tuple[list[str], bool]:
    """Do runs elsewhere, so many at once; a stop is passed on to them, and each saves its run."""
    waiting, running = list(todo), dict[str, Working]()
    busy, stopping = [], False
    with stop_requests() as stop_requested:
        while running or (waiting and not stopping):
            while waiting and len(running) < jobs and not stopping:
                run = waiting.pop(0)
                running[run.name] = start(study, out, run)
            watch.tell(list(running))
            time.sleep(POLL_S)
            if stop_requested() and not stopping:
                stopping = True
                for working in running.values():
                    working.stop()
            for name, working in list(running.items()):
                if (ended := working.ended()) is None:
                    continue
                del running[name]
                if ended == BUSY:
                    busy.append(name)
                elif ended not in (DONE, FAILED, INTERRUPTED) and not stopping:
                    keep_failure(out, Failure(name, TRAIN_OR_EVALUATE, str(ended)))
    watch.tell([])
    return busy, stopping


class _Process:
    """A run in a child of this process: a `Working`."""

    def __init__(self, study: Study, out: Path, run: PlannedRun) -> None:
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(target=_do_in_process, args=(study, out, run), name=run.name)
        self.process.start()

    def ended(self) -> int | str | None:
        """The exit status, in words if it is none of `do_run`."""
        status = self.process.exitcode
        if status in (None, DONE, FAILED, BUSY, INTERRUPTED):
            return status
        return f"its process ended with status {status}, as one that is killed"

    def stop(self) -> None:
        """Terminate it, which saves its run."""
        self.process.terminate()


def _do_in_process(study: Study, out: Path, run: PlannedRun) -> None:
    """The process of a run: its exit status says how it ended."""
    try:
        sys.exit(do_run(study, out, run))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
