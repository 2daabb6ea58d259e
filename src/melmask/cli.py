"""The command line: melmask prepare, pretrain, embed, evaluate, mask, report and demo."""

import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TaskID
from tyro.conf import OmitArgPrefixes, Positional

from melmask.data.prepare import prepare as prepare_store
from melmask.data.store import Store
from melmask.logmel import LogMelSpec
from melmask.masking import STRATEGIES
from melmask.terminal import bar, console, rejections_table, results_table
from melmask.train.recipe import RECIPES, Recipe

EXIT_BAD_INPUT, EXIT_INTERRUPTED = 2, 130
DEFAULT_RECIPE, DEFAULT_SPEC = "tiny-m2d", LogMelSpec()
NUM_CORES = os.cpu_count() or 1
MENTIONED_SHARE = 0.01  # of the time, from which on the cost of masks is shown

DESCRIPTION = """Learn audio representations without labels by masked prediction on log-mel spectrograms.

The way: prepare a folder of recordings, pretrain an encoder, evaluate it on labelled tasks, write the report."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; bad input ends with one clear line and exit status 2 (the whole story with MELMASK_DEBUG=1)."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    commands: dict[str, Callable[..., Any]] = {
        "prepare": prepare,
        "pretrain": pretrain_with(named_recipe(arguments)),
        "embed": embed,
        "evaluate": evaluate,
        "mask": mask,
        "report": report,
        "demo": demo,
    }
    try:
        tyro.extras.subcommand_cli_from_dict(commands, prog="melmask", description=DESCRIPTION, args=arguments)
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        if os.environ.get("MELMASK_DEBUG"):
            raise
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]melmask:[/] {escape(str(error))}")
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted")
        sys.exit(EXIT_INTERRUPTED)


def prepare(sources: Positional[tuple[Path, ...]], out: Path, workers: int = NUM_CORES) -> None:
    """Turn folders of recordings or CSV manifests (path[,label,fold,group]) into a packed store of log-mels.

    Args:
        sources: folders, searched recursively, and CSV manifests.
        out: the store's folder; an interrupted one is completed, a finished one is left as it is.
        workers: processes that decode.
    """
    store = prepare_shown(sources, out, workers)
    frames = {(stored.shard, stored.start_frame): stored.num_frames for stored in store.clips}
    console.print(
        f"[bold]{out}[/]: {len(store.clips):,} clips, {sum(frames.values()) / store.spec.frames_per_s / 3600:.2f} h, "
        f"log-mel mean {store.mean:.3f}, standard deviation {store.std:.3f}"
    )


def prepare_shown(sources: Sequence[Path], out: Path, workers: int, spec: LogMelSpec = DEFAULT_SPEC) -> Store:
    """Prepare with a progress bar, and say what was rejected."""
    with bar("preparing") as (progress, task):

        def show(done: int, total: int, audio_s: float, num_rejected: int) -> None:
            rejected = f", [red]{num_rejected} rejected[/]" if num_rejected else ""
            progress.update(task, completed=done, total=total, note=f"{audio_s / 3600:.2f} h of audio{rejected}")

        store = prepare_store(sources, out, spec=spec, num_workers=workers, progress=show)
    if store.rejected:
        console.print(rejections_table(store, out / "rejected.csv"))
    return store


def named_recipe(arguments: Sequence[str]) -> str:
    """The recipe that the arguments name, found before they are parsed, so that --help shows its settings."""
    for i, argument in enumerate(arguments):
        if argument.startswith("--recipe="):
            return argument.removeprefix("--recipe=")
        if argument == "--recipe" and i + 1 < len(arguments):
            return arguments[i + 1]
    return DEFAULT_RECIPE


def pretrain_with(recipe_name: str) -> Callable[..., None]:
    """The pretrain command, with the settings of that recipe as its defaults."""
    named = RECIPES.get(recipe_name, RECIPES[DEFAULT_RECIPE])

    def pretrain(
        store: Positional[Path],
        out: Path,
        settings: OmitArgPrefixes[Recipe] = named,
        recipe: Literal[tuple(RECIPES)] = DEFAULT_RECIPE,  # type: ignore[valid-type]
        resume: bool = False,
    ) -> None:
        """Train an encoder on a store by a recipe, with any of its settings changed.

        Args:
            store: the folder that `melmask prepare` wrote.
            out: the run's folder.
            settings: the recipe's settings, to be changed at will.
            recipe: named settings to start from.
            resume: go on with the run in that folder, with its own recipe.
        """
        train_shown(store, out, settings, resume, is_changed=settings != named)

    return pretrain


def train_shown(store_folder: Path, out: Path, recipe: Recipe, resume: bool, is_changed: bool) -> None:
    """Train with a live line; say at the end, or after Ctrl-C, what to do next."""
    from melmask.train import loop

    if resume and not is_changed and (out / loop.RECIPE).exists():
        recipe = Recipe.load(out / loop.RECIPE)
    with bar("training") as (progress, task):

        def show(line: loop.Progress) -> None:
            note = f"loss [bold]{line.loss:.4f}[/]  rank {line.effective_rank:.0f}  {line.samples_per_s:.0f} samples/s"
            if line.mask_share >= MENTIONED_SHARE:
                note += f"  {100 * line.mask_share:.0f} % for masks"
            progress.update(task, completed=line.step, total=line.num_steps, note=note)
            if not console.is_terminal:
                console.print(f"step {line.step}/{line.num_steps}  {note}  {line.elapsed_s:.0f} s")

        complete = loop.pretrain(recipe, Store.open(store_folder), out, resume=resume, report=show)
    if not complete:
        command = shlex.join(["melmask", "pretrain", str(store_folder), "--out", str(out), "--resume"])
        console.print(f"stopped and saved; go on with\n  {command}", soft_wrap=True)
        sys.exit(EXIT_INTERRUPTED)
    console.print(f"[bold]{out}[/] is complete: {recipe.size} {recipe.framework}, {recipe.strategy} masking")


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


def mask(
    file: Positional[Path],
    out: Path,
    run: Path | None = None,
    strategies: tuple[Literal[tuple(STRATEGIES)], ...] = ("random", "ibm", "sgim", "dwm"),  # type: ignore[valid-type]
    mask_ratio: float = 0.7,
    start_s: float = 0.0,
    length_s: float = 6.08,
    seed: int = 0,
) -> None:
    """Draw a recording's spectrogram and, under it, what each strategy masks at several hint ratios.

    Args:
        file: a recording.
        out: the PNG to write.
        run: whose encoder gives features to sgim and attention to attention, instead of an untrained one; hard, which
            looks at a model's losses, needs one.
        strategies: which to draw.
        mask_ratio: share of patches that are masked.
        start_s: where to start in the recording.
        length_s: how much of it to show.
        seed: of the masks.
    """
    from melmask.study.masks import save_mask_figure

    save_mask_figure(
        file,
        out,
        run=run,
        strategies=strategies,
        mask_ratio=mask_ratio,
        start_s=start_s,
        length_s=length_s,
        seed=seed,
    )
    console.print(f"[bold]{out}[/]")


def report(runs: Positional[tuple[Path, ...]], out: Path) -> None:
    """Write one self-contained HTML page about one or more runs.

    Args:
        runs: folders of runs.
        out: the folder to write to.
    """
    from melmask.study.report import report as write_report

    console.print(f"the report: [bold]{write_report(runs, out)}[/]", soft_wrap=True)


def demo(out: Path, seed: int = 0) -> None:
    """Make the built-in corpus: sampled instruments and synthesised speech, with labels.

    Args:
        out: the folder for recordings and manifests.
        seed: of all variation.
    """
    from melmask.data.sets.demo import make_demo

    with bar("making the built-in corpus") as (progress, task):

        def show(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        manifests = make_demo(out, seed=seed, progress=show)
    for manifest in manifests:
        console.print(f"[bold]{manifest}[/]")
