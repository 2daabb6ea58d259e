"""Commands that use and judge an encoder: embed and evaluate."""

import re
import shlex
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.markup import escape
from tyro.conf import Positional

from melmask.commands.data import DEFAULT_SPEC, NUM_CORES, prepare_shown, prepare_task
from melmask.evaluate.excerpts import UnitLength, excerpts
from melmask.evaluate.features import FeatureSettings, Layers, Pooling
from melmask.evaluate.probe import ProbeResult
from melmask.evaluate.tasks import Task
from melmask.terminal import bar, console, noted_bar, results_table


def embed(
    encoder: Positional[str],
    paths: Positional[tuple[Path, ...]],
    out: Path,
    layers: Layers = "last",
    pooling: Pooling = "mean",
    unit_s: float = 0.0,
    workers: int = NUM_CORES,
) -> None:
    """Write clip embeddings of recordings to an .npz file: features [clip, dim], path, label, fold, group.

    Args:
        encoder: a run's folder, an encoder file, or another encoder that `melmask evaluate` takes.
        paths: folders and CSV manifests.
        out: the file to write.
        layers: of a melmask encoder: last, all, or numbers from 1 on.
        pooling: of a melmask encoder, over time.
        unit_s: how long each clip is heard, in seconds: the middle of longer ones, shorter ones amid silence; 0 for
            whole clips.
        workers: processes that decode.
    """
    from melmask.evaluate.encoders import make_encoder

    made = make_encoder(encoder, FeatureSettings(layers, pooling))
    with tempfile.TemporaryDirectory(prefix="melmask-") as folder:
        store = prepare_shown(paths, Path(folder) / "store", workers, made.spec or DEFAULT_SPEC)
        with bar("embedding") as (progress, task):
            features = made.embed(
                excerpts(store, unit_s), progress=lambda done, total: progress.update(task, completed=done, total=total)
            )
        clips = [stored.clip for stored in store.clips]
        out.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            out,
            features=features,
            path=np.array([str(clip.path) for clip in clips]),
            label=np.array([clip.label or "" for clip in clips]),
            fold=np.array([clip.fold or "" for clip in clips]),
            group=np.array([clip.group or "" for clip in clips]),
        )
    rejected = f"; {len(store.rejected)} files rejected, see above" if store.rejected else ""
    console.print(f"[bold]{out}[/]: {features.shape[0]:,} embeddings of {features.shape[1]} dimensions{rejected}")


def evaluate(
    encoders: Positional[tuple[str, ...]],
    task: tuple[Path, ...],
    probe: tuple[str, ...] = ("logistic",),
    layers: Layers = "last",
    pooling: Pooling = "mean",
    unit_s: UnitLength = "task",
    test_folds: tuple[str, ...] = (),
    seeds: int = 3,
    floors: bool = True,
    out: Path | None = None,
    details: Path | None = None,
    workers: int = NUM_CORES,
) -> None:
    """Probe encoders on labelled tasks, in one table with their floors; append each run's results to its results.jsonl.

    Args:
        encoders: runs' folders, encoder files, logmel-stats, untrained:SIZE, onnx:FILE[@RATE], hear:MODULE[@WEIGHTS]
            and hf:FOLDER, see docs/peers.md.
        task: CSV files with path,label[,fold][,group].
        probe: how to read labels from frozen embeddings: linear, logistic, ridge, knn, mlp, fewshot or attentive;
            settings follow a colon, as in linear:learning_rate=3e-5.
        layers: of melmask encoders: last, all, or numbers from 1 on.
        pooling: of melmask encoders, over time.
        unit_s: how long each clip is heard, in seconds; 0 for whole clips; task for the unit length of a named task.
        test_folds: judge on these folds only; all in turn if none are given.
        seeds: of probes with chance.
        floors: whether log-mel statistics and the runs' encoders untrained stand beside.
        out: a file that the lines of all encoders are appended to as well.
        details: a folder for what stands behind each score: classes, confusions, calibration.
        workers: processes that decode.
    """
    from melmask.evaluate import evaluation

    def keep(entrant: evaluation.Entrant, task: Task, found: ProbeResult) -> None:
        if details:
            from melmask.evaluate.details import details_of
            from melmask.study.judgement import save_judgement

            words = re.sub(r"[^\w.=,-]+", "-", f"{task.name} {entrant.name} {found.probe}")
            save_judgement(details_of(found, task), details / words)

    entrants = evaluation.line_up(encoders, FeatureSettings(layers, pooling), floors=floors)
    command = f"melmask {shlex.join(sys.argv[1:])}"
    for table in task:
        specs = evaluation.specs_of(entrants)
        stores = [prepare_task(table, spec, workers) for spec in specs]
        with noted_bar(table.stem) as show:
            results = evaluation.evaluate(
                entrants,
                table,
                stores,
                probes=probe,
                unit=unit_s,
                test_folds=test_folds,
                num_seeds=seeds,
                command=command,
                progress=show,
                found_one=keep,
            )
        console.print(results_table(results))
        for note in dict.fromkeys(note for result in results for note in result.notes):
            console.print(f"[dim]note: {escape(note)}[/]")
        written = evaluation.keep_results(entrants, results, out)
        for path in written:
            console.print(f"appended to [bold]{path}[/]")
        if not written:
            console.print("[dim]kept nowhere: no run's folder is among the encoders, and no file is named by --out[/]")
