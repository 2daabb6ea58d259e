"""A trained model on many recordings, one after the other: what it found in each, or why it could not be used."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from melmask.audio import AudioError, Note, is_out_of_memory
from melmask.collection.sources import found as recordings_in
from melmask.data.manifest import Clip, Rejected
from melmask.models.base import DEFAULT_SETTINGS, Model, Prediction, PredictSettings
from melmask.models.file import load_model
from melmask.models.windows import Windows

Noted = Callable[[Path, Note], None]


def ignore(path: Path, note: Note) -> None:
    """What is found about recordings that are used all the same, and nobody asks for."""


def predict(
    model: Model | str | Path,
    sources: str | Path | Sequence[str | Path],
    *,
    window_s: float = 0.0,
    hop_s: float = 0.0,
    top_k: int = 0,
    accuracy: float | None = None,
) -> tuple[list[Prediction], list[Rejected]]:
    """Apply a trained model to recordings.

    Args:
        model: what `load_model` returns or takes.
        sources: one or several recordings, folders, searched recursively, patterns such as ``day*/**/*.wav``, CSV
            manifests with path, or archives.
        window_s, hop_s: length of windows and of the steps between their starts, in seconds; 0: whole recordings, or
            windows of the length that the model was trained on, and windows side by side.
        top_k: see `PredictSettings`.
        accuracy: abstain below the confidence from which on held-out clips were right so often.

    Returns:
        What was found in each recording that can be used, and the others with the reasons.

    Raises:
        ValueError: a source or a setting is wrong, or there is no such model.
    """
    windows = Windows(window_s, hop_s) if window_s or hop_s else None
    loaded = load_model(model) if isinstance(model, str | Path) else model
    several = [sources] if isinstance(sources, str | Path) else sources
    clips, rejected = listed([str(source) for source in several])
    found: list[Prediction] = []
    for one in predict_clips(loaded, clips, PredictSettings(windows, top_k, accuracy)):
        (rejected if isinstance(one, Rejected) else found).append(one)  # type: ignore[arg-type]
    return found, rejected


def listed(sources: Sequence[str], lines: Iterable[str] = ()) -> tuple[list[Clip], list[Rejected]]:
    """The recordings of all sources, and what lies between them and is none; see `melmask.collection.sources.found`.

    Raises:
        ValueError: a source is wrong, or there are no recordings.
    """
    found = list(recordings_in(sources, lines))
    clips = [one for one in found if isinstance(one, Clip)]
    if not clips:
        raise ValueError("no recordings: none are named, and none are on standard input")
    return clips, [one for one in found if isinstance(one, Rejected)]


def predict_clips(
    model: Model, clips: Sequence[Clip], settings: PredictSettings = DEFAULT_SETTINGS, noted: Noted = ignore
) -> Iterator[Prediction | Rejected]:
    """Apply a model to recordings, each as it is asked for; one that is listed twice is read once.

    Args:
        model: trained.
        clips: the recordings.
        settings: how they are read.
        noted: called with what is found about a recording, where it is used all the same.

    Yields:
        What was found in a recording, or why it could not be used.

    Raises:
        ValueError: the settings are not for this model.
    """
    model.check(settings)
    sources: dict[Path, str] = {}
    for clip in clips:
        sources.setdefault(clip.path, clip.source)
    for path, source in sources.items():
        notes: list[Note] = []
        try:
            prediction = model.predict(path, settings, notes.append)
        except AudioError as error:
            yield Rejected(path, error.reason, error.detail, source)
            continue
        except (ValueError, RuntimeError, OSError, MemoryError) as error:
            yield Rejected(path, *_reason(error), source)
            continue
        for note in notes:
            noted(path, note)
        yield prediction


def _reason(error: Exception) -> tuple[str, str]:
    """Why a recording could not be used, in short, and what to do."""
    if is_out_of_memory(error):
        return "out of memory", "It is too long to be read as a whole. Give the length of windows (--window-s)."
    return "unreadable", f"{type(error).__name__}: {error}. Convert it to WAV or FLAC."
