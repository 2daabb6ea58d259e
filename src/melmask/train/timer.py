"""The time that a part of a training step takes."""

import time

import torch


class Timer:
    """Measures the time spent in ``with timer:`` blocks.

    On a GPU that is the time between two CUDA events, so that measuring does not synchronise with it.

    Args:
        device: where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._spent_s = 0.0
        self._started_s = 0.0
        self._events: list[torch.cuda.Event] = []

    def __enter__(self) -> None:
        if self._on_gpu:
            self._record_event()
        self._started_s = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        if self._on_gpu:
            self._record_event()
        self._spent_s += time.perf_counter() - self._started_s

    def take(self) -> float:
        """Seconds spent in the blocks since the last call."""
        spent_s, self._spent_s = self._spent_s, 0.0
        if self._on_gpu and self._events:
            self._events[-1].synchronize()
            pairs = zip(self._events[::2], self._events[1::2], strict=True)
            spent_s = sum(start.elapsed_time(end) for start, end in pairs) / 1000
            self._events.clear()
        return spent_s

    def _record_event(self) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._events.append(event)
