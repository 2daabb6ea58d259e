"""What `embed` takes, files and waveforms, as waveforms of one rate and as the log-mels that a store would keep."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import soxr
from jaxtyping import Float16, Float32
from torch import Tensor

from melmask.audio import SAMPLE_RATES_HZ, Energy, Note, Noted, decode, joined, peak_fault
from melmask.data.notes import summed_up, unseen_note
from melmask.logmel import LogMel, LogMelSpec
from melmask.runtime import one_thread

T = TypeVar("T")
FRAMES_AT_ONCE = 2**22  # of log-mels that `embed` holds: 0.7 GB of 80 bands, 11 h at a hop of 10 ms
Waveform = np.ndarray | Tensor
Audio = str | Path | Waveform | Sequence[str | Path | Waveform]
MAX_CHANNELS = 8  # an array [_, 8] or narrower is taken for [sample, channel] and not for very short clips
IS_NOTED = ContextVar("IS_NOTED", default=False)  # whether the caller says itself what is found about recordings
PCM_STEPS = {"int16": 2.0**-15, "int32": 2.0**-31}  # of integer samples; 24 bits come in the upper bits of an int32


def is_one(audio: Audio) -> bool:
    """Whether audio is a single recording, a path or a waveform [sample], and not several."""
    is_waveform = isinstance(audio, np.ndarray | Tensor) and audio.ndim <= 1 and not _holds_paths(audio)
    return is_waveform or isinstance(audio, str | Path)


def waveforms(
    audio: Audio, sample_rate_hz: int | float | None, wanted_hz: int
) -> Iterator[tuple[str, Float32[np.ndarray, " sample"]]]:
    """Recordings one after the other, as they are asked for.

    What was found about files that are used all the same, such as channels that cancel each other, is warned of at the
    end, in one line for each kind.

    Args:
        audio: a file, a waveform [sample], or several: a list of files and waveforms of any lengths, or an array or
            tensor [clip, sample]. Samples are floats in -1..1, or PCM of type int16 or int32.
        sample_rate_hz: of the waveforms; files have their own.
        wanted_hz: the rate that all are converted to, by soxr.

    Yields:
        What to call the recording in messages, and its waveform.

    Raises:
        AudioError: a file cannot be used, see `read_audio`.
        ValueError: no recordings, a waveform without its rate, or one that is empty, not finite, far outside -1..1, of
            another shape or of another type of numbers; or an array of at most `MAX_CHANNELS` columns, as of
            [sample, channel].
    """
    notes: list[tuple[str, Note]] = []
    for name, decoded in _each(audio, sample_rate_hz):
        noted = partial(_add_note, notes, name)
        yield name, decoded(wanted_hz, joined, noted)
    _warn_of(notes)


def log_mels(
    audio: Audio, sample_rate_hz: int | float | None, spec: LogMelSpec
) -> Iterator[Float16[np.ndarray, "frame mel"]]:
    """The log-mels of recordings, to the bit as `melmask.data.prepare` would store them.

    As of `waveforms`, what was found is warned of, and so are recordings most of whose energy the front end cannot see.

    Args:
        audio, sample_rate_hz: as of `waveforms`.
        spec: the log-mel settings.

    Raises:
        ValueError: see `waveforms`; also samples whose power overflows.
    """
    front_end = _front_end(spec)
    notes: list[tuple[str, Note]] = []

    def frames(pieces: Iterator[np.ndarray]) -> np.ndarray:
        return np.concatenate(list(front_end.for_store(pieces)))

    for name, decoded in _each(audio, sample_rate_hz):
        energy = Energy(spec.fmin_hz, spec.fmax_hz, spec.sample_rate_hz)
        noted = partial(_add_note, notes, name)
        with one_thread():
            log_mel = decoded(spec.sample_rate_hz, frames, noted, energy)
        if not np.isfinite(log_mel).all():
            raise ValueError(f"{name} has samples so large that their power overflows: scale them to -1..1")
        unseen = unseen_note(spec, energy)
        if unseen:
            noted(unseen)
        yield log_mel
    _warn_of(notes)


def grouped(
    clips: Iterable[Float16[np.ndarray, "_ mel"]], at_once: int
) -> Iterator[list[Float16[np.ndarray, "_ mel"]]]:
    """Clips that are pooled together: ``at_once``, and no more frames than fit into memory easily."""
    group: list[np.ndarray] = []
    for clip in clips:
        if group and (len(group) == at_once or sum(map(len, group)) + len(clip) > FRAMES_AT_ONCE):
            yield group
            group = []
        group.append(clip)
    yield group


def as_floats(recording: Waveform, name: str) -> Float32[np.ndarray, " sample"]:
    """A checked waveform of float32 samples.

    Raises:
        ValueError: it is no waveform [sample], is empty, not finite or far outside -1..1, or has integers other than
            int16 or int32.

    >>> as_floats(np.array([16384, -32768], np.int16), "it")
    array([ 0.5, -1. ], dtype=float32)
    """
    if isinstance(recording, Tensor):
        tensor = recording.detach().cpu()
        recording = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if not isinstance(recording, np.ndarray):
        raise ValueError(f"{name} is a {type(recording).__name__}: give files, or waveforms as arrays or tensors")
    if recording.ndim != 1:
        raise ValueError(f"{name} of shape {recording.shape} is no waveform [sample]: average its channels first")
    kind = recording.dtype.name
    if kind not in PCM_STEPS and recording.dtype.kind != "f":
        raise ValueError(
            f"{name} has samples of type {kind}: give floats in -1..1, or PCM of type {' or '.join(PCM_STEPS)}"
        )
    with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, and is refused below
        wave = (recording * np.float32(PCM_STEPS.get(kind, 1.0))).astype(np.float32)
    if not len(wave):
        raise ValueError(f"{name} is empty: leave it out")
    if not np.isfinite(wave).all():
        raise ValueError(f"{name} has NaN or infinite samples: export it again, or leave it out")
    fault = peak_fault(float(np.abs(wave).max()))
    if fault:
        raise ValueError(f"{name} has samples far outside -1 to 1, {fault}")
    return wave


def _each(audio: Audio, sample_rate_hz: int | float | None) -> Iterator[tuple[str, Callable[..., Any]]]:
    """What to call each recording, and a function that takes it through, as `melmask.audio.decode` without its path."""
    _check_not_channels(audio)
    recordings: list[Any] = [audio] if is_one(audio) else list(audio)  # type: ignore[arg-type]
    if not recordings:
        raise ValueError("no recordings to embed: the list is empty")
    for number, recording in enumerate(recordings):
        if isinstance(recording, str | Path):
            yield str(recording), partial(decode, Path(recording))
        else:
            name = "the waveform" if is_one(audio) else f"recording {number}"
            yield name, partial(_resampled, as_floats(recording, name), name, sample_rate_hz)


def _resampled(
    wave: Float32[np.ndarray, " sample"],
    name: str,
    from_hz: int | float | None,
    to_hz: int,
    use: Callable[[Iterator[np.ndarray]], T],
    noted: Noted,
    energy: Energy | None = None,
) -> T:
    """What ``use`` returns of the waveform at the rate ``to_hz``."""
    low, high = SAMPLE_RATES_HZ
    if from_hz is None:
        raise ValueError("a waveform needs its sample rate in Hz, as in embed(waveform, 44100)")
    if not low <= from_hz <= high:
        raise ValueError(f"sample rate of {from_hz} Hz: give one in Hz, from {low} to {high}")
    resampled = wave if from_hz == to_hz else soxr.resample(wave, from_hz, to_hz)
    if not len(resampled):
        raise ValueError(f"{name} is empty: not one sample is left at {to_hz} Hz; leave it out")
    if energy is not None:
        energy.start(round(from_hz))
        if from_hz != to_hz:
            energy.add_before(wave)
        energy.add_after(resampled)
    return use(iter([resampled]))


def _add_note(notes: list[tuple[str, Note]], name: str, note: Note) -> None:
    notes.append((name, note))


@contextmanager
def noted_by_caller() -> Iterator[None]:
    """Within it nothing is warned of, as of windows of a recording about which the same was found as a whole."""
    token = IS_NOTED.set(True)
    try:
        yield
    finally:
        IS_NOTED.reset(token)


def _warn_of(notes: Sequence[tuple[str, Note]]) -> None:
    for line in () if IS_NOTED.get() else summed_up(notes):
        warnings.warn(line, stacklevel=3)


def _check_not_channels(audio: Audio) -> None:
    """Refuse an array [sample, channel], which would be read as thousands of clips of a few samples."""
    if isinstance(audio, np.ndarray | Tensor) and audio.ndim == 2 and 0 < audio.shape[1] <= MAX_CHANNELS:
        raise ValueError(
            f"an array of shape {tuple(audio.shape)} is [clip, sample], with {audio.shape[1]} samples a clip: if its "
            "columns are channels, average channels first"
        )


def _holds_paths(array: Waveform) -> bool:
    return isinstance(array, np.ndarray) and array.dtype.kind in "UO"


@lru_cache(maxsize=8)
def _front_end(spec: LogMelSpec) -> LogMel:
    return LogMel(spec)
