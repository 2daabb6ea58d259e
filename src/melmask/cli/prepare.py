"""The command prepare: recordings to a packed store."""

from rich.markup import escape
from tyro.conf import Positional

from melmask.cli.console import answer, console, print_next, print_notes, print_path
from melmask.cli.options import Folder, FrontEnd, MaxMemory, Sources, Verify, Workers


def prepare(
    sources: Positional[Sources],
    out: Folder,
    workers: Workers = None,
    front_end: FrontEnd = (),
    verify: Verify = "first",
    max_memory: MaxMemory = None,
) -> None:
    """Turn recordings into a packed store of log-mel spectrograms.

    Example: melmask prepare recordings --out store

    Args:
        out: the store's folder; a store that is already there is completed, brought up to date, and what is damaged
            made again.
    """
    from melmask.cli import steps
    from melmask.data.store import NOTES, REJECTED

    store = steps.prepare_shown(sources, out, workers, steps.front_end_of(front_end), verify, max_memory)
    print_notes(steps.notes_of(store.notes, str(out / NOTES)))
    if store.rejected:
        console.print(steps.rejections_table(store.rejected))
    hours = store.info["num_frames"] / store.spec.frames_per_s / 3600
    print_path(
        out,
        after=f": {len(store.clips):,} clips, {hours:.2f} h, log-mel mean {store.mean:.3f}, "
        f"standard deviation {store.std:.3f}",
    )
    console.print(escape(steps.accounted(len(store), store.rejected, out / REJECTED)), soft_wrap=True)
    answer.update(clips=len(store.clips), hours=hours, mean=store.mean, std=store.std, rejected=len(store.rejected))
    print_next("melmask", "pretrain", out, "--out", "run", "--recipe", "quick-msm-mae")
    steps.exit_if_left_out([store.rejected])
