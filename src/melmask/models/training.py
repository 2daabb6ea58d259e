"""Models for use: trained on all labelled recordings of a table, with the score that evaluation gave to their kind."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float64

from melmask.data.store import Store
from melmask.detect.events import EventTask, activity, make_event_task
from melmask.detect.linear import DEFAULT_DETECTOR, Detector
from melmask.encoders.cache import cached_time_steps
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.encoders.timesteps import TimeSteps, standardise
from melmask.evaluation.for_use import is_official, split_for_use
from melmask.evaluation.metrics import score_of
from melmask.evaluation.prepared import task_in_store
from melmask.evaluation.results import Result
from melmask.evaluation.run import Evaluation
from melmask.evaluation.splits import splits_of
from melmask.evaluation.task import Task
from melmask.finetune.model import FinetunedModel
from melmask.finetune.recipe import FinetuneRecipe
from melmask.finetune.run import fold_folder, model_for_use, read_predictions, training_folder
from melmask.finetune.trainer import Epoch, Training
from melmask.models.base import About
from melmask.models.classifier import Classifier
from melmask.models.detector import EventDetector
from melmask.models.file import of_finetuned
from melmask.models.held_out import NONE_HELD_OUT, HeldOut
from melmask.probes.base import Probe
from melmask.probes.run import LabelledFeatures, fit_for_use


def about_of(result: Result, num_clips: int) -> About:
    """What a model's file says of it: the score of its kind on clips that it had not been trained on."""
    return About(result.task, result.probe, result.metric, result.score, result.low, result.high, num_clips)


def classifier_for_use(evaluation: Evaluation, *, clip_s: float = 0.0, seed: int = 0) -> Classifier:
    """Train an evaluated probe on all clips of its task, for use.

    A tenth of the clips chooses its settings, and probes that are in evaluation then trained on these too. The
    held-out predictions, by which it can abstain, are those of the evaluation where folds are tested in turn; with an
    official test split they are of its validation clips, by a probe trained on its training clips alone.

    Args:
        evaluation: encoder, probe, features and score.
        clip_s: length of the clips in seconds, 0 for whole ones.
        seed: of the training, and of the clips that choose.

    Raises:
        ValueError: the probe cannot be saved.
    """
    task, probe = evaluation.task, evaluation.probe
    data = LabelledFeatures(evaluation.features, task.flags, task.classes, task.is_multilabel)
    split = split_for_use(task, seed=seed)
    fitted = fit_for_use(probe, data, split.train, split.valid, parts=split.parts, score=score_of, seed=seed)
    held_out = _of_validation(probe, data, task, seed) if is_official(task) else _of_folds(evaluation)
    return Classifier(
        evaluation.encoder.encoder,
        probe,
        fitted.state,
        fitted.centre,
        fitted.scale,
        task.classes,
        task.is_multilabel,
        task.is_multilabel,
        clip_s,
        held_out,
        about_of(evaluation.result, len(task.paths)),
    )


def _of_folds(evaluation: Evaluation) -> HeldOut:
    """Of all clips that were tested, by the first training of their fold."""
    tested = np.flatnonzero(evaluation.found.fold_of >= 0)
    return HeldOut.of(evaluation.found.per_training[0][tested], evaluation.task.flags[tested])


def _of_validation(probe: Probe, data: LabelledFeatures, task: Task, seed: int) -> HeldOut:
    """Of the validation clips of an official split, by a probe that was trained on its training clips alone."""
    [split] = splits_of(task, seed=seed)
    inner = split_for_use(task, split.train, seed=seed)
    known = np.flatnonzero(data.flags[inner.train].any(axis=0))
    part = LabelledFeatures(
        data.features, data.flags[:, known], [data.classes[i] for i in known.tolist()], data.multilabel
    )
    fitted = fit_for_use(probe, part, inner.train, inner.valid, parts=inner.parts, score=score_of, seed=seed)
    predicted = fitted.predict(probe, data.features[split.valid], data.multilabel)
    return HeldOut.of(predicted, part.flags[split.valid])


def finetuned_for_use(
    start: PretrainedEncoder,
    table: Path,
    store: Store,
    recipe: FinetuneRecipe,
    run: Path,
    result: Result,
    *,
    recipe_name: str,
    features: str,
    allow_duplicates: bool = False,
    report: Callable[[Epoch], None] = lambda epoch: None,
) -> Classifier:
    """Fine-tune an encoder once more, on all clips of a task that `melmask.finetune.run.finetune` has scored, for use.

    A tenth of the clips is for validation, as in each fold. The held-out predictions, by which the model can abstain,
    are those of the test clips where folds are tested in turn, by the first training of each; with an official test
    split those of its validation clips, and none if the recipe trains on them.

    Args:
        start, table, store, recipe, run, recipe_name, features, allow_duplicates, report: as of `finetune`.
        result: what it returned.

    Raises:
        Diverged: a loss is not finite.
    """
    task = task_in_store(table, store, allow_duplicates=allow_duplicates)
    folder = training_folder(run, start, store, recipe, name=f"{task.name}-{recipe_name}", features=features)
    training = Training(start, store, task, split_for_use(task), recipe, seed=0)
    model = model_for_use(training, folder / "all-seed-0", report)
    splits = splits_of(task, test_folds=result.test_folds)
    if not is_official(task):
        found = [read_predictions(fold_folder(folder, split, 0)) for split in splits]
        rows, predicted = (np.concatenate(parts) for parts in zip(*found, strict=True))
        held_out = HeldOut.of(predicted, task.flags[rows])
    elif recipe.train_on_valid:
        held_out = NONE_HELD_OUT
    else:
        [split] = splits
        of_training = FinetunedModel.load(fold_folder(folder, split, 0))
        held_out = HeldOut.of(of_training.predict(store, split.valid.tolist()), task.flags[split.valid])
    return of_finetuned(model, held_out, about_of(result, len(task.paths)))


def detector_of_table(
    encoder: PretrainedEncoder, table: Path, store: Store, result: Result, *, allow_duplicates: bool = False
) -> EventDetector:
    """Train a detector that `melmask.detect.run.evaluate_detection` has scored on all recordings of its table."""
    task = make_event_task(table, store, allow_duplicates=allow_duplicates)
    about = about_of(result, len(task.rows))
    return detector_for_use(encoder, cached_time_steps(encoder, store, task.rows), task, about)


def detector_for_use(
    encoder: PretrainedEncoder,
    steps: TimeSteps,
    task: EventTask,
    about: About | None = None,
    *,
    detector: Detector = DEFAULT_DETECTOR,
    seed: int = 0,
) -> EventDetector:
    """Train a detector on all recordings of a table of events, for use; a tenth of them choose epoch and thresholds.

    Args:
        encoder: whose time steps these are.
        steps: of each of the task's recordings.
        task: strong labels.
        about: the score of its kind, and where it comes from.
        detector: its settings.
        seed: of the training, and of the recordings that choose.

    Raises:
        ValueError: no events to train or to choose by.
    """
    classes, centres_s = task.task.classes, encoder.timestamps_s(int(steps.length.max()))
    active = _active(task, steps, centres_s, encoder.step_s)
    split = split_for_use(task.task, seed=seed)
    train, valid = standardise(steps[split.train], steps[split.valid])
    train_y, valid_y = ([active[i] for i in part] for part in (split.train, split.valid))
    if not any(of_clip.any() for of_clip in valid_y):
        raise ValueError(f"task {task.task.name} has too few recordings with events to choose thresholds by: add some")
    weight, decoder = detector.fit(train, train_y, valid, valid_y, encoder.step_s, seed)
    centre, scale = (np.asarray(values, np.float32) for values in (train.centre, train.scale))
    return EventDetector(encoder, torch.as_tensor(weight), centre, scale, decoder, classes, detector.max_gap_s, about)


def _active(
    task: EventTask, steps: TimeSteps, centres_s: Float64[np.ndarray, " time"], step_s: float
) -> Sequence[Bool[np.ndarray, "_ class"]]:
    """Which classes are active in the time steps of each recording."""
    return [
        activity(events, task.task.classes, centres_s[:length], step_s)
        for events, length in zip(task.events, steps.length, strict=True)
    ]
