"""What may be judged, and how the command line names it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from melmask.data.store import Store
from melmask.evaluate.embed import DEFAULT_SETTINGS, FrozenEncoder
from melmask.evaluate.features import FeatureSettings
from melmask.evaluate.floors import LogMelStatistics
from melmask.evaluate.peers import from_hear, from_huggingface, from_onnx
from melmask.logmel import LogMelSpec
from melmask.train.checkpoint import FrontEnd
from melmask.vit import SIZES, Encoder

LOGMEL_STATS, UNTRAINED = "logmel-stats", "untrained"
FORMS = f"a run's folder, an encoder file, {LOGMEL_STATS}, {UNTRAINED}:SIZE, onnx:FILE, hear:MODULE or hf:FOLDER"
AUDIOSET_MEAN, AUDIOSET_STD = -7.1, 4.2  # of log-mels; what an encoder that was never trained is given
UNTRAINED_PATCH_SHAPE, UNTRAINED_CROP_FRAMES = (16, 16), 608  # the papers' forms


@runtime_checkable
class AudioEncoder(Protocol):
    """Anything that turns the recordings of a store into one vector each.

    The vector of a recording depends on that recording alone, never on the others embedded with it.
    """

    @property
    def name(self) -> str:
        """What tables call it."""
        ...

    @property
    def identity(self) -> str:
        """A hash of weights and settings: encoders of one identity give the same vectors. Empty: never cache."""
        ...

    @property
    def spec(self) -> LogMelSpec | None:
        """The log-mel settings that the store must be made with; None if it works from files, or with any."""
        ...

    def embed(
        self,
        store: Store,
        rows: Sequence[int] | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Float32[np.ndarray, "clip dim"]:
        """One vector for each of the store's clips, or for those in ``rows``, in their order."""
        ...


def make_encoder(spec: str, settings: FeatureSettings = DEFAULT_SETTINGS) -> AudioEncoder:
    """The encoder that a word on the command line names.

    Args:
        spec: a run's folder or an encoder file; ``logmel-stats``; ``untrained:SIZE``; ``onnx:FILE[@RATE]``;
            ``hear:MODULE[@WEIGHTS]``; ``hf:FOLDER``. docs/peers.md says what each must hold.
        settings: which features of a melmask encoder count; the others have features of their own.

    Raises:
        ValueError: no such encoder, or it is damaged or does not keep its contract.
        ImportError: the library that it needs is not installed.
    """
    kind, _, rest = spec.partition(":")
    if spec == LOGMEL_STATS:
        return LogMelStatistics()
    if kind == UNTRAINED:
        return _untrained(rest, settings)
    if kind == "onnx":
        return from_onnx(rest)
    if kind == "hear":
        return from_hear(rest)
    if kind == "hf":
        return from_huggingface(Path(rest))
    if not Path(spec).exists():
        raise ValueError(f"no encoder {spec!r}: give {FORMS}")
    return FrozenEncoder.load(Path(spec), settings)


def _untrained(size: str, settings: FeatureSettings) -> FrozenEncoder:
    """An encoder of the default form with random weights."""
    if size not in SIZES:
        raise ValueError(f"no size {size!r} in {UNTRAINED}:{size}: choose from {', '.join(SIZES)}")
    front_end = FrontEnd(LogMelSpec(), AUDIOSET_MEAN, AUDIOSET_STD)
    form = Encoder(SIZES[size], UNTRAINED_PATCH_SHAPE)
    return FrozenEncoder(form, front_end, UNTRAINED_CROP_FRAMES, settings, size).untrained(seed=0)
