"""Fine-tuning an encoder on a task: every fold and seed, resumable, with the interval its test clips allow."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from melmask.data.store import Store
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.encoders.registry import ENCODER
from melmask.evaluation.metrics import Score, score_with_interval
from melmask.evaluation.results import Result, result_of
from melmask.evaluation.task import Split, Task, group_notes, group_numbers, make_task, splits_of
from melmask.files import read_tensors, write_json, write_tensors
from melmask.finetune.recipe import FinetuneRecipe
from melmask.finetune.trainer import Epoch, as_read, tune

FOLDER, SETTINGS = "finetune", "settings.json"
PREDICTIONS, HALFWAY = "predictions.safetensors", "halfway.safetensors"


def finetune(
    start: PretrainedEncoder,
    table: Path,
    store: Store,
    recipe: FinetuneRecipe,
    run: Path,
    *,
    recipe_name: str = "custom",
    features: str = ENCODER,
    test_folds: Sequence[str] = (),
    num_seeds: int = 3,
    command: str = "",
    report: Callable[[Epoch], None] = lambda epoch: None,
) -> Result:
    """Fine-tune an encoder on each of a task's folds with each seed, and score the test clips.

    Every finished training leaves a folder fold-NAME-seed-N with encoder, head and predictions under the run's folder
    "finetune"; one that is there, made from the same encoder, data and settings, is not done again. One that was killed
    goes on from its last minute, to the same end.

    Args:
        start: the encoder to begin with.
        table: the task's CSV, for its name.
        store: the table, prepared with the encoder's log-mel settings.
        recipe: every setting.
        run: the folder whose subfolder "finetune" takes the trainings.
        recipe_name: for reports.
        features: what results call the encoder.
        test_folds: judge on these folds only; empty for all in turn.
        num_seeds: trainings per fold, with the seeds 0, 1, ...
        command: recorded with the result.
        report: called after every epoch.

    Raises:
        ValueError: the table is no task, a fold does not exist, or no seeds.
        Diverged: a loss is not finite.
    """
    if num_seeds < 1:
        raise ValueError(f"{num_seeds} seeds: at least one training is needed")
    task = make_task(table.stem, [stored.clip for stored in store.clips])
    splits = splits_of(task, test_folds=test_folds)
    folder = tuning_folder(run, start, store, recipe, name=f"{task.name}-{recipe_name}", features=features)
    scores = np.full((num_seeds, *task.flags.shape), np.nan, np.float32)
    fold_of = np.full(len(task.paths), -1)
    for number, split in enumerate(splits):
        fold_of[split.test] = number
        for seed in range(num_seeds):
            unit = folder / f"fold-{split.name}-seed-{seed}"
            scores[seed, split.test] = _predictions(unit, start, store, task, split, recipe, seed, report)
    tested = np.flatnonzero(fold_of >= 0)
    score = score_with_interval(
        task.targets[tested], scores[:, tested], folds=fold_of[tested], groups=group_numbers(task)[tested]
    )
    return _line(
        start,
        as_read(start, recipe),
        store,
        task,
        score,
        task_path=str(table),
        features=features,
        test_folds=tuple(test_folds),
        command=command,
        settings=f"recipe {recipe_name}",
        notes=(f"fine-tuned by the recipe {recipe_name}, kept in {folder}", *_notes(task, splits, recipe)),
    )


def tuning_folder(
    run: Path, start: PretrainedEncoder, store: Store, recipe: FinetuneRecipe, *, name: str, features: str
) -> Path:
    """Where the trainings of one encoder by one recipe on one task are kept; its settings lie in it.

    Another encoder, other recordings, labels, folds or settings have another folder, so none is ever taken for another.
    """
    settings = {"recipe": asdict(recipe), "encoder": start.identity, "task": store.fingerprint, "format": 1}
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    folder = run / FOLDER / f"{name}-{features}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SETTINGS, settings)
    return folder


def _predictions(
    unit: Path,
    start: PretrainedEncoder,
    store: Store,
    task: Task,
    split: Split,
    recipe: FinetuneRecipe,
    seed: int,
    report: Callable[[Epoch], None],
) -> Float32[np.ndarray, "test num_classes"]:
    """Probabilities of the test clips, of the finished training in that folder, or of one that is done now."""
    path = unit / PREDICTIONS
    if not path.exists():
        model, best = tune(start, store, task, split, recipe, seed, report, unit / HALFWAY)
        model.save(unit)
        predicted = torch.from_numpy(model.predict(store, split.test.tolist()))
        tensors = {"probabilities": predicted, "row": torch.from_numpy(split.test)}
        chosen = {name: json.dumps(value) for name, value in asdict(best).items()}
        write_tensors(path, tensors, chosen)  # last, so that it marks a training that is done
        (unit / HALFWAY).unlink(missing_ok=True)
    tensors, _ = read_tensors(path)
    if tensors["row"].tolist() != split.test.tolist():
        raise ValueError(f"{path} is of other test clips: delete {unit} and run again")
    return tensors["probabilities"].numpy()


def _line(
    start: PretrainedEncoder, read: PretrainedEncoder, store: Store, task: Task, score: Score, **given: Any
) -> Result:
    """The line of results.jsonl; ``given`` is what none of these knows."""
    return result_of(
        score,
        task=task.name,
        probe="finetune",
        metric=task.metric,
        num_classes=len(task.classes),
        num_dims=read.num_dims,
        rejected=len(store.rejected),
        encoder=read.name,
        identity=start.identity,
        **given,
    )


def _notes(task: Task, splits: Sequence[Split], recipe: FinetuneRecipe) -> tuple[str, ...]:
    """What a reader of the score has to know of the splits."""
    notes = [note for split in splits for note in split.notes]
    if recipe.train_on_valid:
        notes.append("trained on the validation clips too, and so the last epoch counts")
    for split in splits:
        lacks = task.flags[split.test].any(axis=0) & ~task.flags[split.train].any(axis=0)
        if lacks.any():
            names = ", ".join(task.classes[label] for label in np.flatnonzero(lacks))
            notes.append(f"fold {split.name}: no training clips of {names}, which are in the test clips")
    notes += group_notes(group_numbers(task)[np.concatenate([split.test for split in splits])])
    return tuple(dict.fromkeys(notes))
