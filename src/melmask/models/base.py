"""What every trained model is: an encoder, classes, what is known of its quality; and what it finds in a recording."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np

from melmask.audio import Energy, Noted, decode
from melmask.data.notes import unseen_note
from melmask.encoders.base import AudioEncoder
from melmask.models.windows import Windows

T = TypeVar("T")
Row = Sequence[str | float | bool]


class Region(NamedTuple):
    """A stretch of a recording with a label, as a label track has it; times in seconds, the score in 0..1."""

    start_s: float
    end_s: float
    label: str
    score: float


@runtime_checkable
class Prediction(Protocol):
    """What a model found in one recording."""

    @property
    def path(self) -> Path:
        """The recording."""
        ...

    def rows(self) -> Iterator[Row]:
        """Lines of a table, in the columns that `Model.columns` names."""
        ...

    def regions(self) -> Iterator[Region]:
        """The labelled stretches, in the order of their starts."""
        ...


@dataclass(frozen=True)
class PredictSettings:
    """How recordings are read, and what is written of each.

    Args:
        windows: None for those of the model: whole recordings, or windows of the length of the clips that it was
            trained on where that is fixed.
        top_k: write only so many classes of each window, the most likely first; 0 for the probabilities of all.
        accuracy: abstain below the confidence from which on held-out clips were right so often; None: never abstain.
    """

    windows: Windows | None = None
    top_k: int = 0
    accuracy: float | None = None

    def __post_init__(self) -> None:
        if self.top_k < 0:
            raise ValueError(f"top_k is a number of classes, or 0 for all, got {self.top_k}")


DEFAULT_SETTINGS = PredictSettings()


@dataclass(frozen=True)
class About:
    """Where a model comes from, and how good it was when it was tested.

    Args:
        task: name of the labelled table.
        probe: what predicts, as tables call it.
        metric: what the score is.
        score, low, high: on test clips, with its 95 % interval; of models that were trained without these clips.
        num_clips: labelled clips that the model itself was trained on.
        version: of melmask.
        command: that made it.
    """

    task: str
    probe: str
    metric: str
    score: float
    low: float
    high: float
    num_clips: int
    version: str = ""
    command: str = ""

    def __str__(self) -> str:
        tested = f"{self.metric} {100 * self.score:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"
        return f"{self.probe} for {self.task}: {tested}, trained on {self.num_clips:,} recordings"


@runtime_checkable
class Model(Protocol):
    """A trained model; `melmask.models.file.load_model` reads one."""

    @property
    def encoder(self) -> AudioEncoder:
        """Whose features it reads."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        ...

    @property
    def about(self) -> About | None:
        """Where it comes from, if that is known."""
        ...

    def check(self, settings: PredictSettings) -> None:
        """Raise ValueError if the settings are not for this kind of model, before anything is read."""
        ...

    def columns(self, settings: PredictSettings) -> Mapping[str, type]:
        """The names of a table's columns, and the types of their cells: str, float or bool."""
        ...

    def predict(self, path: Path, settings: PredictSettings, noted: Noted) -> Prediction:
        """What it finds in one recording.

        Args:
            path: the recording.
            settings: how it is read.
            noted: called with what is found about the file, where it is used all the same.

        Raises:
            AudioError: the recording cannot be used.
        """
        ...

    def as_tensors(self) -> tuple[dict[str, Any], dict[str, str]]:
        """The tensors and the entries that its file holds beside the encoder."""
        ...


def decode_noted(path: Path, encoder: AudioEncoder, use: Callable[[Iterator[np.ndarray]], T], noted: Noted) -> T:
    """What ``use`` makes of a recording's blocks at the encoder's rate; what its front end cannot see is noted.

    Raises:
        AudioError: the recording cannot be used.
    """
    spec = encoder.spec
    if spec is None:
        return decode(path, encoder.sample_rate_hz, use, noted)
    energy = Energy(spec.fmin_hz, spec.fmax_hz, spec.sample_rate_hz)
    found = decode(path, encoder.sample_rate_hz, use, noted, energy)
    unseen = unseen_note(spec, energy)
    if unseen:
        noted(unseen)
    return found


def decimals(value: float | np.floating[Any]) -> float:
    """A time or a probability as tables have it: a millionth is below any that means something.

    >>> decimals(1 / 3)
    0.333333
    """
    return round(float(value), 6)
