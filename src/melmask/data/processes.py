"""Processes that make shards: spawned, on one thread each, and ended with their parent."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TypeVar

import torch

AnyShard = TypeVar("AnyShard")
Made = TypeVar("Made")


def in_processes(
    make: Callable[[AnyShard], Made], shards: Sequence[AnyShard], num_workers: int
) -> Iterator[tuple[AnyShard, Made]]:
    """Make shards in other processes, at least one; each as it is done, with what ``make`` returned.

    Args:
        make: called in another process, so that it and the shards must be picklable.
        shards: at least one, of any kind.
        num_workers: processes, if there are as many shards.

    Raises:
        BrokenProcessPool: a process died.
    """
    # Spawned, because forking a process that has run torch or holds locks can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(num_workers, len(shards)), context, initializer=_start_worker) as pool:
        shard_of = {pool.submit(make, shard): shard for shard in shards}
        try:
            for future in as_completed(shard_of):
                yield shard_of[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)  # waits for shards that are being made, not for all that are queued
            raise


def remedy_of_dead_workers() -> str:
    """What to do about worker processes that end as they start: a script without a guard starts itself in each."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    try:
        is_guarded = script is None or "__name__" in Path(script).read_text(encoding="utf-8", errors="replace")
    except OSError:
        is_guarded = True
    if is_guarded:
        return "see the messages above, or decode without them, by --workers 0 (num_workers=0), to see the error"
    return f"call prepare below `if __name__ == '__main__':` in {script}, or with num_workers=0"


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
