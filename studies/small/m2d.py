"""An M2D that learns within the steps of the study "small", settled on random masking alone.

The target of `tiny-m2d` follows the online encoder within thousands of steps, and 750 steps teach nothing: on the clips
that settled the learning rates it was no better than the untrained encoder (LOG.md). Tried here, on the same clips as
in learning_rate.py: targets that follow faster, and Muon.

    melmask study run studies/small/m2d.py --data FOLDER --out out/learning-rate --jobs 2
"""

from typing import Any

from melmask.study.shipped import SHORT, SMALL
from melmask.study.study import Study, StudyTask, grid

MUON: dict[str, Any] = {"optimiser": "muon", "learning_rate": 1e-3}


def ema(start: float, end: float) -> dict[str, Any]:
    """The rate at which the target follows, at the first and the last step."""
    return {"framework_options": {"ema_start": start, "ema_end": end, "standardise": "batch"}}


ARMS: dict[str, dict[str, Any]] = {
    "ema-.99": {"optimiser": "adamw", "learning_rate": 5e-4, **ema(0.99, 0.999)},
    "muon-ema-.99": {**MUON, **ema(0.99, 0.999)},
    "muon-ema-.999": {**MUON, **ema(0.999, 0.9999)},
    "muon-ema-.97": {**MUON, **ema(0.97, 0.99)},
}

study = Study(
    name="m2d",
    question="Which M2D learns within 750 steps?",
    cells=grid({"m2d": SHORT["m2d"]}, ARMS),
    baseline="ema-.99",
    sources=("store",),
    exclude=SMALL.exclude,
    tasks=(StudyTask("esc50.csv", ("test",), "events"), StudyTask("arabic_keywords20.csv", ("test",))),
    seeds=(0,),
)
