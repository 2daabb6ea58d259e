"""The pilot of the study "small": random and dwm of MSM-MAE, with three seeds, from which `melmask study power` tells
what the study can see. Its runs are runs of "small" too, so they share its folder:

    melmask study run studies/small/pilot.py --data ../shared --out out/small --jobs 2
    melmask study power studies/small/pilot.py --out out/small --cells 16 --max-tasks 6
"""

import dataclasses

from melmask.study.shipped import SMALL

study = dataclasses.replace(
    SMALL,
    name="pilot",
    question="How much do differences vary over seeds, clips and tasks?",
    cells=tuple(cell for cell in SMALL.cells if cell.group == "msm-mae" and cell.arm in ("random", "dwm")),
)
