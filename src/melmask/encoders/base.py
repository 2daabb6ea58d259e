"""What can be evaluated: anything that turns recordings into vectors."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float16, Float32, Float64

from melmask.data.store import Store
from melmask.encoders.features import FeatureSettings
from melmask.encoders.recordings import Audio
from melmask.encoders.timesteps import TimeSteps
from melmask.logmel import LogMelSpec
from melmask.nn.encoder_file import EncoderFile

Progress = Callable[[int, int], None]
Allocate = Callable[[tuple[int, int]], np.ndarray]

NO_TIME_STEPS = "this encoder gives one vector a clip and no time steps: use embed, or a melmask encoder"


def no_progress(done: int, total: int) -> None:
    """Show nothing."""


def in_memory(shape: tuple[int, int]) -> Float16[np.ndarray, "step dim"]:
    """An array in RAM for the features of time steps."""
    return np.empty(shape, np.float16)


@runtime_checkable
class AudioEncoder(Protocol):
    """Anything that turns recordings into one vector each, and perhaps into one a time step.

    The vector of a recording depends on that recording alone, never on the others embedded with it. `ClipEncoder` has
    the members that are about time steps, settings and training for encoders that have none of these.
    """

    @property
    def name(self) -> str:
        """Its name in tables."""
        ...

    @property
    def identity(self) -> str:
        """A hash of weights and settings: encoders of one identity give the same vectors. Empty: never cache."""
        ...

    @property
    def spec(self) -> LogMelSpec | None:
        """The log-mel settings that the store must be made with; None if it works from files, or with any."""
        ...

    @property
    def sample_rate_hz(self) -> int:
        """The rate that recordings are resampled to."""
        ...

    @property
    def settings(self) -> FeatureSettings | None:
        """The layers and pooling that are read; None if its features are not chosen by these."""
        ...

    @property
    def run(self) -> Path | None:
        """The folder of the run that trained it; None if it comes from elsewhere."""
        ...

    @property
    def step(self) -> int | None:
        """The step of that run whose encoder it is; None for the last one, and if it comes from elsewhere."""
        ...

    @property
    def has_time_steps(self) -> bool:
        """Whether it gives features of time steps too; if not, `embed_frames` and `time_steps` raise ValueError."""
        ...

    @property
    def has_untrained(self) -> bool:
        """Whether `untrained` gives a baseline: of a trained melmask encoder; else it raises ValueError."""
        ...

    @property
    def step_s(self) -> float:
        """From one time step to the next, in seconds; 0 if it has none."""
        ...

    def untrained(self) -> "AudioEncoder":
        """The same form with random weights, which shows what training added."""
        ...

    def as_file(self) -> EncoderFile | None:
        """What a file must hold to make it again; None if only its name can, as of encoders that others made."""
        ...

    def embed(
        self, audio: Audio, sample_rate_hz: int | float | None = None
    ) -> Float32[np.ndarray, "clip dim"] | Float32[np.ndarray, " dim"]:
        """One vector for each recording, or one vector for a single recording.

        Args:
            audio: a file, a waveform [sample], or several: a list of files and waveforms of any lengths, or an array or
                tensor [clip, sample]. A stereo recording is averaged over its channels first: an array of two
                dimensions is always clips. Samples are floats in -1..1, or PCM of type int16 or int32.
            sample_rate_hz: of the waveforms, which are resampled as files are; files have their own.

        Raises:
            ValueError: a file cannot be used, or a waveform comes without its rate, or is empty, not finite or no
                waveform.
        """
        ...

    def embed_frames(
        self, audio: Audio, sample_rate_hz: int | float | None = None
    ) -> tuple[Float32[np.ndarray, "time dim"], Float64[np.ndarray, " time"]]:
        """Features of the time steps of a single recording, and the centre of each step in seconds; see `embed`."""
        ...

    def embed_store(
        self, store: Store, rows: Sequence[int] | None = None, progress: Progress = no_progress
    ) -> Float32[np.ndarray, "clip dim"]:
        """One vector for each of the store's clips, or for those in ``rows``, in their order."""
        ...

    def num_steps(self, num_frames: int) -> int:
        """Time steps of a clip of so many log-mel frames."""
        ...

    def time_steps(
        self,
        store: Store,
        rows: Sequence[int] | None = None,
        progress: Progress = no_progress,
        allocate: Allocate = in_memory,
    ) -> TimeSteps:
        """Features of every time step of a store's clips, or of those in ``rows``, in half precision.

        ``allocate`` makes the float16 array [step, dim] that they are written to.
        """
        ...


class ClipEncoder:
    """What an `AudioEncoder` has if it gives one vector a clip, and no layers, pooling or time steps to choose from.

    A subclass adds name, identity, spec, `embed` and `embed_store`.
    """

    settings: ClassVar[FeatureSettings | None] = None
    run: ClassVar[Path | None] = None
    step: ClassVar[int | None] = None
    has_time_steps: ClassVar[bool] = False
    has_untrained: ClassVar[bool] = False
    step_s: ClassVar[float] = 0.0
    sample_rate_hz: int = LogMelSpec().sample_rate_hz  # unless it says otherwise

    def as_file(self) -> EncoderFile | None:
        """None: it is made by its name."""
        return None

    def untrained(self) -> AudioEncoder:
        """Raises ValueError."""
        raise ValueError("the untrained form of this encoder is not known: name a run, or untrained:SIZE")

    def embed_frames(
        self, audio: Audio, sample_rate_hz: int | float | None = None
    ) -> tuple[Float32[np.ndarray, "time dim"], Float64[np.ndarray, " time"]]:
        """Raises ValueError."""
        raise ValueError(NO_TIME_STEPS)

    def num_steps(self, num_frames: int) -> int:
        """Raises ValueError."""
        raise ValueError(NO_TIME_STEPS)

    def time_steps(
        self,
        store: Store,
        rows: Sequence[int] | None = None,
        progress: Progress = no_progress,
        allocate: Allocate = in_memory,
    ) -> TimeSteps:
        """Raises ValueError."""
        raise ValueError(NO_TIME_STEPS)
