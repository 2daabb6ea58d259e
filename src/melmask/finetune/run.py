"""Fine-tune an encoder on a task: every fold with every seed, resumable, with a confidence interval of the score."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int

from melmask.data.store import Store
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.encoders.registry import ENCODER
from melmask.evaluation.metrics import Score, score_with_interval
from melmask.evaluation.prepared import split_name, task_in_store
from melmask.evaluation.results import Result, result_of
from melmask.evaluation.splits import Split, splits_of
from melmask.evaluation.task import Task, group_notes, group_numbers
from melmask.files import read_tensors, remove_temporaries, write_json, write_tensors
from melmask.finetune.model import HEAD, FinetunedModel, num_head_dims
from melmask.finetune.recipe import FinetuneRecipe
from melmask.finetune.trainer import Epoch, Training, train, with_recipe
from melmask.locks import exclusive
from melmask.train.ranges import check_num_seeds
from melmask.train.run_folder import LOCK

FOLDER, SETTINGS = "finetune", "settings.json"
PREDICTIONS, CHECKPOINT = "predictions.safetensors", "checkpoint.safetensors"


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
    allow_duplicates: bool = False,
    command: str = "",
    report: Callable[[Epoch], None] = lambda epoch: None,
) -> Result:
    """Fine-tune an encoder on each fold of a task with each seed, and score the test clips.

    Every training has a folder fold-NAME-seed-N with encoder, head and predictions, below the run's folder "finetune".
    Finished trainings with the same encoder, data and settings are reused. An interrupted one resumes from its last
    checkpoint, about a minute before, and gives the same weights as one that was not interrupted.

    Args:
        start: the encoder to start from.
        table: the task's CSV.
        store: the table, prepared with the encoder's log-mel settings.
        recipe: all settings.
        run: the folder whose subfolder "finetune" holds the trainings.
        recipe_name: for reports.
        features: name of the kind of encoder in results.
        test_folds: folds to test on; empty for each in turn.
        num_seeds: trainings per fold, with the seeds 0, 1, ...
        allow_duplicates: see `melmask.evaluation.run.EvaluationSettings`.
        command: recorded with the result.
        report: called after every epoch.

    Returns:
        The result for results.jsonl; the interval covers both test clips and trainings.

    Raises:
        ValueError: the table is not a task, a fold does not exist, or num_seeds is not positive.
        Diverged: a loss is not finite.
    """
    check_num_seeds(num_seeds)
    task = task_in_store(table, store, allow_duplicates=allow_duplicates)
    splits = splits_of(task, test_folds=test_folds)
    folder = training_folder(run, start, store, recipe, name=f"{task.name}-{recipe_name}", features=features)
    scores = np.full((num_seeds, *task.flags.shape), np.nan, np.float32)
    fold_of = np.full(len(task.paths), -1)
    for number, split in enumerate(splits):
        fold_of[split.test] = number
        for seed in range(num_seeds):
            training = Training(start, store, task, split, recipe, seed)
            scores[seed, split.test] = _predictions(training, fold_folder(folder, split, seed), report)
    encoder, tested = with_recipe(start, recipe), np.flatnonzero(fold_of >= 0)
    score = score_with_interval(
        task.targets[tested], scores[:, tested], folds=fold_of[tested], groups=group_numbers(task)[tested]
    )
    return _result(
        start,
        encoder,
        store,
        task,
        score,
        num_dims=num_head_dims(encoder, recipe.frequency),
        task_path=str(table),
        split=split_name(table, task),
        features=features,
        test_folds=tuple(test_folds),
        command=command,
        settings=f"recipe {recipe_name}",
        notes=(f"fine-tuned with the recipe {recipe_name}; trainings in {folder}", *_notes(task, splits, recipe)),
    )


def training_folder(
    run: Path, start: PretrainedEncoder, store: Store, recipe: FinetuneRecipe, *, name: str, features: str
) -> Path:
    """The folder for the trainings of one encoder with one recipe on one task; creates it and writes settings.json.

    Its name has a hash of encoder, recordings, labels, folds and settings, so different trainings never share a folder.
    """
    settings = {"recipe": asdict(recipe), "encoder": start.identity, "task": store.fingerprint, "format": 1}
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    folder = run / FOLDER / f"{name}-{features}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SETTINGS, settings)
    return folder


def fold_folder(folder: Path, split: Split, seed: int) -> Path:
    """The folder of one training, in that of all of them."""
    return folder / f"fold-{split.name}-seed-{seed}"


def model_for_use(training: Training, folder: Path, report: Callable[[Epoch], None]) -> FinetunedModel:
    """A training that is used and not tested: the finished one in the folder, or one that is run now, or resumed."""
    if not (folder / HEAD).exists() or (folder / CHECKPOINT).exists():
        folder.mkdir(exist_ok=True)
        remove_temporaries(folder)
        model, _ = train(training, report, folder / CHECKPOINT)
        model.save(folder)
        (folder / CHECKPOINT).unlink(missing_ok=True)
    return FinetunedModel.load(folder)


def read_predictions(folder: Path) -> tuple[Int[np.ndarray, " test"], Float32[np.ndarray, "test num_classes"]]:
    """The rows of the test clips of a finished training, and their class probabilities."""
    tensors, _ = read_tensors(folder / PREDICTIONS, needed=("row", "probabilities"))
    return tensors["row"].numpy(), tensors["probabilities"].numpy()


def _predictions(
    training: Training, folder: Path, report: Callable[[Epoch], None]
) -> Float32[np.ndarray, "test num_classes"]:
    """Class probabilities of the test clips, from the finished training in the folder or from one that is run now."""
    path, test = folder / PREDICTIONS, training.split.test
    if not path.exists():
        folder.mkdir(exist_ok=True)
        lock = folder.with_name(f"{folder.name}{LOCK}")
        busy = f"{folder} is being trained by another process: wait for it"
        with exclusive(lock, busy), training.store.in_use():
            remove_temporaries(folder)
            model, best = train(training, report, folder / CHECKPOINT)
            model.save(folder)
            predicted = torch.from_numpy(model.predict(training.store, test.tolist()))
            tensors = {"probabilities": predicted, "row": torch.from_numpy(test)}
            metadata = {name: json.dumps(value) for name, value in asdict(best).items()}
            write_tensors(path, tensors, metadata)  # last, so that it marks a finished training
            (folder / CHECKPOINT).unlink(missing_ok=True)
    rows, probabilities = read_predictions(folder)
    if rows.tolist() != test.tolist():
        raise ValueError(f"{path} is of other test clips: delete {folder} and run again")
    return probabilities


def _result(
    start: PretrainedEncoder, encoder: PretrainedEncoder, store: Store, task: Task, score: Score, **other: Any
) -> Result:
    """The line of results.jsonl; ``other`` are its remaining fields."""
    return result_of(
        score,
        task=task.name,
        probe="finetune",
        metric=task.metric,
        num_classes=len(task.classes),
        rejected=task.num_lost,
        content=task.content,
        encoder=encoder.name,
        identity=start.identity,
        **other,
    )


def _notes(task: Task, splits: Sequence[Split], recipe: FinetuneRecipe) -> tuple[str, ...]:
    """What a reader of the score has to know about the splits."""
    notes = [note for split in splits for note in split.notes]
    if recipe.train_on_valid:
        notes.append("trained on the validation clips too, so the last epoch is kept")
    for split in splits:
        untrained = task.flags[split.test].any(axis=0) & ~task.flags[split.train].any(axis=0)
        if untrained.any():
            names = ", ".join(task.classes[label] for label in np.flatnonzero(untrained))
            notes.append(f"fold {split.name}: no training clips of {names}, which are in the test clips")
    notes += group_notes(group_numbers(task)[np.concatenate([split.test for split in splits])])
    return tuple(dict.fromkeys(notes))
