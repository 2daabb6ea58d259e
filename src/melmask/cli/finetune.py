"""The command that fine-tunes an encoder on a labelled task."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from rich.markup import escape
from tyro.conf import OmitArgPrefixes, Positional

from melmask.cli.console import bar, console, results_table
from melmask.cli.options import NUM_CORES, prepare_task
from melmask.finetune.recipe import FINETUNE_RECIPES, FinetuneRecipe

DEFAULT_RECIPE = "small"


def finetune_with(recipe_name: str) -> Callable[..., None]:
    """The finetune command, with the settings of that recipe as its defaults."""
    named = FINETUNE_RECIPES.get(recipe_name, FINETUNE_RECIPES[DEFAULT_RECIPE])

    def finetune(
        run: Positional[Path],
        task: Path,
        settings: OmitArgPrefixes[FinetuneRecipe] = named,
        recipe: Literal[tuple(FINETUNE_RECIPES)] = DEFAULT_RECIPE,  # type: ignore[valid-type]
        test_folds: tuple[str, ...] = (),
        seeds: int = 3,
        untrained: bool = False,
        workers: int = NUM_CORES,
    ) -> None:
        """Fine-tune a run's encoder on a labelled task; append the result to the run's results.jsonl.

        Trainings are kept in the run's folder "finetune", with encoder, head and predictions. Those that are finished
        are not done again; one that was killed goes on from where it was a minute before.

        Args:
            run: the run's folder.
            task: CSV file with path,label[,fold][,group].
            settings: the recipe's settings, to be changed at will.
            recipe: named settings to start from.
            test_folds: judge on these folds only; all in turn if none are given.
            seeds: trainings per fold.
            untrained: train the same encoder from fresh weights too, as the control.
            workers: processes that decode.
        """
        name = recipe if settings == named else f"{recipe}-changed"
        finetune_shown(run, task, settings, name, test_folds, seeds, untrained, workers)

    return finetune


def finetune_shown(
    run: Path,
    table: Path,
    recipe: FinetuneRecipe,
    name: str,
    test_folds: tuple[str, ...],
    seeds: int,
    untrained: bool,
    workers: int,
) -> None:
    """Fine-tune with a live line, and show the table."""
    from melmask.encoders import registry
    from melmask.encoders.pretrained import PretrainedEncoder
    from melmask.evaluate.results import append_results
    from melmask.finetune import run as tuning
    from melmask.finetune.trainer import Epoch

    encoder = PretrainedEncoder.load(run)
    store = prepare_task(table, encoder.spec, workers)
    starts = {registry.ENCODER: encoder}
    if untrained:
        starts[registry.UNTRAINED] = encoder.untrained(seed=0)
    results = []
    for features, start in starts.items():
        with bar(f"{table.stem}: {features}") as (progress, line):

            def show(epoch: Epoch) -> None:
                note = f"fold {epoch.fold}, seed {epoch.seed}  loss [bold]{epoch.loss:.3f}[/]"
                if epoch.valid_score is not None:
                    note += f"  valid [bold]{100 * epoch.valid_score:.1f}[/] %"
                progress.update(line, completed=epoch.epoch, total=epoch.num_epochs, note=note)
                if not console.is_terminal:
                    console.print(f"epoch {epoch.epoch}/{epoch.num_epochs}  {note}")

            results.append(
                tuning.finetune(
                    start,
                    table,
                    store,
                    recipe,
                    run,
                    recipe_name=name,
                    features=features,
                    test_folds=test_folds,
                    num_seeds=seeds,
                    command=f"melmask {shlex.join(sys.argv[1:])}",
                    report=show,
                )
            )
    console.print(results_table(results))
    for note in dict.fromkeys(note for result in results for note in result.notes):
        console.print(f"[dim]note: {escape(note)}[/]")
    console.print(f"appended to [bold]{append_results(run, results)}[/]")
