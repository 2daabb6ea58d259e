"""A run's folder: the names of its files, how it is opened, and its log."""

import json
from pathlib import Path
from typing import Any

from melmask.data.store import Store
from melmask.train.recipe import Recipe

RECIPE, LOG, DATA = "recipe.json", "log.jsonl", "data.json"


def open_run(run: Path, recipe: Recipe, store: Store, resume: bool) -> None:
    """Make the run folder, or check that it is the one to go on with."""
    data = {
        "store": str(store.folder.resolve()),
        "fingerprint": store.fingerprint,
        "mean": store.mean,
        "std": store.std,
    }
    if (run / RECIPE).exists():
        if not resume:
            raise ValueError(f"{run} already holds a run: resume it, or choose another folder")
        if Recipe.load(run / RECIPE) != recipe:
            raise ValueError(f"{run} was started with another recipe: resume it with its own, or choose another folder")
        if json.loads((run / DATA).read_text())["fingerprint"] != store.fingerprint:
            raise ValueError(f"{run} was trained on other data than {store.folder}: resume it with its own store")
        return
    run.mkdir(parents=True, exist_ok=True)
    (run / DATA).write_text(json.dumps(data, indent=2) + "\n")
    recipe.save(run / RECIPE)


def read_log(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; a last line cut off by a kill is left out."""
    path, lines = run / LOG, []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines
