"""The command evaluate: encoders on labelled tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.markup import escape
from tyro.conf import OmitArgPrefixes, Positional

from melmask.cli.console import answer, command_line, console, noted_bar, print_next, print_notes, print_path
from melmask.cli.options import (
    AllowDuplicates,
    Encoders,
    OptionalFile,
    OptionalFolder,
    Probes,
    SavedModel,
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
    from melmask.evaluation.run import Evaluation, EvaluationSettings


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


@dataclass
class SavedProbes:
    """Where probes are saved for use, and which were since the last look.

    Args:
        folder: of the model, or of a folder for each where there are several.
        has_several: whether there are.
        saved: the folders that were written.
    """

    folder: Path
    has_several: bool
    saved: list[Path]

    @staticmethod
    def of(folder: Path, named: "Sequence[NamedEncoder]", task: TaskOptions) -> "SavedProbes":
        """The folder for the probes of encoders that can be made again.

        Raises:
            ValueError: a probe defines no state that could be saved, or no encoder can be made again.
        """
        from melmask.probes import can_be_saved, make_probe

        for probe in task.probe:
            if not can_be_saved(make_probe(probe)):
                raise ValueError(f"{probe} cannot be saved: it defines fit_predict alone, and no train and predict")
        num_encoders = sum(bool(encoder.given) for encoder in named)
        if not num_encoders:
            raise ValueError("--save-probe needs an encoder that is named: objects and baselines are not saved")
        return SavedProbes(folder, num_encoders * max(1, len(task.probe)) * max(1, len(task.tables)) > 1, [])

    def save(self, evaluation: "Evaluation") -> None:
        """Train the probe on all clips, and save it; of a baseline nothing is saved."""
        from melmask.files import file_name
        from melmask.models.file import save_model
        from melmask.models.training import classifier_for_use

        encoder = evaluation.encoder
        if not encoder.given:
            return
        folder = self.folder
        if self.has_several:
            folder /= file_name(evaluation.task.name, encoder.name, evaluation.found.probe)
        model = classifier_for_use(evaluation, clip_s=evaluation.result.clip_s)
        self.saved.append(save_model(model, folder, encoder.given, command_line()))

    def take(self) -> list[Path]:
        """What was saved since it was last asked for."""
        saved, self.saved = self.saved, []
        return saved


def evaluate(
    encoders: Positional[Encoders],
    task: OmitArgPrefixes[TaskOptions],
    tasks: OptionalFolder = None,
    features: OmitArgPrefixes[FeatureSettings] = DEFAULT_SETTINGS,
    baselines: bool = True,
    out: OptionalFile = None,
    details: OptionalFolder = None,
    save_probe: SavedModel = None,
) -> None:
    """Evaluate encoders on labelled tasks by probes, beside baselines.

    Example: melmask evaluate tiny --task clips.csv

    Each encoder is compared with its baselines, with paired intervals.

    Results of a run and its baselines are appended to its results.jsonl, and the comparisons to its comparisons.jsonl.

    Args:
        encoders: runs' folders, RUN@STEP for encoders kept along a run, encoder files, logmel-stats, untrained:SIZE,
            onnx:FILE[@RATE], hear:MODULE[@WEIGHTS] or hf:FOLDER; see `melmask docs peers`.
        task: tasks and probes.
        tasks: in place of --task, a folder with the tables of EVAR's nine tasks: all of them, in one table beside
            published scores.
        features: of melmask encoders only.
        baselines: also evaluate log-mel statistics and the runs' encoders untrained.
        out: a file that the results of all encoders are appended to as well, FILE.jsonl; their comparisons with
            baselines to FILE.comparisons.jsonl.
        details: a folder for scores by class, confusions and calibration, as tables and figures.
        save_probe: a folder for models of the encoders that are named, trained on all recordings of a table, which
            `melmask predict` applies; several have a folder each in it.
    """
    from melmask.cli import steps
    from melmask.data.manifest import source_names
    from melmask.encoders import registry
    from melmask.evaluation import evar

    named = registry.with_baselines(encoders, features, baselines=baselines)
    saving = SavedProbes.of(save_probe, named, task) if save_probe else None

    stores: list[Store] = []

    def one(table: Path, name: str = "") -> "list[Result]":
        results, prepared = _evaluate_one(named, table, name or table.stem, task, out, details, saving)
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
    saving: "SavedProbes | None",
) -> "tuple[list[Result], list[Store]]":
    """Evaluate encoders on one task, print and keep the results; also what the task was prepared to."""
    from melmask.cli import steps
    from melmask.encoders import registry
    from melmask.evaluation.compare import compare_with_baselines, findings
    from melmask.evaluation.comparisons import keep_comparisons
    from melmask.evaluation.per_class import details_of
    from melmask.evaluation.results import keep_results
    from melmask.evaluation.run import ProbeResult, evaluate_table
    from melmask.files import file_name
    from melmask.report.per_class import save_per_class

    results = []
    found_by: dict[str, list[ProbeResult]] = {}
    with noted_bar(name) as show:
        for evaluation in evaluate_table(
            named, table, task.settings, name=name, command=command_line(), num_workers=task.workers, progress=show
        ):
            results.append(evaluation.result)
            found, labelled = evaluation.found, evaluation.task
            found_by.setdefault(evaluation.encoder.name, []).append(found)
            if saving:
                saving.save(evaluation)
            if details:
                folder = details / file_name(labelled.name, evaluation.encoder.name, found.probe)
                save_per_class(details_of(found, labelled), folder)
        comparisons = compare_with_baselines(named, found_by, labelled)
    stores = steps.print_task_rejections(table, registry.specs_of(named))
    steps.print_results(results)
    for sentence in findings(comparisons):
        console.print(escape(sentence))
    answer.setdefault("results", []).extend(results)
    answer.setdefault("comparisons", []).extend(comparisons)
    written = keep_results(named, results, out)
    steps.print_appended([*written, *keep_comparisons(named, comparisons, command_line(), out)])
    for path in saving.take() if saving else ():
        print_path(path, "a model for melmask predict: ")
    if not written:
        console.print("[dim]not saved: no encoder is a run's folder, and no file is named by --out[/]")
    return results, stores
