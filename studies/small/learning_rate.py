"""The learning rates of the study "small", settled on random masking alone.

Judged by clips that the study neither tests on nor trains on with their labels: fold 3 of ESC-50 after training the
probe on folds 1 and 2, and the validation speakers of the Arabic keywords after training it on their training speakers.
They stand in two tables, ``esc50.csv`` and ``arabic_keywords20.csv``, next to ``store``, the recordings of "small":

    melmask study run studies/small/learning_rate.py --data FOLDER --out out/learning-rate --jobs 2
"""

import dataclasses

from melmask.study.shipped import SHORT, SMALL
from melmask.study.study import Cell, Study, StudyTask
from melmask.train.recipe import RECIPES

# M2D as in tiny-m2d: what m2d.py found came after.
FIRST = {"framework_options": RECIPES["tiny-m2d"].framework_options, "optimiser": RECIPES["tiny-m2d"].optimiser}
BASES = {"msm-mae": SHORT["msm-mae"], "m2d": dataclasses.replace(SHORT["m2d"], **FIRST)}
RATES = {"msm-mae": (5e-4, 1e-3, 2e-3), "m2d": (1.25e-4, 2.5e-4, 5e-4, 1e-3)}

study = Study(
    name="learning-rate",
    question="Which learning rate suits random masking?",
    cells=tuple(
        Cell(framework, f"{rate:g}", dataclasses.replace(BASES[framework], learning_rate=rate))
        for framework, rates in RATES.items()
        for rate in rates
    ),
    baseline="0.0005",
    sources=("store",),
    exclude=SMALL.exclude,
    tasks=(StudyTask("esc50.csv", ("test",), "events"), StudyTask("arabic_keywords20.csv", ("test",))),
    seeds=(0,),
)
