"""Labelled features that tests of probes and of evaluation share."""

from pathlib import Path
from typing import Any

import numpy as np

from melmask.data.manifest import Clip
from melmask.evaluation.metrics import score_of
from melmask.evaluation.task import Task, make_task


def task_of(labels, folds=None, groups=None) -> Task:
    """A task of as many clips as labels."""
    folds, groups = folds or [None] * len(labels), groups or [None] * len(labels)
    rows = zip(labels, folds, groups, strict=True)
    return make_task("toy", [Clip(Path(f"/{i}.wav"), *row, source="toy") for i, row in enumerate(rows)])


def clusters(spread: float, num_clips: int = 240, dim: int = 8, seed: int = 0) -> tuple[np.ndarray, Task]:
    """Three classes around their centres, in three folds and 24 groups."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(3, size=num_clips)
    features = 3 * np.eye(3, dim)[classes] + spread * rng.standard_normal((num_clips, dim))
    groups = np.arange(num_clips) % 24
    task = task_of(["abc"[label] for label in classes], [str(g % 3) for g in groups], [str(g) for g in groups])
    return (100 * features + 1000).astype(np.float32), task


def several_labels(seed: int = 0) -> tuple[np.ndarray, Task]:
    """Each of three labels present or not, each in one direction of the features."""
    rng = np.random.default_rng(seed)
    flags = rng.random((240, 3)) < 0.4
    features = flags @ rng.standard_normal((3, 8)) + 0.1 * rng.standard_normal((240, 8))
    labels = [";".join(label for label, flag in zip("abc", row, strict=True) if flag) for row in flags]
    return features.astype(np.float32), task_of(labels, [str(i % 3) for i in range(240)])


def arrays(spread: float, num_train: int = 160, num_valid: int = 40) -> tuple[tuple[np.ndarray, ...], dict[str, Any]]:
    """Standardised arrays for a probe on its own: train x, y, valid x, y, test x and the keywords."""
    features, task = clusters(spread)
    x = ((features - features.mean(axis=0)) / features.std(axis=0)).astype(np.float32)
    y, valid = task.targets, slice(num_train, num_train + num_valid)
    keywords = {"num_classes": 3, "multilabel": False, "seed": 0, "score": score_of}
    return (x[:num_train], y[:num_train], x[valid], y[valid], x[num_train + num_valid :]), keywords


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are equal, NaN in the same places."""
    return np.array_equal(a, b, equal_nan=True)
