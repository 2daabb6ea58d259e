"""The command evaluate: encoders on labelled tasks."""

import shlex
import sys
from pathlib import Path

from rich.markup import escape
from tyro.conf import Positional

from melmask.cli.console import console, noted_bar, results_table
from melmask.cli.options import NUM_CORES, prepare_task
from melmask.encoders.features import FeatureSettings, Layers, Pooling
from melmask.encoders.fixed_length import ClipLength
from melmask.evaluate.run import ProbeResult
from melmask.evaluate.task import Task


def evaluate(
    encoders: Positional[tuple[str, ...]],
    task: tuple[Path, ...],
    probe: tuple[str, ...] = ("logistic",),
    layers: Layers = "last",
    pooling: Pooling = "mean",
    clip_s: ClipLength = "task",
    test_folds: tuple[str, ...] = (),
    seeds: int = 3,
    baselines: bool = True,
    out: Path | None = None,
    details: Path | None = None,
    workers: int = NUM_CORES,
) -> None:
    """Probe encoders on labelled tasks, beside their baselines; append each run's results to its results.jsonl.

    Args:
        encoders: runs' folders, encoder files, logmel-stats, untrained:SIZE, onnx:FILE[@RATE], hear:MODULE[@WEIGHTS]
            and hf:FOLDER, see docs/peers.md.
        task: CSV files with path,label[,fold][,group].
        probe: how to read labels from frozen embeddings: linear, logistic, ridge, knn, mlp, fewshot or attentive;
            settings follow a colon, as in linear:learning_rate=3e-5.
        layers: of melmask encoders: last, all, or numbers from 1 on.
        pooling: of melmask encoders, over time.
        clip_s: length of each clip in seconds; 0 for whole clips; task for the clip length of a named task.
        test_folds: judge on these folds only; all in turn if none are given.
        seeds: of probes with chance.
        baselines: whether log-mel statistics and the runs' encoders untrained stand beside.
        out: a file that the lines of all encoders are appended to as well.
        details: a folder for what stands behind each score: classes, confusions, calibration.
        workers: processes that decode.
    """
    from melmask.encoders import registry
    from melmask.evaluate import results as lines
    from melmask.evaluate import run

    def keep(entrant: registry.NamedEncoder, task: Task, found: ProbeResult) -> None:
        if details:
            from melmask.evaluate.per_class import details_of
            from melmask.files import file_name
            from melmask.report.per_class import save_per_class

            folder = details / file_name(task.name, entrant.name, found.probe)
            save_per_class(details_of(found, task), folder)

    entrants = registry.with_baselines(encoders, FeatureSettings(layers, pooling), baselines=baselines)
    command = f"melmask {shlex.join(sys.argv[1:])}"
    for table in task:
        specs = registry.specs_of(entrants)
        stores = [prepare_task(table, spec, workers) for spec in specs]
        with noted_bar(table.stem) as show:
            results = run.evaluate(
                entrants,
                table,
                stores,
                probes=probe,
                clip_length=clip_s,
                test_folds=test_folds,
                num_seeds=seeds,
                command=command,
                progress=show,
                found_one=keep,
            )
        console.print(results_table(results))
        for note in dict.fromkeys(note for result in results for note in result.notes):
            console.print(f"[dim]note: {escape(note)}[/]")
        written = lines.keep_results(entrants, results, out)
        for path in written:
            console.print(f"appended to [bold]{path}[/]")
        if not written:
            console.print("[dim]kept nowhere: no run's folder is among the encoders, and no file is named by --out[/]")
