"""The learning rate over a run."""

import math


def learning_rate(step: int, num_steps: int, peak: float, warmup: float) -> float:
    """Linear rise to ``peak`` over the first ``warmup`` share of the run, then a cosine to zero.

    >>> [round(learning_rate(step, 100, 1.0, 0.1), 3) for step in (0, 9, 10, 55, 99)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    warmup_steps = round(num_steps * warmup)
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
