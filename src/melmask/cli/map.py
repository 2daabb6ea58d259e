"""The command map: a picture of a collection in which a click plays the sound."""

from pathlib import Path
from typing import Annotated

from rich.markup import escape
from tyro.conf import Positional, arg

from melmask.cli.console import answer, console, noted_bar, print_next, print_path
from melmask.cli.embed import encoder_and_recordings
from melmask.cli.options import EncoderAndSources, Workers

Page = Annotated[Path, arg(metavar="FILE")]


def map(sources: Positional[EncoderAndSources], out: Page = Path("map.html"), workers: Workers = None) -> None:
    """Draw a map of a collection, in which a click plays the sound.

    Example: melmask map recordings --out map.html

    An index of `melmask index` is taken too: then points are its windows.

    Args:
        out: the page, which holds its sounds and needs no other file.
    """
    from melmask.cli import steps
    from melmask.collection.index import DESCRIPTION, Index
    from melmask.collection.parts import embedded
    from melmask.data.manifest import Rejected
    from melmask.encoders.embeddings import Embeddings
    from melmask.encoders.registry import as_encoder
    from melmask.report.map import write_map

    rejected: list[Rejected] = []
    if len(sources) == 1 and (Path(sources[0]) / DESCRIPTION).exists():
        source, embeddings = Path(sources[0]), Index(Path(sources[0])).embeddings()
    else:
        encoder, recordings = encoder_and_recordings(sources, "map")
        source, made = Path(recordings[0]), as_encoder(encoder)
        with noted_bar("embedding") as show:
            clips, vectors, rejected = embedded(made, recordings, workers, show)
        embeddings = Embeddings(vectors, clips, made.name)
    write_map(embeddings, source, out)
    if rejected:
        console.print(steps.rejections_table(rejected))
    print_path(out, after=escape(f": a map of {len(embeddings.clips):,} sounds"))
    answer.update(sounds=len(embeddings.clips), rejected=len(rejected))
    print_next("python", "-m", "webbrowser", out)
    steps.exit_if_left_out([rejected])
