"""What can be evaluated: anything that turns recordings into vectors."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from melmask.data.store import Store
from melmask.logmel import LogMelSpec


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

    def embed_store(
        self,
        store: Store,
        rows: Sequence[int] | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Float32[np.ndarray, "clip dim"]:
        """One vector for each of the store's clips, or for those in ``rows``, in their order."""
        ...
