"""The command search: the windows of an index that are most similar to a recording."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from rich.table import Table
from tyro.conf import Positional, arg

from melmask.cli.console import answer, console, named, print_next, print_notes, print_path
from melmask.cli.options import Folder, OptionalEncoder, OptionalFile

COLUMNS = ("path", "start_s", "end_s", "similarity", "query")
Queries = Annotated[tuple[Path, ...], arg(metavar="QUERY [QUERY ...]", help_behavior_hint="(required)")]


def search(
    index: Positional[Folder],
    queries: Positional[Queries],
    num: int = 10,
    encoder: OptionalEncoder = None,
    out: OptionalFile = None,
) -> None:
    """Find the windows of a collection most similar to a recording.

    Example: melmask search collection.index query.wav

    A query is divided into windows as the index is; each window of the index counts by the most similar of them.

    Args:
        index: a folder of `melmask index`.
        queries: recordings, each with an answer of its own.
        num: how many windows to find for each.
        encoder: the index's, where it lies elsewhere now.
        out: a CSV to write as well.
    """
    from melmask.collection.index import Index, nearest_windows
    from melmask.collection.novelty import write_csv
    from melmask.encoders.registry import as_encoder

    if not queries:
        raise ValueError(f"nothing to search for: name a recording, as in melmask search {index} my.wav")
    opened = Index(index)
    made = as_encoder(encoder or opened.info["encoder"], opened.settings)
    found = []
    for query in queries:
        hits, remark = nearest_windows(opened, made, query, num)
        table = Table(title=named(f"{query}: nearest of {len(opened):,} windows"), title_justify="left")
        table.add_column("recording", overflow="fold")
        for column in ("start", "end", "similarity"):
            table.add_column(column, justify="right", no_wrap=True)
        for hit in hits:
            table.add_row(named(hit.path), f"{hit.start_s:.2f} s", f"{hit.end_s:.2f} s", f"{hit.similarity:.3f}")
            found.append(asdict(hit) | {"query": str(query)})
        console.print(table)
        print_notes([remark] if remark else [])
    if out:
        write_csv(out, COLUMNS, ([hit[column] for column in COLUMNS] for hit in found))
        print_path(out)
    answer.update(windows=len(opened), hits=found)
    print_next("melmask", "map", index, "--out", "map.html")
