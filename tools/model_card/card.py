"""The text of the model card, from a template, the figures, the run and the sources of the data."""

import csv
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from melmask.train.recipe import as_text
from model_card.measure import PROBES, TASKS, Figures, JudgeTask, read_figures

HERE = Path(__file__).parent
TEMPLATE, RESULTS, TRAINING = "template.md", "results.jsonl", "training.json"
SOURCES, CREDITS = "sources.csv", "credits.csv"
SHOWN = ("what", "hours", "licence", "attribution")
UNTRAINED, STATISTICS = "untrained", "log-mel statistics"
NOT_MEASURED = "*Not measured yet: `make model-card` measures the encoder in this folder, and writes them here.*"
NOT_TRAINED = "*The encoder is not in this folder yet: `make tiny-encoder RUN=folder` puts a run's encoder here.*"


def card(folder: Path = HERE, tasks: Sequence[JudgeTask] = TASKS) -> str:
    """The whole card.

    Args:
        folder: of template.md, sources.csv and credits.csv, and of results.jsonl and training.json once there are such.
        tasks: that the figures are of.
    """
    figures, training = read_figures(folder / RESULTS), read_training(folder)
    sources, credits = _rows(folder / SOURCES), _rows(folder / CREDITS)
    parts = {
        "summary": summary(figures),
        "figures": figures_table(figures) if figures else NOT_MEASURED,
        "tasks": tasks_table(tasks),
        "notes": notes_of(figures),
        "training": training_text(training) if training else NOT_TRAINED,
        "recipe": recipe_table(training["runs"]) if training else "",
        "hours": f"{sum(float(row['hours']) for row in sources):.2f}",
        "clips": f"{sum(int(row['clips']) for row in sources):,}",
        "sources": _table(
            ("source", "repository @ commit", "what it is", "hours", "licence", "attribution"),
            (
                (row["source"], f"{row['repository']} @ {row['commit']}", *(row[name] for name in SHOWN))
                for row in sources
            ),
        ),
        "credits": _table(
            ("source", "author", "licence", "origin"),
            ((row["source"], row["author"], row["licence"], _links(row["url"])) for row in credits),
        ),
    }
    text = (folder / TEMPLATE).read_text(encoding="utf-8")
    for name, part in parts.items():
        assert f"{{{{{name}}}}}" in text, f"the template has no place for {name}"
        text = text.replace(f"{{{{{name}}}}}", part)
    return re.sub(r" *\n{3,}", "\n\n", text)


def read_training(folder: Path) -> dict[str, Any]:
    """What `model_card.ship` wrote of the run; empty if nothing yet."""
    path = folder / TRAINING
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def summary(figures: Sequence[Figures]) -> str:
    """How often the encoder stands above its baselines, and where the intervals allow saying so; empty without any."""
    if not figures:
        return ""
    above = [one for one in figures if all(value > 0 for value, _, _ in one.differences.values())]
    clear = [one for one in figures if all(low > 0 for _, low, _ in one.differences.values())]
    below = [f"{one.task} with {one.probe}" for one in figures if one not in above]
    tasks = len({one.task for one in figures})
    sure = ", ".join(f"{sum(one.probe == probe for one in clear)} of {tasks} with {probe}" for probe in PROBES)
    return (
        f"It scores above both baselines in {len(above)} of {len(figures)} cases"
        + (f" (not on {'; '.join(below)})" if below else "")
        + f". By paired 95 % intervals clear of zero it is better than both on: {sure}."
    )


def figures_table(figures: Sequence[Figures]) -> str:
    """A row for every task and probe: the scores and the paired differences, in %, with intervals."""
    names = {UNTRAINED: "untrained", STATISTICS: STATISTICS}
    head = ("task", "probe", "tiny", *names.values(), *(f"tiny − {name}" for name in names.values()))
    rows = []
    for number, one in enumerate(figures):
        first = not number or figures[number - 1].task != one.task
        scores = [_with_interval(one.scores[name]) for name in ("encoder", *names)]
        gaps = [_difference(one.differences[name]) for name in names]
        rows.append((one.task if first else "", one.probe, *scores, *gaps))
    return _table(head, rows)


def tasks_table(tasks: Sequence[JudgeTask]) -> str:
    """A row for every task: what it is and which fold is tested on."""
    rows = ((task.name, task.what, "test" if task.fold == "test" else f"fold {task.fold}") for task in tasks)
    return _table(("task", "what it is", "tested on"), rows)


def notes_of(figures: Sequence[Figures]) -> str:
    """A line for every note of the evaluations."""
    return "\n".join(dict.fromkeys(f"- {one.task}: {note}" for one in figures for note in one.notes))


def training_text(training: dict[str, Any]) -> str:
    """What was trained, on what and for how long, run by run."""
    runs, stated = training["runs"], training["stated"] or {"layers": "last", "pooling": "mean"}
    averaged = [number for number, run in enumerate(runs, start=1) if run["share"]]
    lines = []
    if len(averaged) > 1:
        shares = ", ".join(f"{runs[number - 1]['share']:.3g}" for number in averaged)
        which = f" of these {len(runs)} ({', '.join(map(str, averaged))})" if len(averaged) < len(runs) else ""
        mean = f"The weights are the mean of those of {len(averaged)} runs{which}"
        lines.append(f"{mean}, in shares of {shares} in turn.\n")
    elif len(runs) > 1:
        lines.append(f"The weights are those of run {averaged[0]}.\n")
    for number, run in enumerate(runs, start=1):
        lines += [f"```\n{run['command']}\n```\n"] if run["command"] else []
        begun = f", started from {run['init']}" if run["init"] else ", from random weights"
        called = f"Run {number}: " if len(runs) > 1 else ""
        lines.append(
            f"{called}{run['steps']:,} steps of {run['recipe']['batch_size']} crops in {run['hours']:.1f} hours"
            f"{begun}, seed {run['recipe']['seed']}.\n"
        )
    lines.append(
        f"Features are read as layers {as_text(stated['layers'])}, pooling {stated['pooling']}, unless others are "
        f"asked for. Weights are stored in half precision ({training['megabytes']:.1f} MB), and computed with in "
        "float32."
    )
    if training["has_decoder"]:
        mean = "the mean of those of the same runs" if len(averaged) > 1 else "of the same run"
        lines.append(
            f"Beside the encoder lies the decoder that was trained with it, {mean}, from which `--init` continues."
        )
    return "\n".join(lines)


def recipe_table(runs: Sequence[dict[str, Any]]) -> str:
    """Every setting, with a column for each run; settings that a recipe of an earlier version lacks are empty."""
    names = list(dict.fromkeys(name for run in runs for name in run["recipe"]))
    head = ("value",) if len(runs) == 1 else tuple(f"run {number}" for number in range(1, len(runs) + 1))
    rows = ((name, *(run["recipe"].get(name, "") for run in runs)) for name in names)
    return _table(("setting", *head), rows)


def _links(urls: str) -> str:
    return " ".join(f"<{url}>" for url in urls.split())


def _with_interval(score: Sequence[float]) -> str:
    value, low, high = (100 * number for number in score)
    return f"**{value:.1f}** ({low:.1f}–{high:.1f})"


def _difference(score: Sequence[float]) -> str:
    value, low, high = (100 * number for number in score)
    text = f"{value:+z.1f} ({low:+z.1f} to {high:+z.1f})"
    return f"**{text}**" if low > 0 or high < 0 else text


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *([as_text(cell).replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
