"""Commands that train: pretrain."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from tyro.conf import OmitArgPrefixes, Positional

from melmask.cli.console import bar, console
from melmask.cli.options import DEFAULT_RECIPE, EXIT_INTERRUPTED
from melmask.data.store import Store
from melmask.train.recipe import RECIPES, Recipe

MENTIONED_SHARE = 0.01  # of the time, from which on the cost of masks is shown


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
    from melmask.train import loop, run_folder

    if resume and not is_changed and (out / run_folder.RECIPE).exists():
        recipe = Recipe.load(out / run_folder.RECIPE)
    with bar("training") as (progress, task):

        def show(line: run_folder.LogEntry) -> None:
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
