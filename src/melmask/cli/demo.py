"""The command demo: sound that is made here, as recordings with labels or as a store."""

from typing import Annotated, Literal

from tyro.conf import Positional, arg

from melmask.cli.console import counted_bar, print_next, print_path
from melmask.cli.options import Folder, Workers


def demo(
    what: Annotated[Positional[Literal["corpus", "procedural"]], arg(metavar="{corpus,procedural}")] = "corpus",
    *,
    out: Folder,
    seed: int = 0,
    hours: float | None = None,
    clips_per_task: int | None = None,
    workers: Workers = None,
) -> None:
    """Make the built-in corpus, or a store of procedural sound.

    Example: melmask demo --out corpus

    The corpus: instruments and speech, with labels.

    Args:
        what: the corpus as recordings with manifests, or procedural sound as a packed store (`melmask docs
            procedural`).
        out: the folder for recordings and manifests, or the store's.
        seed: of all random choices.
        hours: of procedural sound; 1 if not given.
        clips_per_task: of the corpus: recordings of instruments, of notes and of words each, and half as many of other
            speech; 480 if not given.
    """
    if what == "procedural":
        if clips_per_task is not None:
            raise ValueError("clips per task are of the corpus only: melmask demo --clips-per-task 240 --out FOLDER")
        make_procedural(out, 1.0 if hours is None else hours, seed, workers)
        return
    if hours is not None:
        raise ValueError("hours are of procedural sound only: melmask demo procedural --hours 20 --out STORE")
    from melmask.demo.corpus import NUM_CLIPS, make_demo

    num_clips = NUM_CLIPS if clips_per_task is None else clips_per_task
    with counted_bar("making the built-in corpus") as show:
        manifests = make_demo(out, seed=seed, clips_per_task=num_clips, progress=show)
    for manifest in manifests:
        print_path(manifest)
    print_next("melmask", "prepare", out, "--out", "store")


def make_procedural(out: Folder, hours: float, seed: int, workers: int | None) -> None:
    """Make a store of procedural sound, and say what it holds."""
    from melmask.demo.procedural.store import make_store

    with counted_bar("synthesising") as show:
        store = make_store(out, hours, seed=seed, num_workers=workers, progress=show)
    print_path(
        out,
        after=f": {len(store.clips):,} clips, {store.info['duration_s'] / 3600:.2f} h, log-mel mean {store.mean:.3f}, "
        f"standard deviation {store.std:.3f}",
    )
    print_next("melmask", "pretrain", out, "--out", "run")
