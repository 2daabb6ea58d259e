"""Processes that make shards: spawned, on one thread each, and ended with their parent.

They do not run the script that started them, as `multiprocessing` would have it, so that it needs no guard
`if __name__ == "__main__":`.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, TypeVar

import torch

AnyShard = TypeVar("AnyShard")
Made = TypeVar("Made")


def in_processes(
    make: Callable[[AnyShard], Made], shards: Sequence[AnyShard], num_workers: int
) -> Iterator[tuple[AnyShard, Made]]:
    """Make shards in other processes, at least one; each as it is done, with what ``make`` returned.

    Args:
        make: called in another process, so that it and the shards must be picklable; not defined in a script.
        shards: at least one, of any kind.
        num_workers: processes, if there are as many shards.

    Raises:
        BrokenProcessPool: a process died.
    """
    # Spawned, because forking a process that has run torch or holds locks can hang.
    with ProcessPoolExecutor(min(num_workers, len(shards)), _Context(), initializer=_start_worker) as pool:
        shard_of = {pool.submit(make, shard): shard for shard in shards}
        try:
            for future in as_completed(shard_of):
                yield shard_of[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)  # waits for shards that are being made, not for all that are queued
            raise


class _Process(SpawnProcess):
    """A process that imports what it is sent, and not the script of its parent."""

    def start(self) -> None:
        with _script_hidden():
            super().start()


class _Context(SpawnContext):
    Process = _Process


_hiding = threading.Lock()


@contextmanager
def _script_hidden() -> Iterator[None]:
    """Take the attributes away by which `multiprocessing` finds the main module that a process is to import."""
    main = vars(sys.modules["__main__"])
    with _hiding:
        found: dict[str, Any] = {name: main.pop(name) for name in ("__spec__", "__file__") if name in main}
        main["__spec__"] = None
        try:
            yield
        finally:
            main.update(found)


def _start_worker() -> None:
    """What a process does first that makes shards: it computes on one thread, and ends with its parent only."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only the parent handles Ctrl-C, so that workers finish their shards
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """End this worker when its parent is gone: a killed parent cannot stop its workers, which would wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
