"""Evaluations of several runs as one table: runs and baselines against tasks and probes."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from melmask.encoders.features import UNSTATED, WHITENED
from melmask.encoders.registry import ENCODER, UNTRAINED
from melmask.evaluation.results import Result
from melmask.study.others import OtherEncoder
from melmask.study.runs import Run

S = TypeVar("S", bound=Run | OtherEncoder)
LABELS = {UNTRAINED: "untrained encoder"}
DEFAULT_SETTINGS = str(UNSTATED)


@dataclass(frozen=True)
class Column:
    """One task and one probe on the same test clips: only the scores of one column are comparable.

    Args:
        task: name of the task, with its folder or its number where tasks of different content have one name.
        probe: name of the probe, with its settings where they are not the defaults.
        metric: accuracy or mAP.
        test_folds: folds that were tested on; empty for all.
        num_clips: test clips.
        num_classes: classes of the task.
        clip_s: length that each clip was cut or padded to, in seconds; 0 for whole clips.
        split: what tables call the split; empty if not known.
        protocol: which part of each clip was read.
    """

    task: str
    probe: str
    metric: str
    test_folds: tuple[str, ...]
    num_clips: int
    num_classes: int
    clip_s: float = 0.0
    split: str = ""
    protocol: str = "melmask"

    @property
    def title(self) -> str:
        return f"{self.task}, {self.probe}"

    @property
    def note(self) -> str:
        """Test folds, number and length of the test clips, number of classes, split and protocol."""
        folds = f"fold {', '.join(self.test_folds)}; " if self.test_folds else ""
        length = f" of {self.clip_s:g} s" if self.clip_s else ""
        split = f"; {self.split}" if self.split else ""
        protocol = "" if self.protocol == "melmask" else f"; protocol {self.protocol}"
        return f"{folds}{self.num_clips:,} test clips{length}, {self.num_classes} classes{split}{protocol}"


@dataclass(frozen=True)
class Row:
    """One run or other encoder, or one baseline of one or several of them.

    Args:
        label: what tables call it.
        runs: names of the runs and other encoders it belongs to.
        is_run: whether this is a trained encoder.
        cells: its results, by column.
        settings: layers and pooling of a melmask encoder; empty for others.
    """

    label: str
    runs: list[str]
    is_run: bool
    cells: dict[Column, Result]
    settings: str = ""

    @property
    def run(self) -> str:
        return self.runs[0]

    def is_above(self, other: "Row", column: Column) -> bool:
        """Whether the whole 95 % interval lies above the other's."""
        return self.cells[column].low > other.cells[column].high


@dataclass(frozen=True)
class Table:
    """Rows of runs and baselines against columns of tasks and probes; not every row has a score in every column.

    Args:
        columns: tasks and probes.
        rows: encoders and baselines.
        settings: layers and pooling, where they are the same for all melmask encoders, so that no label has them.
    """

    columns: Sequence[Column]
    rows: Sequence[Row]
    settings: str = ""

    def best(self, column: Column) -> Row:
        """The row with the highest score; the first of equal ones."""
        return max((row for row in self.rows if column in row.cells), key=lambda row: row.cells[column].score)

    def ranked_runs(self, column: Column) -> list[Row]:
        """The runs that have a score in the column, the best first."""
        runs = [row for row in self.rows if row.is_run and column in row.cells]
        return sorted(runs, key=lambda row: -row.cells[column].score)

    def baselines(self, run: Row, column: Column) -> list[Row]:
        """The run's baselines that have a score in the column: without feature settings, or with its own.

        A whitening, which is learned, is none of the settings of an untrained encoder.
        """
        found = [row for row in self.rows if not row.is_run and column in row.cells and run.run in row.runs]
        return [row for row in found if row.settings in ("", run.settings.replace(WHITENED, ""))]


def tabulate(runs: Sequence[Run | OtherEncoder]) -> Table:
    """The table of all evaluations: columns sorted by task and probe, a row for every encoder, then the baselines.

    An encoder has a row for each of its feature settings. Baselines of several runs with equal scores share one row.
    Encoders that were kept along a run are in `score_curves`.
    """
    rows: list[Row] = []
    runs = with_task_names(runs)
    shared = _shared_settings(runs)
    for run in runs:
        for settings in dict.fromkeys(_settings(result) for result in run.results if _is_last(result)):
            label = _label(run.name, settings, shared)
            rows.append(Row(label, [run.name], True, _cells(run, ENCODER, settings), settings))
    kinds = ((result.features, _settings(result)) for run in runs for result in run.results)
    for features, settings in dict.fromkeys(kinds):
        if features != ENCODER:
            rows += _baseline_rows(runs, features, settings, shared)
    columns = {column for row in rows for column in row.cells}
    return Table(sorted(columns, key=_order), rows, shared)


def _order(column: Column) -> tuple[Any, ...]:
    clips = (column.test_folds, column.num_clips, column.clip_s, column.split, column.protocol)
    return (column.task, column.probe, *clips)


@dataclass(frozen=True)
class ScoreCurve:
    """The scores of a run's encoders along the run, in one column.

    Args:
        run: name of the run.
        label: what legends call it: the run's name, and the feature settings where they are not the defaults.
        results: by step, in ascending order; the run's last encoder is at the number of steps done.
    """

    run: str
    label: str
    results: dict[int, Result]


def score_curves(runs: Sequence[Run]) -> dict[Column, list[ScoreCurve]]:
    """The curves of all runs whose kept encoders (RUN@STEP) were evaluated, by column; other columns are left out."""
    curves: dict[Column, list[ScoreCurve]] = {}
    shared = _shared_settings(runs)
    for run in with_task_names(runs):
        along: dict[tuple[Column, str], dict[int, Result]] = {}
        last = {(_column(result), _settings(result)): result for result in run.results if _is_last(result)}
        for result in run.results:
            if result.step is not None:
                along.setdefault((_column(result), _settings(result)), {})[result.step] = result
        for (column, settings), results in along.items():
            if run.log and (column, settings) in last:
                results[run.num_steps_done] = last[column, settings]
            curve = ScoreCurve(run.name, _label(run.name, settings, shared), dict(sorted(results.items())))
            curves.setdefault(column, []).append(curve)
    return {column: curves[column] for column in sorted(curves, key=_order)}


def _is_last(result: Result) -> bool:
    """Whether it is of a run's last encoder, and not of one that was kept along the run, nor of a baseline."""
    return result.features == ENCODER and result.step is None


def overlap(one: Result, other: Result) -> bool:
    """Whether the two 95 % intervals overlap."""
    return one.low <= other.high and other.low <= one.high


def with_task_names(runs: Sequence[S]) -> list[S]:
    """The runs with a name of its own for each task in their results, see `task_names`."""
    names = task_names([result for run in runs for result in run.results])
    return [
        replace(run, results=[replace(result, task=names[result.task_key]) for result in run.results]) for run in runs
    ]


def task_names(results: Sequence[Result]) -> dict[str, str]:
    """A name for each task, by `Result.task_key`: its own, and its table's folder where others have that name too.

    Tasks that share folder and name, as one table does that was given other labels, are numbered from the oldest on.
    """
    first: dict[str, Result] = {}
    for result in results:
        first.setdefault(result.task_key, result)
    named: dict[str, list[str]] = {}  # the keys of each name
    for key, result in first.items():
        # Lines of earlier versions have no content: they are of the one task of their name, if there is one.
        if result.content or not any(one.content and one.task == result.task for one in first.values()):
            named.setdefault(Path(result.task).name, []).append(key)
    for name, keys in list(named.items()):
        if len(keys) > 1:
            del named[name]
            for key in keys:
                folder = Path(first[key].task_path).absolute().parent.name
                named.setdefault(f"{folder}/{name}", []).append(key)
    names = {
        key: f"{name} ({number})" if len(keys) > 1 else name
        for name, keys in named.items()
        for number, key in enumerate(keys, start=1)
    }
    for key, result in first.items():
        same = [other for other, one in first.items() if one.content and one.task == result.task]
        names.setdefault(key, names[same[0]] if len(same) == 1 else f"{result.task} (earlier version)")
    return names


def _settings(result: Result) -> str:
    """Layers and pooling of a melmask encoder, which lines of earlier versions do not name; empty for others."""
    return result.settings or DEFAULT_SETTINGS if result.features in (ENCODER, UNTRAINED) else ""


def _shared_settings(runs: Sequence[Run | OtherEncoder]) -> str:
    """Layers and pooling of all melmask encoders in the results; empty where they differ, or there are none.

    Those of an untrained encoder are the same without the whitening, which is learned.
    """
    encoders = {_settings(result) for run in runs for result in run.results if result.features == ENCODER} - {""}
    untrained = {_settings(result) for run in runs for result in run.results if result.features == UNTRAINED}
    alike = len(encoders) == 1 and untrained <= {one.replace(WHITENED, "") for one in encoders}
    return encoders.pop() if alike else ""


def features_label(features: str) -> str:
    """What tables call features that are no trained encoder's."""
    return LABELS.get(features, features)


def _label(name: str, settings: str, shared: str) -> str:
    return name if shared or settings in ("", DEFAULT_SETTINGS) else f"{name} ({settings})"


def _cells(run: Run | OtherEncoder, features: str, settings: str) -> dict[Column, Result]:
    """A run's lines with these features and settings, by column."""
    kept = [one for one in run.results if one.features == features and _settings(one) == settings and one.step is None]
    return {_column(result): result for result in kept}


def _column(result: Result) -> Column:
    return Column(**{field.name: getattr(result, field.name) for field in fields(Column)})


def _baseline_rows(runs: Sequence[Run | OtherEncoder], features: str, settings: str, shared: str) -> list[Row]:
    """One kind of baseline of all runs; baselines whose scores agree in every shared column become one row."""
    label = _label(features_label(features), settings, shared)
    rows: list[Row] = []
    for run in runs:
        cells = _cells(run, features, settings)
        for row in rows:
            both = cells.keys() & row.cells.keys()
            if both and all(cells[column].score == row.cells[column].score for column in both):
                row.cells.update(cells | row.cells)
                row.runs.append(run.name)
                break
        else:
            if cells:
                rows.append(Row(label, [run.name], False, cells, settings))
    if len(rows) == 1:
        return rows
    return [Row(f"{label} ({', '.join(row.runs)})", row.runs, False, row.cells, settings) for row in rows]
