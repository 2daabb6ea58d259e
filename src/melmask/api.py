"""Calls of the public API that take what is at hand: str or Path, one source or several, a recipe by its name."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from melmask.data.checks import Verify
from melmask.data.prepare import prepare as prepare_sources
from melmask.data.store import Store
from melmask.demo.procedural.stream import open_data
from melmask.logmel import LogMelSpec
from melmask.train import loop
from melmask.train.callbacks import Callback
from melmask.train.paper import named_recipe
from melmask.train.recipe import Recipe
from melmask.train.run_folder import LogEntry

DEFAULT_SPEC = LogMelSpec()


def prepare(
    sources: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    spec: LogMelSpec = DEFAULT_SPEC,
    num_workers: int | None = None,
    verify: Verify = "first",
    max_memory_gib: float | None = None,
) -> Store:
    """Decode recordings, and pack their log-mels into a store.

    A call that was killed resumes where it stopped; where nothing has changed, the store is opened as it is.

    Args:
        sources: one or several folders, searched recursively, or CSV manifests with path[,label][,fold][,group].
        out: the folder of the store.
        spec: the front end: sample rate, window, hop and mel bands.
        num_workers: processes that decode; 0 decodes in this process, None uses one per core,
            or none for few recordings.
        verify: what is compared with its checksum: "first" what was not compared before, or was changed since; "full"
            everything, recordings too; "none" nothing (`melmask docs stores`).
        max_memory_gib: for the processes that decode, in GiB: as many of them as fit. None for three quarters of the
            machine's.

    Raises:
        ValueError: a source or setting is wrong, out holds something else, or no recording is usable.
        RuntimeError: another process is writing to out, or workers cannot start.
    """
    several = [sources] if isinstance(sources, str | Path) else sources
    return prepare_sources(
        [Path(source) for source in several],
        Path(out),
        spec=spec,
        num_workers=num_workers,
        verify=verify,
        max_memory_gib=max_memory_gib,
    )


def recipe(name: str, *, variant: str | None = None, **changes: Any) -> Recipe:
    """A named recipe, with some of its settings changed.

    Args:
        name: a name in `melmask.train.recipe.RECIPES`, such as "tiny-msm-mae". In "paper-m2d" and "paper-msm-mae" a
            strategy brings its schedule with it (`melmask.train.paper`).
        variant: an ablation of these two.
        changes: settings of `Recipe` by name.

    Raises:
        ValueError: no such recipe, variant or setting, or a setting is out of range.

    >>> recipe("tiny-msm-mae", strategy="dwm").strategy
    'dwm'
    """
    named = named_recipe(name, changes.get("strategy"), variant)
    settings = [field.name for field in fields(named)]
    for setting in changes:
        if setting not in settings:
            raise ValueError(f"a recipe has no setting {setting!r}; it has: {', '.join(settings)}")
    return replace(named, **changes)


def pretrain(
    recipe: Recipe,
    store: Store | str | Path,
    run: str | Path,
    *,
    resume: bool = False,
    init: str | Path | None = None,
    num_threads: int | None = None,
    report: Callable[[LogEntry], None] = lambda entry: None,
    callbacks: Sequence[Callback] = (),
) -> Path:
    """Train an encoder on a store, and write a run folder: recipe, checkpoint, encoder and log.

    Ctrl-C and SIGTERM save the run and end the call with a warning.

    Args:
        recipe: every setting, see `recipe`.
        store: what `prepare` returned, or its folder; "procedural" for synthesised sound alone
            (`melmask docs procedural`).
        run: the folder to write.
        resume: continue the run in that folder from its last checkpoint; it ends with the same weights as a run that
            was never interrupted, if both compute on the same number of threads all the time. If its schedule is "wsd",
            steps, epochs and decay of the recipe may be others, which extends it or ends it early.
        init: weights to start from, with an optimiser that starts anew: a run folder, an encoder file, ``"tiny"``
            (`melmask docs encoder`), or what others published (`melmask docs published-weights`); None for random ones.
        num_threads: that torch computes on; None follows what else keeps the cores busy, unless OMP_NUM_THREADS is set.
        report: called with each entry of the log.
        callbacks: from `melmask.callbacks` or of your own: they measure, or log elsewhere; one that fails is left out,
            with a warning.

    Returns:
        The run folder, which `melmask.load` takes.

    Raises:
        ValueError: the folder is in use, recipe or data differ from those of the run to be resumed, or the weights to
            start from are of another form than the recipe's.
        RuntimeError: the loss is not finite; the last good checkpoint is kept.
    """
    opened = store if isinstance(store, Store) else open_data(Path(store))
    folder = Path(run)
    if not loop.pretrain(
        recipe, opened, folder, resume=resume, init=init, num_threads=num_threads, report=report, callbacks=callbacks
    ):
        warnings.warn(f"the training in {run} was interrupted and saved: resume=True continues it", stacklevel=2)
    return folder
