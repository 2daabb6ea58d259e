"""Runs of a study as jobs: on a Slurm cluster, or as detached processes of this machine, by submitit (extra slurm)."""

import os
import shlex
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from melmask.extras import need
from melmask.files import append_line, good_lines
from melmask.locks import exclusive
from melmask.study.kept import LOCK, LOCK_WAIT_S, Failure, keep_failure, line_maker, read_failures
from melmask.study.progress import missing
from melmask.study.run import FAILED, TRAIN_OR_EVALUATE, do_run, prepare_study
from melmask.study.study import PlannedRun, Study

if TYPE_CHECKING:
    from submitit import Job

JOBS, LOGS = "jobs.jsonl", "jobs"
EXTRA, WHAT = "slurm", "melmask study run --submit"
# By sbatch's names; the time is in minutes. A job that reaches it is queued again, up to three times, and goes on.
SLURM: Mapping[str, Any] = {"time": 1440, "gpus_per_node": 1, "cpus_per_task": 8, "mem": "32GB"}
LISTS: Mapping[str, Callable[[str], list[str]]] = {"setup": lambda text: [text], "srun_args": shlex.split}
FOREVER_MIN = 60 * 24 * 365
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Submitted:
    """A line of jobs.jsonl.

    Args:
        run: its name in the study.
        job: its number on the cluster.
    """

    run: str
    job: str


@dataclass(frozen=True)
class Queued:
    """A job of a run that is not done.

    Args:
        run: its name in the study.
        job: its number on the cluster.
        state: as Slurm calls it, such as PENDING; or "submitted", and after what it was submitted again.
    """

    run: str
    job: str
    state: str


@dataclass(frozen=True)
class RunJob:
    """What a job does. Preempted or at the end of its time, it is queued again, and resumes its run.

    Args:
        study, out, run: see `melmask.study.run.do_run`.
        device: that it may see, as CUDA_VISIBLE_DEVICES names it; None leaves that as it is.
    """

    study: Study
    out: Path
    run: PlannedRun
    device: str | None = None

    def __call__(self) -> int:
        """Train and evaluate; returns the status of `do_run`."""
        if self.device is not None:
            os.environ[VISIBLE] = self.device
        return do_run(self.study, self.out, self.run)

    def checkpoint(self) -> Any:
        """Called by submitit in a job that is about to be stopped."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def status_of(job: "Job[int]") -> int | str:
    """The status of `do_run` in a job that has ended, or what became of it in words."""
    if not job.paths.result_pickle.exists():
        return f"job {job.job_id} ended without a result, as one that is killed ({job.state}): see {job.paths.stderr}"
    error = job.exception()
    return job.result() if error is None else f"job {job.job_id} failed: see {job.paths.stderr}"


class LocalJobs:
    """Starts runs as jobs of this machine, which go on if this process is killed; one device each, in turn.

    Args:
        out: the study's folder.

    Raises:
        ImportError: submitit is not installed.
    """

    def __init__(self, out: Path) -> None:
        need(EXTRA, WHAT)
        from submitit import LocalExecutor

        self.executor = LocalExecutor(out / LOGS)
        self.executor.update_parameters(timeout_min=FOREVER_MIN)
        named = os.environ.get(VISIBLE)
        devices = [str(number) for number in range(torch.cuda.device_count())] if named is None else named.split(",")
        self.devices, self.numbers = devices or [""], count()

    def __call__(self, study: Study, out: Path, run: PlannedRun) -> "LocalJob":
        """Start a run, see `melmask.study.run.Start`."""
        device = self.devices[next(self.numbers) % len(self.devices)]
        with _deaf_to_interrupts():
            return LocalJob(self.executor.submit(RunJob(study, out, run, device)))


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes that are started within ignore Ctrl-C, by which submitit would kill a run before it has saved."""
    before = None
    with suppress(ValueError):  # not in the main thread
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


@dataclass(frozen=True)
class LocalJob:
    """A run at work as a job of this machine: a `melmask.study.run.Working`."""

    job: "Job[int]"

    def ended(self) -> int | str | None:
        """Its status, or how it ended in words; None while it works."""
        return status_of(self.job) if self.job.done() else None

    def stop(self) -> None:
        """Ask it to save its run."""
        os.kill(int(self.job.job_id), signal.SIGTERM)


def slurm_options(given: Sequence[str]) -> dict[str, Any]:
    """Options of sbatch, by its names with underscores; those that are not given as SLURM has them.

    Args:
        given: "KEY=VALUE" each; without a value the option is left out.

    Raises:
        ValueError: one is no such text, or time is no number of minutes.

    >>> slurm_options(["partition=gpu", "mem=", "time=60"])
    {'time': 60, 'gpus_per_node': 1, 'cpus_per_task': 8, 'partition': 'gpu'}
    """
    options = dict(SLURM)
    for text in given:
        key, equals, value = text.partition("=")
        key = key.strip().lstrip("-").replace("-", "_")
        if not (key and equals):
            raise ValueError(f"Slurm option {text!r}: give KEY=VALUE, such as partition=gpu")
        options.pop(key, None) if value == "" else options.update({key: _value(key, value)})
    if not isinstance(options.get("time", 0), int):
        raise ValueError(f"Slurm option time={options['time']}: give minutes, such as time=240")
    return options


def _value(key: str, text: str) -> Any:
    if key in LISTS:
        return LISTS[key](text)
    return int(text) if text.isdecimal() else {"true": True, "false": False}.get(text, text)


def submit_to_slurm(
    study: Study,
    out: Path,
    options: Mapping[str, Any],
    *,
    jobs: int | None = None,
    shard: str = "1/1",
    num_workers: int | None = None,
) -> tuple[list[str], list[Queued]]:
    """Submit the runs that are missing, as an array of jobs, and return at once; recordings are prepared here, before.

    A run whose job is still queued or at work is not submitted again. A job that ended without a result is recorded as
    a failure, and its run submitted again.

    Args:
        study, out, shard, num_workers: see `melmask.study.run.run_study`; the folder is one that all machines see.
        options: see `slurm_options`.
        jobs: that run at once; None for as many as the cluster has room for.

    Returns:
        The names of the runs that are done, and the jobs of the others.

    Raises:
        ImportError: submitit is not installed.
        ValueError: this is no machine of a Slurm cluster, sbatch refuses the job, or see `run_study`.
    """
    need(EXTRA, WHAT)
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs is how many run at once, from 1 on, got {jobs}")
    if lacking := [name for name in ("sbatch", "srun") if shutil.which(name) is None]:
        raise ValueError(f"--submit slurm needs {' and '.join(lacking)}: call it on a machine of a Slurm cluster")
    executor = _executor(out.absolute() / LOGS, {"job_name": study.name, **options})
    runs, store = prepare_study(study, out, shard, num_workers)
    lacks = [run for run in runs if missing(study, out, run, store)]
    queued, again = _standing(out, lacks)
    waiting = {one.run for one in queued}
    new = [run for run in lacks if run.name not in waiting]
    if new:
        executor.update_parameters(array_parallelism=jobs or len(new))
        try:
            submitted = executor.submit_array([RunJob(study, out.absolute(), run) for run in new])
        except RuntimeError as error:
            raise ValueError(f"sbatch refuses the job: {error}") from error
        for run, job in zip(new, submitted, strict=True):
            with exclusive(out / LOCK, wait_s=LOCK_WAIT_S):
                append_line(out / JOBS, asdict(Submitted(run.name, job.job_id)))
            reason = f" again after: {again[run.name]}" if run.name in again else ""
            queued.append(Queued(run.name, job.job_id, f"submitted{reason}"))
    return [run.name for run in runs if run not in lacks], queued


def _executor(folder: Path, options: Mapping[str, Any]) -> Any:
    """submitit's, with those options; what it does not know goes to sbatch as it is."""
    from submitit import SlurmExecutor

    executor = SlurmExecutor(folder)
    known = SlurmExecutor._valid_parameters()  # which submitit lists nowhere else
    others = {key.replace("_", "-"): value for key, value in options.items() if key not in known}
    executor.update_parameters(**{key: options[key] for key in options if key in known}, additional_parameters=others)
    return executor


def _standing(out: Path, lacks: Sequence[PlannedRun]) -> tuple[list[Queued], dict[str, str]]:
    """Of runs that are missing: the jobs that are queued or at work, and why those that ended did not finish."""
    from submitit import SlurmJob

    queued, again = [], {}
    last = {one.run: one.job for one in good_lines(out / JOBS, line_maker(Submitted))}
    found: dict[str, SlurmJob[int]] = {
        run.name: SlurmJob(out.absolute() / LOGS, last[run.name]) for run in lacks if run.name in last
    }
    for name, job in found.items():  # all are registered by now, so sacct is asked once
        if not job.done():
            queued.append(Queued(name, job.job_id, job.state))
            continue
        status = status_of(job)
        if isinstance(status, str):
            keep_failure(out, Failure(name, TRAIN_OR_EVALUATE, status))
        if status == FAILED or isinstance(status, str):
            again[name] = next(one.error for one in reversed(read_failures(out)) if one.run == name)
    return queued, again
