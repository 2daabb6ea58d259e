"""The nine tasks of EVAR, the evaluation package of M2D, in one call, beside published scores."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from melmask.data.csv_table import MANIFEST_EXTENSIONS
from melmask.datasets.build import dataset_of
from melmask.evaluation.results import Result

# In EVAR's order: what tables call each data set, by the name of its task.
EVAR_TASKS = {
    "esc50": "ESC-50",
    "urbansound8k": "US8K",
    "speech_commands": "SPCV2",
    "voxceleb1": "VC1",
    "voxforge": "VF",
    "crema_d": "CREMA-D",
    "gtzan": "GTZAN",
    "nsynth": "NSynth",
    "surge": "Surge",
}
ALIASES = {
    "us8k": "urbansound8k",
    "spcv2": "speech_commands",
    "vc1": "voxceleb1",
    "vf": "voxforge",
    "cremad": "crema_d",
}
FAULTS = (ValueError, RuntimeError, OSError, ImportError)  # of one task, which do not stop the others


@dataclass(frozen=True)
class Published:
    """A row of published scores.

    Args:
        name: of the encoder.
        scores: accuracy in %, by task; tasks whose figure is not at hand are left out.
        average: over the nine tasks, in %.
        source: where the figures are from.
    """

    name: str
    scores: Mapping[str, float]
    average: float
    source: str


M2D_PAPER = "linear evaluation table of M2D, arXiv 2404.06095; as compiled for melmask, not read again in the paper"
PUBLISHED = (
    Published(
        "M2D, ratio 0.7",
        dict(zip(EVAR_TASKS, (91.3, 87.6, 96.0, 73.4, 98.3, 73.0, 84.1, 75.7, 42.1), strict=True)),
        80.2,
        M2D_PAPER,
    ),
    Published("MSM-MAE", {}, 79.1, f"average only, {M2D_PAPER}"),
    Published("ATST-Frame", {}, 79.9, f"average only, {M2D_PAPER}"),
    Published("BEATs, iteration 3", {}, 72.1, f"average only, {M2D_PAPER}"),
)


@dataclass(frozen=True)
class TaskFolder:
    """The tables of the nine tasks in a folder.

    Args:
        tables: by task, in EVAR's order.
        missing: tasks without a table.
        others: tables of other tasks, which are left out.
    """

    tables: Mapping[str, Path]
    missing: tuple[str, ...]
    others: tuple[Path, ...]


@dataclass
class NineTasks:
    """Scores on the nine tasks, as they come in.

    Args:
        results: of each task that was evaluated.
        faults: why a task has no score, by task.
    """

    results: dict[str, list[Result]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> dict[tuple[str, str], dict[str, float]]:
        """Scores in %, by encoder and kind of features, and by task; a probe's name is not part, as it is one."""
        found: dict[tuple[str, str], dict[str, float]] = {}
        for task, results in self.results.items():
            for result in results:
                found.setdefault((result.encoder, result.features), {})[task] = 100 * result.score
        return found


def average(scores: Mapping[str, float]) -> float | None:
    """The mean over the nine tasks; None if one is missing, since means over other tasks are not comparable.

    >>> average(dict.fromkeys(EVAR_TASKS, 50.0)), average({"esc50": 90.0})
    (50.0, None)
    """
    return sum(scores[task] for task in EVAR_TASKS) / len(EVAR_TASKS) if EVAR_TASKS.keys() <= scores.keys() else None


def find_tables(folder: Path) -> TaskFolder:
    """The tables of the nine tasks in a folder: manifests known by their records or by their names.

    Raises:
        ValueError: the folder does not exist or has none of them, or two tables of one task, or a record is damaged.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: give the folder that holds the tables of the tasks")
    tables: dict[str, Path] = {}
    others = []
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in MANIFEST_EXTENSIONS):
        name = dataset_of(path).lower().replace("-", "_")
        task = ALIASES.get(name, name)
        if task not in EVAR_TASKS:
            others.append(path)
        elif task in tables:
            raise ValueError(f"{tables[task]} and {path} are both of {task}: leave one in the folder")
        else:
            tables[task] = path
    if not tables:
        raise ValueError(f"{folder} has no table of {', '.join(EVAR_TASKS)}: make them with melmask tasks make")
    ordered = {task: tables[task] for task in EVAR_TASKS if task in tables}
    return TaskFolder(ordered, tuple(task for task in EVAR_TASKS if task not in tables), tuple(others))


def evaluate_nine(
    folder: TaskFolder,
    evaluate: Callable[[Path], Iterable[Result]],
    report: Callable[[str, Sequence[Result], str], None] = lambda task, results, fault: None,
) -> NineTasks:
    """Evaluate on all tables of a folder; a task that fails is noted, and the others are evaluated.

    Args:
        folder: of `find_tables`.
        evaluate: gives the results of all encoders on one table.
        report: called after each task with its name, its results, and why there are none.
    """
    nine = NineTasks(faults=dict.fromkeys(folder.missing, "no table"))
    for task, table in folder.tables.items():
        try:
            nine.results[task] = list(evaluate(table))
        except FAULTS as error:
            nine.faults[task] = str(error) or type(error).__name__
        report(task, nine.results.get(task, []), nine.faults.get(task, ""))
    return nine
