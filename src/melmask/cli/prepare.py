"""The command prepare: recordings to a packed store."""

from tyro.conf import Positional

from melmask.cli.console import print_path
from melmask.cli.options import Folder, FrontEnd, Sources, Workers


def prepare(sources: Positional[Sources], out: Folder, workers: Workers = None, front_end: FrontEnd = ()) -> None:
    """Turn recordings into a packed store of log-mel spectrograms.

    Args:
        out: the store's folder; a store that is already there is completed or brought up to date.
    """
    from melmask.cli.steps import front_end_of, prepare_shown, print_rejections

    store = prepare_shown(sources, out, workers, front_end_of(front_end))
    print_rejections(store)
    frames = {(stored.shard, stored.start_frame): stored.num_frames for stored in store.clips}
    hours = sum(frames.values()) / store.spec.frames_per_s / 3600
    print_path(
        out,
        after=f": {len(store.clips):,} clips, {hours:.2f} h, log-mel mean {store.mean:.3f}, "
        f"standard deviation {store.std:.3f}",
    )
