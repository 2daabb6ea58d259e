"""Commands that make data: prepare and demo."""

import os
from collections.abc import Sequence
from pathlib import Path

from tyro.conf import Positional

from melmask.data.prepare import prepare as prepare_store
from melmask.data.store import Store
from melmask.evaluate.evaluation import task_store_folder
from melmask.logmel import LogMelSpec
from melmask.terminal import bar, console, rejections_table

DEFAULT_SPEC = LogMelSpec()
NUM_CORES = os.cpu_count() or 1


def prepare(sources: Positional[tuple[Path, ...]], out: Path, workers: int = NUM_CORES) -> None:
    """Turn folders of recordings or CSV manifests (path[,label,fold,group]) into a packed store of log-mels.

    Args:
        sources: folders, searched recursively, and CSV manifests.
        out: the store's folder; an interrupted one is completed, a finished one is left as it is.
        workers: processes that decode.
    """
    store = prepare_shown(sources, out, workers)
    frames = {(stored.shard, stored.start_frame): stored.num_frames for stored in store.clips}
    console.print(
        f"[bold]{out}[/]: {len(store.clips):,} clips, {sum(frames.values()) / store.spec.frames_per_s / 3600:.2f} h, "
        f"log-mel mean {store.mean:.3f}, standard deviation {store.std:.3f}"
    )


def prepare_shown(sources: Sequence[Path], out: Path, workers: int, spec: LogMelSpec = DEFAULT_SPEC) -> Store:
    """Prepare with a progress bar, and say what was rejected."""
    with bar("preparing") as (progress, task):

        def show(done: int, total: int, audio_s: float, num_rejected: int) -> None:
            rejected = f", [red]{num_rejected} rejected[/]" if num_rejected else ""
            progress.update(task, completed=done, total=total, note=f"{audio_s / 3600:.2f} h of audio{rejected}")

        store = prepare_store(sources, out, spec=spec, num_workers=workers, progress=show)
    if store.rejected:
        console.print(rejections_table(store, out / "rejected.csv"))
    return store


def prepare_task(table: Path, spec: LogMelSpec, workers: int) -> Store:
    """A task's recordings, prepared where they are kept for the next time."""
    return prepare_shown([table], task_store_folder(table, spec), workers, spec)


def demo(out: Path, seed: int = 0) -> None:
    """Make the built-in corpus: sampled instruments and synthesised speech, with labels.

    Args:
        out: the folder for recordings and manifests.
        seed: of all variation.
    """
    from melmask.data.sets.demo import make_demo

    with bar("making the built-in corpus") as (progress, task):

        def show(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        manifests = make_demo(out, seed=seed, progress=show)
    for manifest in manifests:
        console.print(f"[bold]{manifest}[/]")
