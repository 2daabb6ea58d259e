"""Evaluations with given scores, for tests of what is made of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from melmask.evaluation.metrics import Score
from melmask.evaluation.per_class import Calibration, ClassDetails, Details
from melmask.evaluation.results import Result
from melmask.study.runs import Run
from melmask.train.recipe import RECIPES


def result(features: str, score: float, **changes: Any) -> Result:
    """A line of results.jsonl."""
    values = {
        "task": "chirps", "task_path": "chirps.csv", "probe": "logistic", "features": features, "metric": "accuracy",
        "score": score, "low": score - 0.05, "high": score + 0.05, "num_seeds": 1, "num_clips": 24, "num_classes": 2,
        "num_dims": 160, "rejected": 0, "test_folds": (), "command": "melmask evaluate run", "version": "0.1.0",
    }  # fmt: skip
    return Result(**{**values, **changes})


def run_with(name: str, *lines: Result) -> Run:
    """A run with these evaluations and nothing else."""
    return Run(Path(name), name, RECIPES["micro-m2d"], {}, [], lines, None, "no store")


def details(num_classes: int = 4, several: bool = False) -> Details:
    """Ten test clips a class, some of them taken for the next one."""
    names = tuple(f"class | {i}" for i in range(num_classes))
    wrong = np.arange(num_classes) % 4.0
    confusion = np.diag(10 - wrong) + np.roll(np.diag(wrong), 1, axis=1)
    score = Score(0.75, 0.7, 0.8, 3, 10 * num_classes)
    nothing = Score(float("nan"), float("nan"), float("nan"), 3, 10 * num_classes)
    right = np.linspace(0, 1, 15)
    counts = np.arange(15)
    gaps = np.where(counts > 0, right, np.nan)
    error = Score(0.1, 0.08, 0.13, 3, 10 * num_classes)
    calibration = Calibration(error, 0.02, np.linspace(0, 1, 16), counts, gaps, gaps, gaps - 0.1, gaps + 0.1)
    return Details(
        probe="linear:learning_rate=3e-05",
        task="toy $x$",
        figures={"accuracy": score, "d'": replace(score, value=float("inf"))},
        classes=tuple(ClassDetails(name, 10, score, float("nan"), 0.5, score, nothing) for name in names),
        class_names=names,
        confusion=None if several else confusion,
        calibration=calibration,
        notes=("a note",),
    )
