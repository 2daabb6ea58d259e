"""What a training calls as it goes: measurements that join its log, and loggers that take it elsewhere."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from melmask.data.store import Store
from melmask.nn.encoder_file import EncoderFile
from melmask.train.recipe import Recipe
from melmask.train.run_folder import LogEntry

T = TypeVar("T")


@dataclass(frozen=True)
class Started:
    """A run as it starts or resumes.

    Args:
        run: its folder.
        recipe: every setting.
        store: the packed data set.
        first_step: optimiser steps done before.
        num_steps: of the whole run.
    """

    run: Path
    recipe: Recipe
    store: Store
    first_step: int
    num_steps: int


class Callback:
    """Subclass it, and define what is needed of these five; all are called in the first process only.

    A callback draws no random numbers from torch's own generator, and so changes nothing of the training. One that
    raises is left out from then on, which is said once; it never stops a run.
    """

    def on_start(self, started: Started) -> None:
        """Before the first step."""

    def on_step(self, step: int) -> None:
        """After every optimiser step, with how many are done: to be quick."""

    def measure(self, step: int, encoder: Callable[[], EncoderFile]) -> Mapping[str, float]:
        """Numbers for the entry of the log that is about to be written, each under a name of its own.

        Args:
            step: optimiser steps done.
            encoder: gives a copy of the encoder as it is now, with its front end.
        """
        return {}

    def on_log(self, entry: LogEntry) -> None:
        """After an entry was written, with what all callbacks have measured."""

    def on_end(self, complete: bool) -> None:
        """After the last step, or where the run was interrupted and saved, or failed."""


def warn(text: str) -> None:
    """Say it as a Python warning."""
    warnings.warn(text, stacklevel=2)


class Callbacks:
    """Several callbacks as one that never fails.

    Args:
        callbacks: in the order in which they are called.
        failed: called with what is to be said of one that fails.
    """

    def __init__(self, callbacks: Sequence[Callback], failed: Callable[[str], None] = warn) -> None:
        self.working, self.failed = list(callbacks), failed

    def on_start(self, started: Started) -> None:
        """See `Callback`."""
        self._each(lambda callback: callback.on_start(started))

    def on_step(self, step: int) -> None:
        """See `Callback`."""
        self._each(lambda callback: callback.on_step(step))

    def measure(self, step: int, encoder: Callable[[], EncoderFile]) -> dict[str, float]:
        """See `Callback`."""
        found = self._each(lambda callback: dict(callback.measure(step, encoder)))
        return {name: float(value) for measured in found for name, value in measured.items()}

    def on_log(self, entry: LogEntry) -> None:
        """See `Callback`."""
        self._each(lambda callback: callback.on_log(entry))

    def on_end(self, complete: bool) -> None:
        """See `Callback`."""
        self._each(lambda callback: callback.on_end(complete))

    def _each(self, call: Callable[[Callback], T]) -> list[T]:
        """What each that works returns."""
        found = []
        for callback in list(self.working):
            try:
                found.append(call(callback))
            except Exception as error:
                self.working.remove(callback)
                self.failed(
                    f"{type(callback).__name__} failed, and is left out from here on; the training goes on: "
                    f"{type(error).__name__}: {error}"
                )
        return found
