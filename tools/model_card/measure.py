"""The figures of the model card: an encoder on held-out folds, beside its untrained form and log-mel statistics."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from melmask.encoders.registry import with_baselines
from melmask.evaluation.compare import compare_evaluations
from melmask.evaluation.metrics import Score
from melmask.evaluation.prepared import ShowProgress, show_nothing
from melmask.evaluation.run import Evaluation, EvaluationSettings, evaluate_table
from melmask.files import atomic_write

PROBES = ("logistic", "ridge", "knn")


@dataclass(frozen=True)
class JudgeTask:
    """A labelled task with the fold that only the model card's figures are read on.

    Args:
        name: of its table NAME.csv, with path,label,fold,group.
        fold: tested on; probes are trained on all others.
        what: the task in words.
    """

    name: str
    fold: str
    what: str


TASKS = (
    JudgeTask("esc50", "5", "ESC-50: environmental sounds, 50 classes"),
    JudgeTask("ravdess_emotion8", "6", "RAVDESS: 8 acted emotions, speakers that are not trained on"),
    JudgeTask("fsdd_digits10", "6", "Free Spoken Digit Dataset: 10 digits, a speaker that is not trained on"),
    JudgeTask("philharmonia_chroma12", "4", "Philharmonia: 12 pitch classes, on instruments that are not trained on"),
    JudgeTask("philharmonia_instrument12", "5", "Philharmonia: 12 instruments, on pitches that are not trained on"),
    JudgeTask("arabic_keywords20", "test", "Arabic Speech Commands: 20 words, speakers that are not trained on"),
)


@dataclass(frozen=True)
class Figures:
    """The scores of one probe on one task: a line of results.jsonl.

    Args:
        task, fold, probe: their names.
        identity: of the encoder, which changes with its weights, form and feature settings.
        settings: layers and pooling.
        metric: what the scores are.
        num_clips: tested on.
        scores: value, low and high of the 95 % interval, by "encoder", "untrained" and "log-mel statistics".
        differences: the same of the encoder's score minus a baseline's, by a paired bootstrap.
        notes: what a reader of the scores has to know.
    """

    task: str
    fold: str
    probe: str
    identity: str
    settings: str
    metric: str
    num_clips: int
    scores: dict[str, list[float]]
    differences: dict[str, list[float]]
    notes: list[str]


def missing_tables(audio: Path, tasks: Sequence[JudgeTask]) -> list[Path]:
    """The tables that the folder of recordings lacks."""
    return [table for table in (audio / f"{task.name}.csv" for task in tasks) if not table.is_file()]


def measure(
    encoder: str, audio: Path, work: Path, tasks: Sequence[JudgeTask] = TASKS, progress: ShowProgress = show_nothing
) -> Iterator[Figures]:
    """Evaluate an encoder and its baselines on every task.

    What is measured is kept task by task, so that a call that was stopped resumes with the next task.

    Args:
        encoder: what `melmask.load` takes.
        audio: the folder of the tables.
        work: the folder for what is measured before all is.
        tasks: with their held-out folds.
        progress: called with what is being done, and how much of it is done, of how much.

    Yields:
        The figures of each task and probe, in this order.
    """
    named = with_baselines([encoder])
    identity = named[0].encoder.identity
    for task in tasks:
        kept = work / f"{task.name}-{task.fold}-{identity[:16]}.jsonl"
        if not kept.exists():
            settings = EvaluationSettings(PROBES, test_folds=(task.fold,))
            found = list(evaluate_table(named, audio / f"{task.name}.csv", settings, progress=progress))
            work.mkdir(parents=True, exist_ok=True)
            write_figures(kept, [figures_of(found[number :: len(PROBES)], task) for number in range(len(PROBES))])
        yield from read_figures(kept)


def figures_of(found: Sequence[Evaluation], task: JudgeTask) -> Figures:
    """The figures of one probe: evaluations of the encoder, then of its baselines."""
    encoder, *baselines = found
    return Figures(
        task=task.name,
        fold=task.fold,
        probe=encoder.found.probe,
        identity=encoder.result.identity,
        settings=encoder.result.settings,
        metric=encoder.result.metric,
        num_clips=encoder.result.num_clips,
        scores={one.result.features: _interval(one.found.score) for one in found},
        differences={one.result.features: _interval(compare_evaluations(encoder, one).difference) for one in baselines},
        notes=list(dict.fromkeys(note for one in found for note in one.found.notes)),
    )


def read_figures(path: Path) -> list[Figures]:
    """The figures in a file; none if there is no such file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [Figures(**json.loads(line)) for line in lines]


def write_figures(path: Path, figures: Sequence[Figures]) -> None:
    """Write figures, one JSON object a line, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text("".join(json.dumps(asdict(one)) + "\n" for one in figures), encoding="utf-8")


def changes(before: Sequence[Figures], after: Sequence[Figures]) -> float | None:
    """The largest difference of a score between two measurements of one encoder; None if of others."""
    keyed: list[dict[tuple[str, ...], Any]] = [
        {(one.task, one.fold, one.probe, one.identity): one.scores for one in figures} for figures in (before, after)
    ]
    if keyed[0].keys() != keyed[1].keys():
        return None
    pairs = ((scores, keyed[1][key]) for key, scores in keyed[0].items())
    return max((abs(old[name][0] - new[name][0]) for old, new in pairs for name in old), default=None)


def _interval(score: Score) -> list[float]:
    """Value, low and high, kept finer than they are shown, so that rounding twice changes no figure."""
    return [round(number, 6) for number in (score.value, score.low, score.high)]
