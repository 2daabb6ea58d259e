"""The command search: the windows of an index that are most similar to a recording."""

from dataclasses import astuple

from rich.table import Table
from tyro.conf import Positional

from melmask.cli.console import answer, console, named, print_notes, print_path
from melmask.cli.options import File, Folder, OptionalEncoder, OptionalFile


def search(
    index: Positional[Folder],
    query: Positional[File],
    num: int = 10,
    encoder: OptionalEncoder = None,
    out: OptionalFile = None,
) -> None:
    """Find the windows of a collection most similar to a recording.

    Example: melmask search collection.index query.wav

    The query is divided into windows as the index is; each window of the index counts by the most similar of them.

    Args:
        index: a folder of `melmask index`.
        query: a recording.
        num: how many windows to find.
        encoder: the index's, where it lies elsewhere now.
        out: a CSV to write as well.
    """
    from melmask.collection.index import Index, nearest_windows
    from melmask.collection.novelty import write_csv
    from melmask.encoders.registry import as_encoder

    opened = Index(index)
    made = as_encoder(encoder or opened.info["encoder"])
    hits, remark = nearest_windows(opened, made, query, num)
    table = Table(title=f"nearest of {len(opened):,} windows", title_justify="left")
    table.add_column("recording", overflow="fold")
    for column in ("start", "end", "similarity"):
        table.add_column(column, justify="right", no_wrap=True)
    for hit in hits:
        table.add_row(named(hit.path), f"{hit.start_s:.2f} s", f"{hit.end_s:.2f} s", f"{hit.similarity:.3f}")
    console.print(table)
    print_notes([remark] if remark else [])
    if out:
        write_csv(out, ("path", "start_s", "end_s", "similarity"), (astuple(hit) for hit in hits))
        print_path(out)
    answer.update(windows=len(opened), hits=hits)
