"""The command evaluate: encoders on labelled tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import OmitArgPrefixes, Positional

from melmask.cli.console import answer, command_line, console, noted_bar, print_next, print_notes
from melmask.cli.options import (
    AllowDuplicates,
    Encoders,
    OptionalFile,
    OptionalFolder,
    Probes,
    Seeds,
    Tables,
    TestFolds,
    Verify,
    Workers,
)
from melmask.encoders.features import DEFAULT_SETTINGS, FeatureSettings
from melmask.encoders.fixed_length import ClipLength

if TYPE_CHECKING:
    from melmask.data.store import Store
    from melmask.encoders.registry import NamedEncoder
    from melmask.evaluation.results import Result
    from melmask.evaluation.run import EvaluationSettings


@dataclass(frozen=True)
class TaskOptions:
    """Tasks, and how encoders are evaluated on them.

    Args:
        tables: CSV files with path,label[,fold][,group].
        probe: what predicts labels from frozen embeddings: linear, logistic, ridge, knn, mlp, fewshot, attentive or a
            package.module:Class; settings follow a colon, as in linear:learning_rate=3e-5.
        protocol: melmask reads the middle of longer clips; evar, after the evaluation package of M2D, a random crop in
            training and validation and the head in testing, and its probe is linear.
        clip_s: length of each clip in seconds, for all encoders: longer clips are cropped, shorter ones zero-padded; 0:
            whole clips; task: the length that `melmask tasks make` recorded.
    """

    tables: Tables = ()
    probe: Probes = ()
    protocol: Literal["melmask", "evar"] = "melmask"
    clip_s: ClipLength = "task"
    test_folds: TestFolds = ()
    seeds: Seeds = 3
    allow_duplicates: AllowDuplicates = False
    workers: Workers = None
    verify: Verify = "first"

    @property
    def settings(self) -> "EvaluationSettings":
        """The same without what concerns preparation."""
        from melmask.evaluation.run import EvaluationSettings

        return EvaluationSettings(
            self.probe, self.clip_s, self.test_folds, self.seeds, self.protocol, self.allow_duplicates, self.verify
        )

    @property
    def given_tables(self) -> tuple[Path, ...]:
        """The tables that are named.

        Raises:
            ValueError: there are none.
        """
        if not self.tables:
            raise ValueError("no task is given: name its table with --task")
        return self.tables


def evaluate(
    encoders: Positional[Encoders],
    task: OmitArgPrefixes[TaskOptions],
    tasks: OptionalFolder = None,
    features: OmitArgPrefixes[FeatureSettings] = DEFAULT_SETTINGS,
    baselines: bool = True,
    out: OptionalFile = None,
    details: OptionalFolder = None,
) -> None:
    """Evaluate encoders on labelled tasks by probes, beside baselines.

    Example: melmask evaluate tiny --task clips.csv

    Results of a run and its baselines are appended to its results.jsonl.

    Args:
        encoders: runs' folders, RUN@STEP for encoders kept along a run, encoder files, logmel-stats, untrained:SIZE,
            onnx:FILE[@RATE], hear:MODULE[@WEIGHTS] or hf:FOLDER; see docs/peers.md.
        task: tasks and probes.
        tasks: in place of --task, a folder with the tables of EVAR's nine tasks: all of them, in one table beside
            published scores.
        features: of melmask encoders only.
        baselines: also evaluate log-mel statistics and the runs' encoders untrained.
        out: a file that the results of all encoders are appended to as well.
        details: a folder for scores by class, confusions and calibration, as tables and figures.
    """
    from melmask.cli import steps
    from melmask.data.manifest import source_names
    from melmask.encoders import registry
    from melmask.evaluation import evar

    named = registry.with_baselines(encoders, features, baselines=baselines)

    stores: list[Store] = []

    def one(table: Path, name: str = "") -> "list[Result]":
        results, prepared = _evaluate_one(named, table, name or table.stem, task, out, details)
        stores.extend(prepared)
        return results

    runs = [path for path in map(Path, encoders) if path.is_dir()]
    if tasks is None:
        for table, name in zip(task.given_tables, source_names(task.given_tables), strict=True):
            one(table, name)
        print_report_next(runs, out)
        steps.exit_if_left_out(store.rejected for store in stores)
        return
    if task.tables:
        raise ValueError("--task and --tasks are both given: leave one out")
    if len(task.probe) > 1:
        raise ValueError(f"the table of nine tasks is of one probe, and {len(task.probe)} are given: name one")
    folder = evar.find_tables(tasks)
    nine = evar.evaluate_nine(folder, one, steps.print_fault)
    steps.print_nine(nine, task.protocol)
    print_notes(
        f"{path} is none of EVAR's nine tasks, and is left out: evaluate it with --task" for path in folder.others
    )
    print_report_next(runs, out)
    steps.exit_if_left_out(store.rejected for store in stores)


def print_report_next(runs: Sequence[Path], results: Path | None) -> None:
    """The report about these runs and this file of results."""
    if runs or results:
        given: tuple[str | Path, ...] = ("--results", results) if results else ()
        print_next("melmask", "report", *runs, *given, "--out", "report")
    else:
        print_next("melmask", "pretrain", "STORE", "--out", "RUN")


def _evaluate_one(
    named: "Sequence[NamedEncoder]",
    table: Path,
    name: str,
    task: TaskOptions,
    out: Path | None,
    details: Path | None,
) -> "tuple[list[Result], list[Store]]":
    """Evaluate encoders on one task, print and keep the results; also what the task was prepared to."""
    from melmask.cli import steps
    from melmask.encoders import registry
    from melmask.evaluation.per_class import details_of
    from melmask.evaluation.results import keep_results
    from melmask.evaluation.run import evaluate_table
    from melmask.files import file_name
    from melmask.report.per_class import save_per_class

    results = []
    with noted_bar(name) as show:
        for evaluation in evaluate_table(
            named, table, task.settings, name=name, command=command_line(), num_workers=task.workers, progress=show
        ):
            results.append(evaluation.result)
            if details:
                found, labelled = evaluation.found, evaluation.task
                folder = details / file_name(labelled.name, evaluation.encoder.name, found.probe)
                save_per_class(details_of(found, labelled), folder)
    stores = steps.print_task_rejections(table, registry.specs_of(named))
    steps.print_results(results)
    answer.setdefault("results", []).extend(results)
    written = keep_results(named, results, out)
    steps.print_appended(written)
    if not written:
        console.print("[dim]not saved: no encoder is a run's folder, and no file is named by --out[/]")
    return results, stores
