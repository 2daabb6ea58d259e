"""What a part of a training step costs."""

import time

import torch


class Timer:
    """The time spent in ``with timer:`` blocks.

    On a GPU it is the GPU's own time between two marks in its queue of work, so that measuring makes nothing wait.

    Args:
        device: where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._spent_s = 0.0
        self._started_s = 0.0
        self._marks: list[torch.cuda.Event] = []

    def __enter__(self) -> None:
        if self._on_gpu:
            self._mark()
        self._started_s = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        if self._on_gpu:
            self._mark()
        self._spent_s += time.perf_counter() - self._started_s

    def take(self) -> float:
        """Seconds spent since the last call."""
        spent_s, self._spent_s = self._spent_s, 0.0
        if self._on_gpu and self._marks:
            self._marks[-1].synchronize()
            pairs = zip(self._marks[::2], self._marks[1::2], strict=True)
            spent_s = sum(start.elapsed_time(end) for start, end in pairs) / 1000
            self._marks.clear()
        return spent_s

    def _mark(self) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._marks.append(event)
