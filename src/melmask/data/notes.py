"""What is said of recordings that are used: what a front end cannot see of them, and lines that sum notes up."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

from melmask.audio import Energy, Note
from melmask.logmel import LogMelSpec

UNSEEN_NOTE = "unseen by the front end"
LOWER_NOTE, HIGHER_NOTE = "recorded at a far lower rate", "recorded at a far higher rate"
FAR = 4  # a rate so many times as high as the front end's, or as low; 48 kHz at 16 kHz is common
UNSEEN_SHARE = 0.75  # of the energy; less is common: rumble below 50 Hz, and two thirds of hiss at 48 kHz
LOW_RATE = 20  # sample rate for what is below the lowest frequency, in multiples of it
MAX_DOUBLINGS = 10


def unseen_note(spec: LogMelSpec, energy: Energy) -> Note | None:
    """Says how much of a recording's energy the front end cannot see, and a front end that can; None if little.

    Of a recording whose rate is far from the front end's it is said what is lost, whatever its energy.

    Args:
        spec: the front end.
        energy: of the recording, decoded at its rate.
    """
    below, above = energy.shares()
    if below + above < UNSEEN_SHARE:
        return _rate_note(spec, energy.file_rate_hz)
    rate_hz = energy.file_rate_hz
    if below > above:
        rate_hz = min(rate_hz, max(1, round(LOW_RATE * spec.fmin_hz)))
    parts = [f"{share:.1%} {where}" for share, where in ((below, "below"), (above, "above")) if share >= 0.001]
    shares = " and ".join(parts)
    detail = f"its energy is outside of {spec.fmin_hz:g} to {spec.fmax_hz:g} Hz: {shares}; {_remedy(spec, rate_hz)}"
    return Note(UNSEEN_NOTE, detail)


@lru_cache
def _rate_note(spec: LogMelSpec, rate_hz: int) -> Note | None:
    at = f"recorded at {rate_hz:,} Hz, prepared at {spec.sample_rate_hz:,} Hz"
    if rate_hz >= FAR * spec.sample_rate_hz:
        return Note(HIGHER_NOTE, f"{at}: all above {spec.fmax_hz:,g} Hz is lost; {_remedy(spec, rate_hz)}")
    if FAR * rate_hz <= spec.sample_rate_hz:
        return Note(LOWER_NOTE, f"{at}: it has nothing above {rate_hz / 2:,g} Hz; {_remedy(spec, rate_hz)}")
    return None


@lru_cache
def _remedy(spec: LogMelSpec, rate_hz: int) -> str:
    other = seeing(spec, rate_hz)
    if other is None:
        return "no front end of so many bands does"
    before = spec.to_dict()
    settings = [f"{name}={value:g}" for name, value in other.to_dict().items() if value != before[name]]
    return f"this one does: --front-end {' '.join(settings)}"


def seeing(spec: LogMelSpec, rate_hz: int) -> LogMelSpec | None:
    """The front end scaled to another sample rate, with windows long enough for its bands; None if there is none.

    >>> seeing(LogMelSpec(), 250).fmax_hz
    125.0
    """
    fmin_hz = float(f"{spec.fmin_hz * rate_hz / spec.sample_rate_hz:.3g}")
    for doublings in range(MAX_DOUBLINGS):
        n_fft, hop_length = spec.n_fft << doublings, spec.hop_length << doublings
        try:
            return LogMelSpec(rate_hz, n_fft, hop_length, spec.num_mels, fmin_hz, rate_hz / 2)
        except ValueError:
            continue  # bands fall between the bins
    return None


def summed_up(notes: Iterable[tuple[str, Note]], listed: str = "") -> list[str]:
    """One line for every kind of note: of how many recordings it is true, and one of them with its detail.

    Args:
        notes: each with what it is about.
        listed: where all of them are.
    """
    by_kind: dict[str, list[tuple[str, Note]]] = {}
    for about, note in notes:
        by_kind.setdefault(note.kind, []).append((about, note))
    return [_line(kind, group, listed) for kind, group in by_kind.items()]


def _line(kind: str, group: Sequence[tuple[str, Note]], listed: str) -> str:
    about, note = group[0]
    count = f"{len(group):,} recording{'s' if len(group) > 1 else ''}"
    return f"{kind}: {count}, such as {about}: {note.detail}{f'; all in {listed}' if listed else ''}"
