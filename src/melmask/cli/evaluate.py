"""The command evaluate: encoders on labelled tasks."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tyro.conf import OmitArgPrefixes, Positional

from melmask.cli.console import command_line, console, noted_bar
from melmask.cli.options import (
    Encoders,
    OptionalFile,
    OptionalFolder,
    Probes,
    Seeds,
    Tables,
    TestFolds,
    Workers,
)
from melmask.encoders.features import DEFAULT_SETTINGS, FeatureSettings
from melmask.encoders.fixed_length import ClipLength

if TYPE_CHECKING:
    from melmask.evaluation.run import EvaluationSettings


@dataclass(frozen=True)
class TaskOptions:
    """Tasks, and how encoders are evaluated on them.

    Args:
        tables: CSV files with path,label[,fold][,group].
        probe: what predicts labels from frozen embeddings: linear, logistic, ridge, knn, mlp, fewshot, attentive or a
            package.module:Class; settings follow a colon, as in linear:learning_rate=3e-5.
        clip_s: length of each clip in seconds, for all encoders: longer clips are cropped to their middle, shorter ones
            zero-padded; 0: whole clips; task: the length that `melmask tasks make` recorded.
    """

    tables: Tables
    probe: Probes = ("logistic",)
    clip_s: ClipLength = "task"
    test_folds: TestFolds = ()
    seeds: Seeds = 3
    workers: Workers = None

    @property
    def settings(self) -> "EvaluationSettings":
        """The same without what concerns preparation."""
        from melmask.evaluation.run import EvaluationSettings

        return EvaluationSettings(self.probe, self.clip_s, self.test_folds, self.seeds)


def evaluate(
    encoders: Positional[Encoders],
    task: OmitArgPrefixes[TaskOptions],
    features: OmitArgPrefixes[FeatureSettings] = DEFAULT_SETTINGS,
    baselines: bool = True,
    out: OptionalFile = None,
    details: OptionalFolder = None,
) -> None:
    """Evaluate encoders on labelled tasks by probes, beside baselines.

    Results of a run and its baselines are appended to its results.jsonl.

    Args:
        encoders: runs' folders, RUN@STEP for encoders kept along a run, encoder files, logmel-stats, untrained:SIZE,
            onnx:FILE[@RATE], hear:MODULE[@WEIGHTS] or hf:FOLDER; see docs/peers.md.
        task: tasks and probes.
        features: of melmask encoders only.
        baselines: also evaluate log-mel statistics and the runs' encoders untrained.
        out: a file that the results of all encoders are appended to as well.
        details: a folder for scores by class, confusions and calibration, as tables and figures.
    """
    from melmask.cli import steps
    from melmask.encoders import registry
    from melmask.evaluation.per_class import details_of
    from melmask.evaluation.results import keep_results
    from melmask.evaluation.run import evaluate_table
    from melmask.files import file_name
    from melmask.report.per_class import save_per_class

    named = registry.with_baselines(encoders, features, baselines=baselines)
    for table in task.tables:
        results = []
        with noted_bar(table.stem) as show:
            for evaluation in evaluate_table(
                named, table, task.settings, command=command_line(), num_workers=task.workers, progress=show
            ):
                results.append(evaluation.result)
                if details:
                    found, labelled = evaluation.found, evaluation.task
                    folder = details / file_name(labelled.name, evaluation.encoder.name, found.probe)
                    save_per_class(details_of(found, labelled), folder)
        steps.print_task_rejections(table, registry.specs_of(named))
        steps.print_results(results)
        written = keep_results(named, results, out)
        steps.print_appended(written)
        if not written:
            console.print("[dim]not saved: no encoder is a run's folder, and no file is named by --out[/]")
