"""Run folders, read for reports: recipe, data, log, results and the model as last saved."""

import dataclasses
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melmask.data.store import Store
from melmask.demo.procedural.stream import NAME, ProceduralSound
from melmask.evaluation.results import Result, read_results
from melmask.files import read_tensors, select_prefix
from melmask.frameworks import Framework
from melmask.logmel import LogMelSpec
from melmask.masking import draw
from melmask.masking.base import num_masked_of
from melmask.masking.laws import guidance
from melmask.nn.encoder_file import ENCODER, EncoderFile
from melmask.train.checkpoint import load_weights
from melmask.train.distributed import ALONE
from melmask.train.initial import read_initial
from melmask.train.masker import Masker
from melmask.train.recipe import RECIPES, Recipe
from melmask.train.run_folder import CHECKPOINT, DATA, MASKING, RECIPE, read_data, read_log, read_machine
from melmask.types import Mask, PatchGrid


@dataclass(frozen=True)
class Run:
    """The content of one run folder.

    Args:
        folder: its path.
        name: its name in reports, different for all runs of a report.
        recipe: its settings.
        data: the content of data.json; empty if there is none.
        log: the entries of its log.
        results: its evaluations, the newest of each kind.
        store: the data it was trained on; None if missing or changed.
        store_problem: why there is no store; empty if there is one.
    """

    folder: Path
    name: str
    recipe: Recipe
    data: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]]
    results: Sequence[Result]
    store: Store | None
    store_problem: str

    @property
    def num_steps(self) -> int | None:
        """Optimiser steps of the whole run; None if the recipe counts epochs and nothing is logged yet."""
        return self.log[-1]["num_steps"] if self.log else self.recipe.steps or None

    @property
    def num_steps_done(self) -> int:
        return self.log[-1]["step"] if self.log else 0

    @property
    def is_complete(self) -> bool:
        return self.num_steps_done == self.num_steps

    @property
    def duration_s(self) -> float:
        """Seconds of training up to the last entry of the log, over all resumptions."""
        elapsed = [line["elapsed_s"] for line in self.log]
        ends = [one for one, after in zip(elapsed, [*elapsed[1:], 0.0], strict=True) if after < one]
        return float(sum(ends))

    @property
    def hardware(self) -> str:
        """What it was last trained on; empty for a run of an earlier version."""
        return read_machine(self.folder).get("hardware", "")

    @property
    def mean_guidance(self) -> float | None:
        """λ, averaged over all steps of the run; None if it takes no hints or its length or front end is not known."""
        if not self.recipe.takes_hints or self.num_steps is None or self.spec is None:
            return None
        grid = self.recipe.grid(self.spec.num_mels)
        num_patches, hints = grid.num_patches, self.recipe.hints(grid)
        num_masked = num_masked_of(num_patches, self.recipe.mask_ratio)
        values = (guidance(num_patches, num_masked, hints(step / self.num_steps)) for step in range(self.num_steps))
        return sum(values) / self.num_steps

    @cached_property
    def spec(self) -> LogMelSpec | None:
        """Its front end, from the store or else from its encoder file; None if there is neither."""
        if self.store is not None:
            return self.store.spec
        return EncoderFile.load(self.folder / ENCODER).front_end.spec if (self.folder / ENCODER).exists() else None

    @cached_property
    def model(self) -> Framework | None:
        """The framework with the weights of the last checkpoint, in evaluation mode; None if there is no checkpoint.

        Raises:
            ValueError: the checkpoint is damaged or of another model.
        """
        if not self._saved:
            return None
        model = self.recipe.make_model()
        load_weights(self.folder / CHECKPOINT, model, self._saved)
        return model.eval().requires_grad_(False)

    @cached_property
    def masker(self) -> Masker:
        """Draws its masks, with the state of the last checkpoint; requires the store."""
        assert self.store is not None
        masker = Masker(self.recipe, self.recipe.make_loader(self.store), ALONE)
        if self._saved:
            masker.restore(select_prefix(self._saved, MASKING))
        return masker

    @property
    def can_guide(self) -> bool:
        """Whether the guide of its strategy can be computed: from its store and, if it takes a model, a checkpoint."""
        return self.store is not None and (
            self.recipe.make_strategy().needs.guide in ("nothing", "patches") or self.model is not None
        )

    @cached_property
    def _saved(self) -> dict[str, Tensor]:
        """The tensors of the last checkpoint without the optimiser's; empty if there is no checkpoint."""
        if not (self.folder / CHECKPOINT).exists():
            return {}
        tensors, _ = read_tensors(self.folder / CHECKPOINT)
        return {name: tensor for name, tensor in tensors.items() if not name.startswith("optimiser.")}

    @property
    def initial(self) -> str:
        """The path of the weights that it started from; empty if from random ones."""
        return read_initial(self.folder).get("path", "")

    @property
    def pretrain_command(self) -> str:
        """The command that reproduces this run: the nearest named recipe and the settings that differ from it."""
        name, changes = nearest_recipe(self.recipe)
        parts = ["melmask", "pretrain", str(self.data.get("store", "STORE")), "--out", str(self.folder)]
        started = ["--init", self.initial] if self.initial else []
        return shlex.join([*parts, "--recipe", name, *changes, *started])


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read the runs of a report.

    Args:
        folders: of runs, each once.

    Raises:
        ValueError: one of them twice, or one that is not a run folder or is damaged.
    """
    twice = [folder for folder, times in Counter(folder.resolve() for folder in folders).items() if times > 1]
    if twice:
        raise ValueError(f"the run {twice[0]} is given more than once: name it once")
    for folder in folders:
        if not (folder / RECIPE).is_file():
            raise ValueError(f"{folder} is not a run folder: it has no {RECIPE}; make one with `melmask pretrain`")
    return [_read_run(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]


def _read_run(folder: Path, name: str) -> Run:
    data = read_data(folder)
    store, problem = _find_store(data)
    recipe, log, results = Recipe.load(folder / RECIPE), read_log(folder), read_results(folder)
    return Run(folder, name, recipe, data, log, results, store, problem)


def _find_store(data: Mapping[str, Any]) -> tuple[Store | None, str]:
    """The store a run was trained on, or why it cannot be used."""
    if "store" not in data:
        return None, f"the run has no {DATA}, so its store is not known"
    folder = Path(data["store"])
    if not (folder.exists() or data["store"] == NAME):
        return None, f"the store {folder} no longer exists"
    try:
        store = ProceduralSound() if data["store"] == NAME else Store.open(folder)
    except ValueError as error:
        return None, str(error)
    if store.fingerprint != data["fingerprint"]:
        return None, f"the store {folder} now holds other data than the run was trained on"
    return store.normalised(data["mean"], data["std"]), ""


def _names(folders: Sequence[Path]) -> list[str]:
    """The last parts of each path: as few as make the names different."""
    paths = [folder.resolve() for folder in folders]
    names: list[str] = []
    for num_parts in range(1, max((len(path.parts) for path in paths), default=0) + 1):
        names = ["/".join(path.parts[-num_parts:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names


def nearest_recipe(recipe: Recipe) -> tuple[str, list[str]]:
    """The named recipe with the fewest other settings, and the arguments that change it into ``recipe``."""
    changes = {name: _changes(named, recipe) for name, named in RECIPES.items()}
    name = min(changes, key=lambda name: len(changes[name]))
    return name, [part for setting, value in changes[name].items() for part in _argument(setting, value)]


def _changes(before: Recipe, after: Recipe) -> dict[str, Any]:
    values = {field.name: getattr(after, field.name) for field in dataclasses.fields(Recipe)}
    return {name: value for name, value in values.items() if value != getattr(before, name)}


def _argument(setting: str, value: Any) -> list[str]:
    """A setting as arguments of the command line."""
    flag = f"--{setting.replace('_', '-')}"
    if isinstance(value, Mapping):
        return [flag, *(str(part) for item in value.items() for part in item)]
    if isinstance(value, (tuple, list)):
        return [flag, *(str(part) for item in value for part in (item if isinstance(item, (tuple, list)) else [item]))]
    return [flag, str(value)]


def random_masks(run: Run, grid: PatchGrid, num_samples: int, seed: int) -> Mask:
    """Uniformly random masks at the run's mask ratio, the same for all runs of that ratio and grid."""
    rng = torch.Generator().manual_seed(seed)
    return draw("random", grid=grid, batch_size=num_samples, mask_ratio=run.recipe.mask_ratio, rng=rng)
