"""The command index: windows of a collection with their embeddings, to be searched."""

import sys

from rich.markup import escape
from tyro.conf import OmitArgPrefixes, Positional

from melmask.cli.console import answer, console, noted_bar, print_next, print_path
from melmask.cli.embed import encoder_and_recordings
from melmask.cli.options import EncoderAndSources, Folder, Workers
from melmask.encoders.features import DEFAULT_SETTINGS, FeatureSettings

WINDOW_S = 2.0


def index(
    sources: Positional[EncoderAndSources],
    out: Folder,
    features: OmitArgPrefixes[FeatureSettings] = DEFAULT_SETTINGS,
    window_s: float = 0.0,
    hop_s: float = 0.0,
    workers: Workers = None,
) -> None:
    """Make an index of recordings to search, or add new ones to it.

    Example: melmask index recordings --out collection.index

    A repeated call embeds what is new or has changed, and nothing else.

    Args:
        out: the index's folder.
        features: of melmask encoders only; of an index that is there already its own.
        window_s: length of a window in seconds; 0: that of the index, or 2 of a new one.
        hop_s: seconds from the start of a window to that of the next; 0: window_s.
    """
    from melmask.cli import steps
    from melmask.collection.index import DESCRIPTION, Index, update_index
    from melmask.collection.sources import found
    from melmask.collection.windows import Division
    from melmask.data.store import write_rejected
    from melmask.encoders.registry import as_encoder

    encoder, recordings = encoder_and_recordings(sources, "index")
    is_new = not (out / DESCRIPTION).exists()
    made = as_encoder(encoder, features if is_new or features != DEFAULT_SETTINGS else Index(out).settings)
    division = Division(window_s=window_s or (WINDOW_S if is_new else 0.0), hop_s=hop_s)
    with noted_bar("embedding") as show:
        update = update_index(
            out, made, encoder, found(recordings, sys.stdin), division, num_workers=workers, show=show
        )
    listed = out / "rejected.csv"
    write_rejected(listed, update.rejected)
    if update.rejected:
        console.print(steps.rejections_table(update.rejected))
    num_windows = len(Index(out)) if (out / DESCRIPTION).exists() else 0
    words = f"{update.num_new:,} recordings added, {update.num_kept:,} kept, {update.num_gone:,} gone"
    print_path(out, after=f": {num_windows:,} windows; {words}")
    console.print(escape(steps.accounted(update.num_new + update.num_kept, update.rejected, listed)), soft_wrap=True)
    answer.update(windows=num_windows, added=update.num_new, kept=update.num_kept, gone=update.num_gone)
    print_next("melmask", "search", out, "QUERY.WAV")
    steps.exit_if_left_out([update.rejected])
