"""The studies that come with melmask, by name: smoke, small, ablations and paper."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from melmask.evaluation.evar import EVAR_TASKS
from melmask.study.study import Study, StudyTask, grid
from melmask.train.paper import COMPARED, DELAYED, VARIANTS, named_recipe
from melmask.train.recipe import RECIPES, Recipe

ALL_HINTS = {"hint_strategies": "all"}  # the same hints for all, also for a strategy without a guide

ARMS: dict[str, Mapping[str, Any]] = {
    "random": {},
    "ibm": {"strategy": "ibm", **DELAYED},
    "ibm-cover": {"strategy": "ibm", "strategy_options": {"blocks": "cover"}, **DELAYED},
    "sgim": {"strategy": "sgim"},
    "dwm": {"strategy": "dwm"},
    "freq_profile": {"strategy": "freq_profile", **ALL_HINTS},
    "dwm_inverse": {"strategy": "dwm_inverse"},
    "dwm_band": {"strategy": "dwm_band"},
}
MATCHED = 0.2  # λ throughout: about the mean of dwm's own schedule at a mask ratio of .75


def matched(guidance: float) -> dict[str, Mapping[str, Any]]:
    """Strategies that differ in where they mask and not in how much: λ is the same throughout the run.

    Args:
        guidance: λ in [0, 1].
    """
    names = ("ibm", "sgim", "dwm", "freq_profile", "dwm_inverse")
    points = ((0.0, guidance), (1.0, guidance))
    return {f"{name}-guidance-{guidance:g}": {"strategy": name, "guidance": points, **ALL_HINTS} for name in names}


ABLATIONS: dict[str, Mapping[str, Any]] = {
    "random": {},
    "dwm": {"strategy": "dwm"},
    **{
        f"dwm-{name}": {"strategy": "dwm", **variant.changes}
        for name, variant in VARIANTS.items()
        if name not in ("mad", "k2")  # which dwm has
    },
    **matched(MATCHED),
}

# Few steps of the recipes that two cores train in minutes, the same number for all, at the rate of random masking.
# M2D's target follows faster than that of tiny-m2d, which these steps teach nothing (LOG.md).
_SHORT: dict[str, Any] = {"steps": 750, "batch_size": 32, "accumulate": 1, "whitening_crops": 0, "save_every": 200}
SHORT: dict[str, Recipe] = {
    "msm-mae": dataclasses.replace(RECIPES["tiny-msm-mae"], decoder_depth=2, mixed_share=0.0, **_SHORT),  # as it was
    "m2d": dataclasses.replace(RECIPES["quick-m2d"], **_SHORT),
}
MICRO: dict[str, Recipe] = {"msm-mae": RECIPES["micro-msm-mae"], "m2d": RECIPES["micro-m2d"]}

SMALL = Study(
    name="small",
    question="Which masking strategy learns the best representations at the same number of steps, and of what sounds?",
    cells=grid(SHORT, ARMS),
    sources=("open/open.csv", "audio/arabic_keywords20.csv", "audio/esc50.csv"),
    exclude=("arabic_keywords20:val", "arabic_keywords20:test", "esc50:4", "esc50:5"),
    tasks=(
        StudyTask("audio/esc50.csv", ("4", "5"), "events"),
        StudyTask("audio/fsdd_digits10.csv"),
        StudyTask("audio/ravdess_emotion8.csv"),
        StudyTask("audio/philharmonia_instrument12.csv"),
        StudyTask("audio/philharmonia_chroma12.csv"),
        StudyTask("audio/arabic_keywords20.csv", ("test",)),
    ),
    budget_s=900.0,
)
STUDIES: dict[str, Study] = {
    "smoke": Study(
        name="smoke",
        question="Does a whole study run here, from recordings to its report?",
        cells=grid(MICRO, {name: ARMS[name] for name in ("random", "ibm", "sgim", "dwm")}),
        sources=("instruments.csv", "speech_other.csv"),
        exclude=("instruments:1",),
        tasks=(StudyTask("instruments.csv", ("1",), "events"), StudyTask("words.csv")),
        seeds=(0, 1),
    ),
    "small": SMALL,
    "ablations": dataclasses.replace(
        SMALL,
        name="ablations",
        question="Which part of dispersion-weighted masking matters: its weights, its schedule, or how much it guides?",
        cells=grid({"msm-mae": SHORT["msm-mae"]}, ABLATIONS),
    ),
    "paper": Study(
        name="paper",
        question="Does dispersion-weighted masking learn better representations than random masking, IBM and SGIM?",
        cells=grid(
            {name: named_recipe(f"paper-{name}", "random") for name in ("msm-mae", "m2d")},
            {name: {"strategy": name, **ARMS[name]} for name in COMPARED},
        ),
        sources=("audioset.csv",),
        tasks=tuple(
            StudyTask(f"tasks/{name}.csv", kind="events" if name in ("esc50", "urbansound8k") else "other")
            for name in EVAR_TASKS
        ),
        probes=("linear:learning_rate=3e-05,ties_are_better=True",),
        protocol="evar",
    ),
}
