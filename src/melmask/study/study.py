"""A study: a question, the grid of recipes that answers it, and the tasks on which it is judged."""

import dataclasses
import importlib.util
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from melmask.data.manifest import source_names
from melmask.demo.procedural.stream import NAME as PROCEDURAL
from melmask.evaluation.protocol import ProtocolName
from melmask.evaluation.run import EvaluationSettings
from melmask.files import file_name
from melmask.probes import label_of, make_probe
from melmask.registry import unknown
from melmask.train.recipe import Recipe

Kind = Literal["events", "other"]
SCOPES: dict[Kind, str] = {"events": "event tasks", "other": "other tasks"}  # the names of their means
MAX_TRAININGS = 9  # of a probe on a split: right answers of a clip are kept as one digit


@dataclass(frozen=True)
class StudyTask:
    """A task of a study.

    Args:
        table: a CSV with path,label[,fold][,group].
        test_folds: test on these folds only; empty for each in turn.
        kind: "events" for sound events, on one axis of the trade-off picture; "other" for speech, music and the rest.
    """

    table: str
    test_folds: tuple[str, ...] = ()
    kind: Kind = "other"


@dataclass(frozen=True)
class Cell:
    """One recipe of a study's grid, trained with each of its seeds.

    Args:
        group: cells of one group are compared with each other, such as those of one framework.
        arm: what distinguishes it within its group, such as the masking strategy.
        recipe: every setting but the seed.
    """

    group: str
    arm: str
    recipe: Recipe

    @property
    def name(self) -> str:
        return file_name(self.group, self.arm)

    def run_name(self, seed: int) -> str:
        """Of its run with that seed: of the run's folder, and of its encoder in results."""
        return f"{self.name}-seed{seed}"


@dataclass(frozen=True)
class PlannedRun:
    """A cell with one seed: one training, and its evaluations.

    Args:
        name: of its folder, and of its encoder in results.
        cell: whose recipe it is.
        recipe: with the seed, and the clips that are not trained on.
    """

    name: str
    cell: Cell
    recipe: Recipe


@dataclass(frozen=True)
class Study:
    """A set of runs and their evaluations that answers a question.

    Paths are relative to the folder of the data, which `at` makes absolute.

    Args:
        name: of the study.
        question: that it answers, in one sentence.
        cells: the grid of recipes, see `grid`.
        sources: recordings to train on: what `melmask prepare` takes, one store, or "procedural".
        tasks: on which every run is evaluated.
        baseline: the arm that the others of its group are compared with.
        exclude: clips that are not trained on, as "SOURCE" or "SOURCE:FOLD", such as the test folds of the tasks.
        seeds: each cell is trained with each of them. Runs of one seed draw the same crops, and are compared in pairs.
        probes: as `make_probe` takes them; the first is that of the conclusions.
        protocol: which part of each clip is read, see `melmask.evaluation.protocol`.
        probe_trainings: trainings of a probe that depends on its seed.
        margin: of equivalence, a difference of scores fixed before the runs, such as 0.01 for one point.
        budget_s: seconds that a run should take at most; `melmask study plan` names those that take longer.
        allow_duplicates: see `EvaluationSettings`.

    Raises:
        ValueError: no cells, seeds, tasks or probes, one of them twice, a group without its baseline, or a number out
            of range.
    """

    name: str
    question: str
    cells: tuple[Cell, ...]
    sources: tuple[str, ...]
    tasks: tuple[StudyTask, ...]
    baseline: str = "random"
    exclude: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    probes: tuple[str, ...] = ("ridge", "knn")
    protocol: ProtocolName = "melmask"
    probe_trainings: int = 3
    margin: float = 0.01
    budget_s: float | None = None
    allow_duplicates: bool = False

    def __post_init__(self) -> None:
        several: dict[str, Sequence[Any]] = {
            "cells": [cell.name for cell in self.cells],
            "sources": self.sources,
            "tasks": self.tasks,
            "seeds": self.seeds,
            "probes": self.probes,
        }
        for what, values in several.items():
            if not values:
                raise ValueError(f"study {self.name} has no {what}: it needs at least one")
            if len(set(values)) < len(values):
                raise ValueError(f"study {self.name} has one of its {what} twice: {list(values)}")
        for group in dict.fromkeys(cell.group for cell in self.cells):
            arms = [cell.arm for cell in self.cells if cell.group == group]
            if self.baseline not in arms:
                raise ValueError(f"study {self.name}: {group} has no arm {self.baseline!r} to compare {arms} with")
        if not 0.0 < self.margin < 1.0:
            raise ValueError(f"study {self.name}: margin is a difference of scores in (0, 1), got {self.margin}")
        for name in self.probes:
            number = make_probe(name).num_trainings(self.probe_trainings)
            if not 1 <= number <= MAX_TRAININGS:
                raise ValueError(
                    f"study {self.name}: probe {name} has {number} trainings, a study keeps up to {MAX_TRAININGS}"
                )

    @property
    def runs(self) -> list[PlannedRun]:
        """Every cell with every seed; all cells of the first seed come first, so that a cut study is a whole grid."""
        return [
            PlannedRun(cell.run_name(seed), cell, dataclasses.replace(cell.recipe, seed=seed, exclude=self.exclude))
            for seed in self.seeds
            for cell in self.cells
        ]

    @property
    def groups(self) -> list[str]:
        """Of the cells, such as the frameworks, each once."""
        return list(dict.fromkeys(cell.group for cell in self.cells))

    @property
    def task_names(self) -> list[str]:
        """What results call the tasks, in their order; a table with several sets of test folds has several names."""
        names = source_names([Path(task.table) for task in self.tasks])
        pairs = list(zip(names, self.tasks, strict=True))
        return [
            name if names.count(name) == 1 else f"{name} fold {', '.join(task.test_folds) or 'any'}"
            for name, task in pairs
        ]

    @property
    def probe_labels(self) -> list[str]:
        """What results call the probes."""
        return [label_of(make_probe(name)) for name in self.probes]

    def settings(self, task: StudyTask, probes: Sequence[str] = ()) -> EvaluationSettings:
        """How a task of this study is evaluated, by some of its probes or by all."""
        return EvaluationSettings(
            probes=tuple(probes) or self.probes,
            test_folds=task.test_folds,
            num_seeds=self.probe_trainings,
            protocol=self.protocol,
            allow_duplicates=self.allow_duplicates,
        )

    def summed_up(self, names: Collection[str]) -> str:
        """Some of the runs in words: cells that lack the same seeds are named together.

        Args:
            names: of the runs.
        """
        by_seeds: dict[tuple[int, ...], list[Cell]] = {}
        for cell in self.cells:
            seeds = tuple(seed for seed in self.seeds if cell.run_name(seed) in names)
            if seeds:
                by_seeds.setdefault(seeds, []).append(cell)
        return "; ".join(
            f"{self._cells_in_words(cells)} with {self._seeds_in_words(seeds)}" for seeds, cells in by_seeds.items()
        )

    def _cells_in_words(self, cells: Sequence[Cell]) -> str:
        if len(cells) == len(self.cells) > 1:
            return "every cell"
        words = []
        for group in self.groups:
            own, given = ([one.name for one in some if one.group == group] for some in (self.cells, cells))
            words += [f"every cell of {group}"] if own == given and len(own) > 1 else given
        return ", ".join(words)

    def _seeds_in_words(self, seeds: Sequence[int]) -> str:
        if len(seeds) == len(self.seeds) > 1:
            return "every seed"
        return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"

    def at(self, folder: Path) -> "Study":
        """The study with the paths of its data made absolute: those that are relative lie in this folder."""
        sources = tuple(one if one == PROCEDURAL else str((folder / one).absolute()) for one in self.sources)
        tasks = tuple(dataclasses.replace(task, table=str((folder / task.table).absolute())) for task in self.tasks)
        return dataclasses.replace(self, sources=sources, tasks=tasks)

    def check_data(self) -> None:
        """Raise ValueError unless all data are there; it names the first path that is missing."""
        for path in [*self.sources, *(task.table for task in self.tasks)]:
            if path != PROCEDURAL and not Path(path).exists():
                raise ValueError(
                    f"study {self.name} needs {path}, which does not exist: name the folder of the data with --data"
                )


def grid(bases: Mapping[str, Recipe], arms: Mapping[str, Mapping[str, Any]]) -> tuple[Cell, ...]:
    """Every base recipe with the changes of every arm.

    Args:
        bases: by the name of the group, such as the framework.
        arms: changes of the recipe, by the name of the arm.

    Raises:
        ValueError: a recipe has no such setting, or refuses its value; it names group and arm.

    >>> from melmask.train.recipe import RECIPES
    >>> [cell.name for cell in grid({"m2d": RECIPES["micro-m2d"]}, {"random": {}, "dwm": {"strategy": "dwm"}})]
    ['m2d-random', 'm2d-dwm']
    """
    cells = []
    for group, base in bases.items():
        for arm, changes in arms.items():
            try:
                cells.append(Cell(group, arm, dataclasses.replace(base, **changes)))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{group}, {arm}: {error}") from error
    return tuple(cells)


def load_study(name: str, named: Mapping[str, Study]) -> Study:
    """A study by its name, or the ``study`` that a Python file defines. The file is a program, and runs with your
    rights.

    Args:
        name: a key of ``named``, or the path of a Python file.
        named: the studies that come with melmask.

    Raises:
        ValueError: no such study or file, or the file defines no ``study``.
    """
    if name in named:
        return named[name]
    path = Path(name)
    if path.suffix != ".py":
        raise ValueError(f"{unknown(name, named, 'study')}; or give a Python file that defines study = Study(...)")
    if not path.is_file():
        raise ValueError(f"no study at {path}: there is no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None  # as it ends in .py
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path} cannot be run: {error}") from error
    study = vars(module).get("study")
    if not isinstance(study, Study):
        raise ValueError(f"{path} defines no study: end it with study = Study(...), of melmask.study.study")
    return study
