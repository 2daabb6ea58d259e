"""How the benchmarks time: all alternatives in turns within one process, so that ratios hold on a drifting machine."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

TURN_S = 0.003  # a quick call is repeated for so long, and the turn's time is the quickest
FEW_TURNS, LONG = 3, 8  # as few turns for slow calls, unless they take as many times the budget

Times = dict[str, list[float]]


def in_turns(calls: Mapping[str, Callable[[], object]], budget_s: float) -> Times:
    """Seconds of every call in each turn; one that has used up its budget sits out from then on."""
    times: Times = {name: [] for name in calls}
    spent_s = dict.fromkeys(calls, 0.0)
    waiting = list(calls)
    while waiting:
        for name in waiting:
            taken = one_turn(calls[name])
            times[name].append(min(taken))
            spent_s[name] += sum(taken)
        waiting = [
            name
            for name in waiting
            if spent_s[name] < budget_s or (len(times[name]) < FEW_TURNS and spent_s[name] < LONG * budget_s)
        ]
    return times


def one_turn(call: Callable[[], object]) -> list[float]:
    """Seconds of a call, again and again until the turn is over."""
    taken: list[float] = []
    while sum(taken) < TURN_S:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return taken


def ratio(over: list[float], under: list[float]) -> float:
    """The median ratio within the turns that both took."""
    return statistics.median(a / b for a, b in zip(over, under, strict=False))


def machine() -> str:
    """The processor, what else kept it busy just before, and the versions that the figures are from."""
    processor, info = platform.machine(), Path("/proc/cpuinfo")
    if info.exists():
        names = (line.split(": ")[1] for line in info.read_text().splitlines() if line.startswith("model name"))
        processor = next(names, processor)
    return (
        f"{processor}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f} at the "
        f"start; torch {torch.__version__}, numpy {np.__version__}"
    )
