"""The command prepare: recordings to a packed store."""

from pathlib import Path

from tyro.conf import Positional

from melmask.cli.console import console
from melmask.cli.options import NUM_CORES, prepare_shown


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
