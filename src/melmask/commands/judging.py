"""Commands that use and judge an encoder: embed and evaluate."""

import shlex
import sys
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
from rich.markup import escape
from rich.progress import Progress, TaskID
from tyro.conf import Positional

from melmask.commands.data import NUM_CORES, prepare_shown
from melmask.terminal import bar, console, results_table


def embed(run: Positional[Path], paths: Positional[tuple[Path, ...]], out: Path, workers: int = NUM_CORES) -> None:
    """Write clip embeddings of recordings to an .npz file: features [clip, dim], path, label, fold, group.

    Args:
        run: the run's folder, or an encoder file.
        paths: folders and CSV manifests.
        out: the file to write.
        workers: processes that decode.
    """
    from melmask.evaluate.embed import FrozenEncoder

    encoder = FrozenEncoder.load(run)
    with tempfile.TemporaryDirectory(prefix="melmask-") as folder:
        store = prepare_shown(paths, Path(folder) / "store", workers, encoder.spec)
        with bar("embedding") as (progress, task):
            features = encoder.embed(
                store, progress=lambda done, total: progress.update(task, completed=done, total=total)
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
    run: Positional[Path],
    task: tuple[Path, ...],
    probe: tuple[Literal["linear", "logistic", "ridge", "knn"], ...] = ("logistic",),
    test_folds: tuple[str, ...] = (),
    seeds: int = 3,
    workers: int = NUM_CORES,
) -> None:
    """Probe a run's encoder on labelled tasks, beside its floors; append the results to the run's results.jsonl.

    Args:
        run: the run's folder.
        task: CSV files with path,label[,fold][,group].
        probe: how to read labels from frozen embeddings.
        test_folds: judge on these folds only; all in turn if none are given.
        seeds: of the linear probe.
        workers: processes that decode.
    """
    from melmask.evaluate import evaluation
    from melmask.evaluate.embed import FrozenEncoder

    encoder, command = FrozenEncoder.load(run), f"melmask {shlex.join(sys.argv[1:])}"
    for table in task:
        store = prepare_shown([table], evaluation.task_store_folder(table, encoder.spec), workers, encoder.spec)
        with bar(table.stem) as (progress, line):

            def show(what: str, done: int, total: int, progress: Progress = progress, line: TaskID = line) -> None:
                progress.update(line, completed=done, total=total, note=what)

            results = evaluation.evaluate(
                encoder,
                table,
                store,
                probes=probe,
                test_folds=test_folds,
                num_seeds=seeds,
                command=command,
                progress=show,
            )
        console.print(results_table(results))
        for note in dict.fromkeys(note for result in results for note in result.notes):
            console.print(f"[dim]note: {escape(note)}[/]")
        console.print(f"appended to [bold]{evaluation.append_results(run, results)}[/]")
