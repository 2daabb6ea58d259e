"""The command evaluate: encoders on labelled tasks."""

from dataclasses import dataclass

from tyro.conf import OmitArgPrefixes, Positional

from melmask.cli.console import command_line, console, noted_bar
from melmask.cli.options import (
    NUM_CORES,
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


@dataclass(frozen=True)
class TaskOptions:
    """Tasks, and how encoders are evaluated on them.

    Args:
        tables: CSV files with path,label[,fold][,group].
        probe: what predicts labels from frozen embeddings: linear, logistic, ridge, knn, mlp, fewshot, attentive or a
            package.module:Class; settings follow a colon, as in linear:learning_rate=3e-5.
        clip_s: length of each clip in seconds, for all encoders alike: longer clips are cropped to their middle, shorter ones
            zero-padded; 0 for whole clips; task for the length that `melmask tasks make` recorded.
    """

    tables: Tables
    probe: Probes = ("logistic",)
    clip_s: ClipLength = "task"
    test_folds: TestFolds = ()
    seeds: Seeds = 3
    workers: Workers = NUM_CORES


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
        encoders: runs' folders, encoder files, logmel-stats, untrained:SIZE, onnx:FILE[@RATE], hear:MODULE[@WEIGHTS]
            or hf:FOLDER; see docs/peers.md.
        task: tasks and probes.
        features: of melmask encoders only.
        baselines: also evaluate log-mel statistics and the runs' encoders untrained.
        out: a file that the results of all encoders are appended to as well.
        details: a folder for scores by class, confusions and calibration, as tables and figures.
    """
    from melmask.cli import steps
    from melmask.encoders import registry
    from melmask.evaluate import results as lines
    from melmask.evaluate import run
    from melmask.evaluate.run import ProbeResult
    from melmask.evaluate.task import Task

    def keep(encoder: registry.NamedEncoder, labelled: Task, found: ProbeResult) -> None:
        if details:
            from melmask.evaluate.per_class import details_of
            from melmask.files import file_name
            from melmask.report.per_class import save_per_class

            folder = details / file_name(labelled.name, encoder.name, found.probe)
            save_per_class(details_of(found, labelled), folder)

    named = registry.with_baselines(encoders, features, baselines=baselines)
    for table in task.tables:
        stores = [steps.prepare_task(table, spec, task.workers) for spec in registry.specs_of(named)]
        with noted_bar(table.stem) as show:
            results = run.evaluate(
                named,
                table,
                stores,
                probes=task.probe,
                clip_length=task.clip_s,
                test_folds=task.test_folds,
                num_seeds=task.seeds,
                command=command_line(),
                progress=show,
                found_one=keep,
            )
        steps.print_results(results)
        written = lines.keep_results(named, results, out)
        steps.print_appended(written)
        if not written:
            console.print("[dim]not saved: no encoder is a run's folder, and no file is named by --out[/]")
