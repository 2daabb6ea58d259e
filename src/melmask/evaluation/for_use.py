"""Splits for models that are used and not tested."""

import numpy as np
from jaxtyping import Int

from melmask.evaluation.labels import roles_of
from melmask.evaluation.splits import Split, draw_parts, draw_valid
from melmask.evaluation.task import Task


def is_official(task: Task) -> bool:
    """Whether its folds are one official split, whose test clips choose nothing, and are not tested in turn."""
    return task.folds is not None and bool(np.any(roles_of(task.folds.tolist())))


def split_for_use(
    task: Task, rows: Int[np.ndarray, " clip"] | None = None, *, name: str = "all", seed: int = 0
) -> Split:
    """Training and validation clips of a model that is used and not tested; a tenth are for validation.

    Groups stay whole, but for those that hold all clips of a class: every class is in the training clips.

    Args:
        task: the task.
        rows: the clips to divide; None for all.
        name: of the split.
        seed: of the validation clips that are drawn.

    Raises:
        ValueError: there are fewer than two clips.
    """
    given = np.arange(len(task.paths)) if rows is None else rows
    train, valid = draw_valid(task, given, np.random.default_rng([seed, 1000]))
    parts = draw_parts(task, given, np.random.default_rng([seed, 1000, 1]))
    alone = task.flags[valid][:, ~task.flags[train].any(axis=0)].any(axis=1)
    if alone.all():
        return Split(name, given, given, np.zeros(0, np.int64))
    train, valid = np.sort(np.concatenate([train, valid[alone]])), valid[~alone]
    return Split(name, train, valid, np.zeros(0, np.int64), parts=parts)
