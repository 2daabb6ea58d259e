"""A probe of the encoder as it is being trained, on a small labelled table."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from melmask.encoders.registry import of_file
from melmask.evaluation.metrics import score_of
from melmask.evaluation.prepared import prepare_task, task_in_store
from melmask.evaluation.splits import splits_of
from melmask.evaluation.task import read_task
from melmask.nn.encoder_file import EncoderFile
from melmask.probes.knn import KnnProbe
from melmask.probes.run import LabelledFeatures, fit_for_use
from melmask.train.callbacks import Callback, Started

EVERY = 500


class OnlineProbe(Callback):
    """k nearest neighbours on a labelled table, every so many steps: whether the encoder learns what it is wanted for.

    The neighbours are the training clips of the table's first split, and the clips that are scored its validation
    clips; test clips are not touched, so that a run can be chosen by the score. It is measured with the first entry of
    the log, with the first from each multiple of ``every`` on, and with the last.

    Args:
        table: a CSV with path,label[,fold][,group].
        every: optimiser steps from one measurement to the next.
        num_workers: processes that decode the recordings, before the first step; None: as of `melmask.prepare`.

    Raises:
        ValueError: the table is no task, or ``every`` is not positive.
    """

    def __init__(self, table: str | Path, every: int = EVERY, *, num_workers: int | None = None) -> None:
        if every < 1:
            raise ValueError(f"an online probe every {every} steps: give 1 or more")
        self.table, self.every, self.num_workers = Path(table), every, num_workers
        self.name = f"knn {read_task(self.table).name}"

    def on_start(self, started: Started) -> None:
        """Prepare the recordings, which the cache then keeps."""
        self.store = prepare_task(self.table, started.store.spec, num_workers=self.num_workers)
        self.task = task_in_store(self.table, self.store, allow_duplicates=True)
        self.split = splits_of(self.task)[0]
        self.num_steps, self.due = started.num_steps, started.first_step + 1

    def measure(self, step: int, encoder: Callable[[], EncoderFile]) -> Mapping[str, float]:
        """The score of the validation clips, where it is due."""
        if step < self.due and step < self.num_steps:
            return {}
        self.due = (step // self.every + 1) * self.every
        return {f"{self.name} {self.task.metric}": self.score(encoder())}

    def score(self, saved: EncoderFile) -> float:
        """Accuracy or mAP of the validation clips by their nearest training clips."""
        own = of_file(saved)
        train, valid = self.split.train, self.split.valid
        features = own.embed_store(self.store, [*train.tolist(), *valid.tolist()])
        flags = self.task.flags[np.concatenate([train, valid])]
        data = LabelledFeatures(features, flags, self.task.classes, self.task.is_multilabel)
        probe, known = KnnProbe(), np.arange(len(train))
        fitted = fit_for_use(probe, data, known, known[:0], score=score_of)
        scores = fitted.predict(probe, features[len(train) :], self.task.is_multilabel)
        return score_of(self.task.targets[valid], scores)
