"""What sounds when in a clip: events of one or several families, each of one note or of many in some order of time.

Everything is drawn on the CPU from one generator a clip, so that a clip is the same whatever is rendered beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from melmask.demo.procedural.families import FAMILIES, NUM_PARAMETERS

MORE_EVENTS = (0.2, 0.5, 0.75, 0.9)  # 1 to 5 events a clip: 20, 30, 25, 15 and 10 %
MAX_NOTES = 40  # of one event
MARGIN_S = 0.25  # by which continuous sound exceeds the clip at both ends
SPREADS = (0.0, 0.02, 0.1, 0.5)  # by how much the random numbers of an event's notes differ


@dataclass(frozen=True)
class Note:
    """One sound of one family.

    Args:
        family: a name in `FAMILIES`.
        onset_s: from the clip's start; may be negative.
        duration_s: its length.
        level: its root mean square.
        u: its parameters, from [0, 1).
    """

    family: str
    onset_s: float
    duration_s: float
    level: float
    u: np.ndarray


Times = tuple[np.ndarray, np.ndarray]  # onsets and durations of notes, in seconds
Order = Callable[[np.random.Generator, float, tuple[float, float]], Times]


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(low * (high / low) ** rng.random())


def _once(rng: np.random.Generator, seconds: float, duration_s: tuple[float, float]) -> Times:
    """One note, that may have begun before the clip."""
    duration = _log_uniform(rng, *duration_s)
    early = 0.3 * duration
    onset = rng.random() * (seconds - 0.1 + early) - early
    return np.array([onset]), np.array([duration])


def _span(rng: np.random.Generator, seconds: float) -> tuple[float, float]:
    """Where repeated notes start and stop: a quarter of the clip or more, which may exceed the clip."""
    length = _log_uniform(rng, 0.25, 1.5) * seconds
    start = rng.random() * (seconds + 0.5 * length) - 0.5 * length
    start = min(max(start, -0.5 * length), 0.8 * seconds)
    return start, start + length


def _regular(rng: np.random.Generator, seconds: float, duration_s: tuple[float, float]) -> Times:
    """Notes in even steps of 60 ms to 1 s, up to 5 % off."""
    start, stop = _span(rng, seconds)
    low, high = duration_s
    period = _log_uniform(rng, max(0.06, 0.8 * low), 1.0)
    onsets = np.arange(start, min(stop, seconds), period)[:MAX_NOTES]
    onsets = onsets + period * (0.05 if rng.random() < 0.5 else 0.0) * (rng.random(len(onsets)) - 0.5)
    duration = _log_uniform(rng, low, max(low, min(high, 1.5 * period)))
    return onsets, np.full(len(onsets), duration)


def _irregular(rng: np.random.Generator, seconds: float, duration_s: tuple[float, float]) -> Times:
    """Notes at random, 1.5 to 25 a second, and of random lengths."""
    start, stop = _span(rng, seconds)
    low, high = duration_s
    rate = _log_uniform(rng, 1.5, min(25.0, max(2.0, 2 / low)))
    onsets = start + rng.exponential(1 / rate, MAX_NOTES).cumsum()
    onsets = onsets[onsets < min(stop, seconds)]
    longest = max(low, min(high, 4 / rate))
    return onsets, low * (longest / low) ** rng.random(len(onsets))


def _continuous(rng: np.random.Generator, seconds: float, duration_s: tuple[float, float]) -> Times:
    """One note throughout the clip."""
    return np.array([-MARGIN_S]), np.array([seconds + 2 * MARGIN_S])


ORDERS: dict[str, Order] = {
    "once": _once,
    "regular": _regular,
    "irregular": _irregular,
    "continuous": _continuous,
}


def score(rng: np.random.Generator, seconds: float, family: str | None = None) -> tuple[str, list[Note]]:
    """The leading family of a clip, and all its notes.

    Args:
        rng: of this clip.
        seconds: its length.
        family: of all events; None draws that of each.
    """
    names = list(FAMILIES)
    leading, notes = "", []
    num_events = 1 + int(np.searchsorted(MORE_EVENTS, rng.random()))
    for event in range(num_events):
        name = family or names[int(len(names) * rng.random())]
        leading = leading or name
        level_db = 0.0 if event == 0 else -20 * rng.random()
        notes += _event(rng, seconds, name, level_db)
    return leading, notes


def _event(rng: np.random.Generator, seconds: float, name: str, level_db: float) -> list[Note]:
    """The notes of one event, with parameters near each other's."""
    family = FAMILIES[name]
    order = family.orders[int(len(family.orders) * rng.random())]
    onsets, durations = ORDERS[order](rng, seconds, family.duration_s)
    is_heard = (onsets + durations > 0) & (onsets < seconds)
    onsets, durations = onsets[is_heard], durations[is_heard]
    pitch_spread, spread = (SPREADS[int(len(SPREADS) * rng.random())] for _ in range(2))
    level_spread_db = 12 * rng.random() ** 2
    base = rng.random(NUM_PARAMETERS)
    moved = rng.random((len(onsets), NUM_PARAMETERS)) - 0.5
    moved[:, 0] *= pitch_spread
    moved[:, 1:] *= spread
    u = np.abs(base + moved)
    u = np.minimum(u, 2 - u).clip(0, 1 - 1e-6)  # reflected at 0 and 1
    levels = 10 ** ((level_db - level_spread_db * rng.random(len(onsets))) / 20)
    return [Note(name, *note) for note in zip(onsets.tolist(), durations.tolist(), levels.tolist(), u, strict=True)]
