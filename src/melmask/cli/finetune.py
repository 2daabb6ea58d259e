"""The command finetune: an encoder trained on a labelled task."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from tyro.conf import OmitArgPrefixes, Positional

from melmask.cli.console import answer, bar, command_line, console, print_next, print_path
from melmask.cli.options import (
    AllowDuplicates,
    Encoder,
    OptionalFolder,
    SavedModel,
    Seeds,
    TableFile,
    TestFolds,
    Workers,
)
from melmask.finetune.recipe import FINETUNE_RECIPES, FinetuneRecipe
from melmask.finetune.trainer import Epoch

DEFAULT_RECIPE = "small"


def finetune(
    run: Positional[Encoder],
    task: TableFile,
    settings: OmitArgPrefixes[FinetuneRecipe] = FINETUNE_RECIPES[DEFAULT_RECIPE],
    recipe: Literal[tuple(FINETUNE_RECIPES)] = DEFAULT_RECIPE,  # type: ignore[valid-type]
    test_folds: TestFolds = (),
    seeds: Seeds = 3,
    allow_duplicates: AllowDuplicates = False,
    untrained: bool = False,
    out: OptionalFolder = None,
    save_model: SavedModel = None,
    workers: Workers = None,
) -> None:
    """Fine-tune an encoder on a labelled task.

    Example: melmask finetune tiny --task clips.csv

    The result is appended to the run's results.jsonl.

    Encoder, head and predictions are saved in the run's folder "finetune".

    An encoder that is no folder, such as tiny, has NAME-finetuned for both.

    Finished trainings are not repeated; interrupted ones resume.

    Args:
        run: the run's folder, an encoder file, or tiny, which comes with melmask.
        task: a CSV with path,label[,fold][,group].
        settings: the recipe's settings, each of which can be changed.
        recipe: the named settings to start from.
        untrained: also train the same encoder from random weights, as the control.
        out: the folder for results and trainings; without it the run's, or NAME-finetuned.
        save_model: a folder for a model that is fine-tuned once more, on all recordings of the table, which `melmask
            predict` applies.
    """
    from melmask.cli.steps import exit_if_left_out, prepare_task, print_appended, print_results
    from melmask.encoders import registry
    from melmask.encoders.pretrained import PretrainedEncoder
    from melmask.evaluation.results import append_results
    from melmask.finetune import run as tuning
    from melmask.models import file
    from melmask.models.training import finetuned_for_use

    name = recipe if settings == FINETUNE_RECIPES[recipe] else f"{recipe}-changed"
    encoder = PretrainedEncoder.load(run)
    if encoder.step is not None and out is None:
        raise ValueError(
            f"{run} is an encoder from within a run, and finetune writes into a run's folder: name the run, or another "
            "folder with --out"
        )
    folder = out or (Path(run) if Path(run).is_dir() else Path(f"{encoder.called}-finetuned"))
    store = prepare_task(task, encoder.spec, workers)
    starts = {registry.ENCODER: encoder}
    if untrained:
        starts[registry.UNTRAINED] = encoder.untrained()
    results = []
    for features, start in starts.items():
        with epoch_bar(f"{task.stem}: {features}") as show:
            results.append(
                tuning.finetune(
                    start,
                    task,
                    store,
                    settings,
                    folder,
                    recipe_name=name,
                    features=features,
                    test_folds=test_folds,
                    num_seeds=seeds,
                    allow_duplicates=allow_duplicates,
                    command=command_line(),
                    report=show,
                )
            )
    print_results(results)
    print_appended([append_results(folder, results)])
    if save_model:
        with epoch_bar(f"{task.stem}: for use") as show:
            model = finetuned_for_use(
                encoder,
                task,
                store,
                settings,
                folder,
                results[0],
                recipe_name=name,
                features=registry.ENCODER,
                allow_duplicates=allow_duplicates,
                report=show,
            )
        print_path(file.save_model(model, save_model, command=command_line()), "a model for melmask predict: ")
    answer.update(results=results)
    print_next("melmask", "report", folder, "--out", "report")
    exit_if_left_out([store.rejected])


@contextmanager
def epoch_bar(what: str) -> Iterator[Callable[[Epoch], None]]:
    """A progress bar of epochs, with losses and validation scores; without a terminal, a line for each epoch."""
    with bar(what, lines=False) as (progress, task):

        def show(epoch: Epoch) -> None:
            note = f"fold {epoch.fold}, seed {epoch.seed}  loss [bold]{epoch.loss:.3f}[/]"
            if epoch.valid_score is not None:
                note += f"  valid [bold]{100 * epoch.valid_score:.1f}[/] %"
            progress.update(task, completed=epoch.epoch, total=epoch.num_epochs, note=note)
            if not console.is_terminal:
                console.print(f"epoch {epoch.epoch}/{epoch.num_epochs}  {note}")

        yield show
