"""The command embed: embeddings of recordings in a file."""

import shutil
import sys
from pathlib import Path

from rich.markup import escape
from tyro.conf import OmitArgPrefixes, Positional

from melmask.cli.console import answer, console, noted_bar, print_next, print_notes, print_path
from melmask.cli.options import EncoderAndSources, OptionalFile, Workers
from melmask.encoders.features import DEFAULT_SETTINGS, FeatureSettings

PARTS = ".parts"  # added to the name of the output
DEFAULT_ENCODER = "shipped:tiny"  # whatever lies in the current folder
DEFAULT_OUT = Path("embeddings.npz")


def embed(
    sources: Positional[EncoderAndSources],
    out: OptionalFile = None,
    features: OmitArgPrefixes[FeatureSettings] = DEFAULT_SETTINGS,
    clip_s: float = 0.0,
    window_s: float = 0.0,
    hop_s: float = 0.0,
    frames: bool = False,
    workers: Workers = None,
) -> None:
    """Write embeddings of recordings to an .npz or Parquet file.

    Example: melmask embed recordings --out embeddings.npz

    The encoder is tiny, which comes with melmask, unless another is named first.

    The file holds features [clip, dim]; path, label, fold, group, source [clip]; of windows and frames start_s, end_s.

    `melmask report --map FILE` draws a map of it.

    Files that cannot be used are listed beside it, in FILE.rejected.csv. A call that was killed resumes.

    Args:
        out: the file to write, under exactly this name: Parquet if it ends in .parquet, else .npz; without it
            embeddings.npz, which must not exist yet.
        features: of melmask encoders only.
        clip_s: length of each clip in seconds: longer clips are cropped to their middle, shorter ones zero-padded; 0:
            whole clips.
        window_s: an embedding for each window of so many seconds; 0: no windows.
        hop_s: seconds from the start of a window to that of the next; 0: window_s.
        frames: an embedding for each time step of the encoder, in half precision.
    """
    from melmask.cli import steps
    from melmask.collection.output import write_embeddings
    from melmask.collection.parts import embed_in_blocks
    from melmask.collection.sources import found
    from melmask.collection.windows import Division
    from melmask.data.prepare import NothingUsable
    from melmask.data.store import write_notes
    from melmask.encoders.registry import as_encoder

    encoder, recordings = encoder_and_recordings(sources, "embed")
    if out is None and DEFAULT_OUT.exists():
        raise ValueError(f"{DEFAULT_OUT} exists already: name the file to write with --out")
    out = out or DEFAULT_OUT
    if out.is_dir():
        raise ValueError(f"{out} is a folder: name the file to write, such as {out / 'embeddings.npz'}")
    division = Division(clip_s, window_s, hop_s, frames)
    made = as_encoder(encoder, features)
    if frames and not made.has_time_steps:
        raise ValueError(f"{made.name} has no time steps: leave --frames out, or name a melmask encoder")
    console.print(f"encoder: {escape(made.name)}" + (f" ({made.settings})" if made.settings else ""))
    out.parent.mkdir(parents=True, exist_ok=True)
    parts = out.with_name(out.name + PARTS)
    with noted_bar("embedding") as show:
        done = embed_in_blocks(made, found(recordings, sys.stdin), parts, division, num_workers=workers, show=show)
        rejected = [one for block in done for one in block.rejections()]
        notes = [note for block in done for note in block.noted()]
        listed = steps.list_rejected(out, rejected)
        if not any(block.num_rows for block in done):
            shutil.rmtree(parts)
            raise NothingUsable(rejected, listed)
        num_rows, num_dims = write_embeddings(out, done, made.name, division.has_times)
    shutil.rmtree(parts)
    if rejected:
        console.print(steps.rejections_table(rejected))
    if notes:
        noted = out.with_name(f"{out.name}.notes.csv")
        write_notes(noted, notes)
        print_notes(steps.notes_of(notes, str(noted)))
    print_path(out, after=f": {num_rows:,} embeddings of {num_dims} dimensions")
    num_used = sum(len(block.clips) for block in done)
    console.print(escape(steps.accounted(num_used, rejected, listed)), soft_wrap=True)
    answer.update(encoder=made.name, embeddings=num_rows, dimensions=num_dims, rejected=len(rejected))
    print_next("melmask", "report", "--map", out, "--out", "map")
    steps.exit_if_left_out([rejected])


def encoder_and_recordings(sources: tuple[str, ...], command: str) -> tuple[str, tuple[str, ...]]:
    """The encoder, tiny where none is named first, and the recordings.

    Raises:
        ValueError: there are no recordings.
    """
    from melmask.encoders.registry import names_encoder

    encoder, recordings = (sources[0], sources[1:]) if names_encoder(sources[0]) else (DEFAULT_ENCODER, sources)
    if not recordings:
        example = f"melmask {command} {encoder} my.wav"
        raise ValueError(f"{encoder} is an encoder: name recordings behind it, as in {example}")
    return encoder, recordings
