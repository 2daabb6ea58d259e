"""What each number of a recipe may be: beyond these, a run could not start, or would exhaust the machine."""

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

# From and to, both allowed; a setting that may be None has no range then.
Ranges = Mapping[str, tuple[int, int] | tuple[float, float]]
LARGEST_SEED = 2**63 - 1
MAX_NUM_SEEDS = 1000  # trainings of one probe or encoder
COUNTS: Ranges = {
    "batch_size": (1, 2**20),
    "accumulate": (1, 2**20),
    "muon_iterations": (1, 100),
    "crop_frames": (1, 10**6),
    "log_every": (1, 10**9),
    "save_every": (1, 10**9),
    "keep_every": (0, 10**9),
    "steps": (0, 10**9),
    "crops_per_clip": (0, 10**6),
    "whitening_crops": (0, 10**6),
    "decoder_dim": (1, 2**15),
    "decoder_depth": (1, 1000),
    "decoder_heads": (1, 2**10),
    "seed": (0, LARGEST_SEED),
}
NUMBERS: Ranges = {
    "epochs": (0.0, 1e6),
    "learning_rate": (math.ulp(0.0), 1e38),
    "weight_decay": (0.0, 1e3),
    "grad_clip": (math.ulp(0.0), math.inf),
    "hint_power": (0.0, 1e3),
    "exponent_power": (0.0, 1e3),
    "procedural_share": (0.0, 1.0),
    "mixed_share": (0.0, 1.0),
    "stretched_share": (0.0, 1.0),
}


def check_ranges(settings: Any, ranges: Ranges) -> None:
    """Check that numbers are within their ranges.

    Args:
        settings: with an attribute for each name.
        ranges: by name, from and to.

    Raises:
        ValueError: one is not, or is no number, or no whole one where the range has whole ones; it names the setting.

    >>> from types import SimpleNamespace
    >>> check_ranges(SimpleNamespace(batch_size=10**9), {"batch_size": (1, 1000)})
    Traceback (most recent call last):
    ValueError: batch_size must be from 1 to 1,000, got 1000000000
    """
    for name, (low, high) in ranges.items():
        value: Any = getattr(settings, name)
        kind: Any = Integral if isinstance(low, int) else Real
        named = "a whole number" if kind is Integral else "a number"
        if value is not None and not isinstance(value, kind):
            raise ValueError(f"{name} must be {named}, got {value!r}")
        if value is None or low <= value <= high:
            continue
        if low > 0 and (value <= 0 or value != value):
            raise ValueError(f"{name} must be positive, got {value}")
        raise ValueError(f"{name} must be from {low:g} to {high:,.15g}, got {value}")


def check_num_seeds(num_seeds: int) -> None:
    """Raise ValueError if there are no trainings, or more than anybody waits for."""
    if not 1 <= num_seeds <= MAX_NUM_SEEDS:
        raise ValueError(f"{num_seeds} seeds: at least one training is needed, and at most {MAX_NUM_SEEDS:,}")
