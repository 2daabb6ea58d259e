"""The command pretrain: an encoder trained on a store."""

import shlex
import sys
from typing import Literal

from tyro.conf import OmitArgPrefixes, Positional

from melmask.cli.console import bar, console, print_path
from melmask.cli.main import EXIT_INTERRUPTED
from melmask.cli.options import DEFAULT_RECIPE, Run, StoreFolder
from melmask.train.recipe import RECIPES, Recipe

MENTIONED_SHARE = 0.01  # of the time, above which the cost of masks is shown


def pretrain(
    store: Positional[StoreFolder],
    out: Run,
    settings: OmitArgPrefixes[Recipe] = RECIPES[DEFAULT_RECIPE],
    recipe: Literal[tuple(RECIPES)] = DEFAULT_RECIPE,  # type: ignore[valid-type]
    resume: bool = False,
) -> None:
    """Train an encoder on a store, by a recipe with any setting changed.

    Args:
        store: the folder that `melmask prepare` wrote.
        out: the run's folder.
        settings: the recipe's settings, each of which can be changed.
        recipe: the named settings to start from.
        resume: resume the run in that folder, with its own recipe.
    """
    from melmask.data.store import Store
    from melmask.train import loop, run_folder

    own = out / run_folder.RECIPE
    if resume and settings == RECIPES[recipe] and own.exists():
        settings = Recipe.load(own)
    data = Store.open(store)
    with bar("training") as (progress, task):

        def show(line: run_folder.LogEntry) -> None:
            note = f"loss [bold]{line.loss:.4f}[/]  rank {line.effective_rank:.0f}  {line.samples_per_s:.0f} samples/s"
            if line.mask_share >= MENTIONED_SHARE:
                note += f"  {100 * line.mask_share:.0f} % for masks"
            progress.update(task, completed=line.step, total=line.num_steps, note=note)
            if not console.is_terminal:
                console.print(f"step {line.step}/{line.num_steps}  {note}  {line.elapsed_s:.0f} s")

        complete = loop.pretrain(settings, data, out, resume=resume, report=show)
    if not complete:
        command = shlex.join(["melmask", "pretrain", str(store), "--out", str(out), "--resume"])
        console.print(f"interrupted; the run was saved. Resume with:\n  {command}", soft_wrap=True)
        sys.exit(EXIT_INTERRUPTED)
    print_path(out, after=f" is complete: {settings.size} {settings.framework}, {settings.strategy} masking")
