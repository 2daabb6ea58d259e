"""The command embed: embeddings of recordings in a file."""

from pathlib import Path

from rich.markup import escape
from tyro.conf import OmitArgPrefixes, Positional

from melmask.cli.console import answer, console, counted_bar, print_next, print_notes, print_path
from melmask.cli.options import EncoderAndSources, OptionalFile, Workers
from melmask.encoders.features import DEFAULT_SETTINGS, FeatureSettings

LIST = ".rejected.csv"  # added to the name of the output
DEFAULT_ENCODER = "shipped:tiny"  # whatever lies in the current folder
DEFAULT_OUT = Path("embeddings.npz")


def embed(
    sources: Positional[EncoderAndSources],
    out: OptionalFile = None,
    features: OmitArgPrefixes[FeatureSettings] = DEFAULT_SETTINGS,
    clip_s: float = 0.0,
    workers: Workers = None,
) -> None:
    """Write embeddings of recordings to an .npz file.

    Example: melmask embed recordings --out embeddings.npz

    The encoder is tiny, which comes with melmask, unless another is named first.

    The file holds features [clip, dim]; path, label, fold, group, source [clip].

    `melmask report --map FILE` draws a map of it.

    Files that cannot be used are listed beside it, in FILE.rejected.csv.

    Args:
        out: the .npz file to write, under exactly this name; without it embeddings.npz, which must not exist yet.
        features: of melmask encoders only.
        clip_s: length of each clip in seconds: longer clips are cropped to their middle, shorter ones zero-padded; 0:
            whole clips.
    """
    from melmask.cli import steps
    from melmask.data.prepare import NothingUsable
    from melmask.data.store import write_notes, write_rejected
    from melmask.encoders.embeddings import Embeddings
    from melmask.encoders.fixed_length import fixed_length
    from melmask.encoders.registry import as_encoder, names_encoder
    from melmask.locks import temporary_folder

    encoder, recordings = (sources[0], sources[1:]) if names_encoder(sources[0]) else (DEFAULT_ENCODER, sources)
    if not recordings:
        raise ValueError(f"{encoder} is an encoder: name recordings behind it, as in melmask embed {encoder} my.wav")
    if out is None and DEFAULT_OUT.exists():
        raise ValueError(f"{DEFAULT_OUT} exists already: name the file to write with --out")
    out = out or DEFAULT_OUT
    if out.is_dir():
        raise ValueError(f"{out} is a folder: name the file to write, such as {out / 'embeddings.npz'}")
    made = as_encoder(encoder, features)
    console.print(f"encoder: {escape(made.name)}" + (f" ({made.settings})" if made.settings else ""))
    out.parent.mkdir(parents=True, exist_ok=True)
    listed = out.with_name(out.name + LIST)
    with temporary_folder() as folder:
        try:
            paths = [Path(recording) for recording in recordings]
            store = steps.prepare_shown(paths, folder / "store", workers, made.spec or steps.DEFAULT_SPEC)
        except NothingUsable as error:
            write_rejected(listed, error.rejected)
            raise NothingUsable(error.rejected, listed) from error
        listed.unlink(missing_ok=True)  # of an earlier call
        if store.rejected:
            write_rejected(listed, store.rejected)
            console.print(steps.rejections_table(store))
        with counted_bar("embedding") as show:
            vectors = made.embed_store(fixed_length(store, clip_s), progress=show)
        clips, notes = [stored.clip for stored in store.clips], store.notes
    Embeddings(vectors, clips, made.name).save(out)
    if notes:
        noted = out.with_name(f"{out.name}.notes.csv")
        write_notes(noted, notes)
        print_notes(steps.notes_of(notes, str(noted)))
    print_path(out, after=f": {vectors.shape[0]:,} embeddings of {vectors.shape[1]} dimensions")
    console.print(escape(steps.accounted(store, listed)), soft_wrap=True)
    answer.update(
        encoder=made.name, embeddings=vectors.shape[0], dimensions=vectors.shape[1], rejected=len(store.rejected)
    )
    print_next("melmask", "report", "--map", out, "--out", "map")
    steps.exit_if_left_out([store])
