"""Requests to stop a run: Ctrl-C, SIGTERM, a terminal that closes (SIGHUP), and output that nobody reads any more."""

import errno
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
CLOSED = (errno.EPIPE, errno.EIO)  # of a pipe, of a terminal
# SIGINT, which shells ignore in the background, and SIGTERM always stop; of the others each system has one.
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")


class StopRequests:
    """Whether a stop was requested, for a loop to ask after each step."""

    def __init__(self) -> None:
        self._requested = False

    def __call__(self) -> bool:
        """Whether it was."""
        return self._requested

    def add(self) -> None:
        """Request one."""
        self._requested = True

    def unless_closed(self, report: Callable[[T], None]) -> Callable[[T], None]:
        """A report that requests a stop where its output is closed, as by `melmask pretrain ... | head`."""

        def show(what: T) -> None:
            try:
                report(what)
            except OSError as error:
                if error.errno not in CLOSED and not isinstance(error, BrokenPipeError):
                    raise
                self.add()

        return show


@contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Within the context, Ctrl-C, SIGTERM and SIGHUP only request a stop; a second Ctrl-C raises KeyboardInterrupt.

    A SIGHUP that is ignored, as under nohup, stays so.
    """
    requests = StopRequests()

    def note(number: int, frame: object) -> None:
        requests.add()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    found = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    ignored = [number for number in found[2:] if signal.getsignal(number) == signal.SIG_IGN]
    try:
        before = {number: signal.signal(number, note) for number in found if number not in ignored}
    except ValueError:  # not in the main thread, where signals cannot be handled
        before = {}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
