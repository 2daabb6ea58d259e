"""The command embed: embeddings of recordings in a file."""

import tempfile
from pathlib import Path

import numpy as np
from tyro.conf import OmitArgPrefixes, Positional

from melmask.cli.console import console, counted_bar, print_notes, print_path
from melmask.cli.options import Encoder, File, Sources, Workers
from melmask.encoders.features import DEFAULT_SETTINGS, FeatureSettings


def embed(
    encoder: Positional[Encoder],
    sources: Positional[Sources],
    out: File,
    features: OmitArgPrefixes[FeatureSettings] = DEFAULT_SETTINGS,
    clip_s: float = 0.0,
    workers: Workers = None,
) -> None:
    """Write embeddings of recordings to an .npz file.

    The file holds features [clip, dim] and path, label, fold, group [clip].

    Args:
        encoder: a run's folder, an encoder file, or another encoder that `melmask evaluate` takes.
        out: the .npz file to write.
        features: of melmask encoders only.
        clip_s: length of each clip in seconds: longer clips are cropped to their middle, shorter ones zero-padded; 0:
            whole clips.
    """
    from melmask.cli.steps import DEFAULT_SPEC, notes_of, prepare_shown, rejections_table
    from melmask.data.store import write_notes
    from melmask.encoders.fixed_length import fixed_length
    from melmask.encoders.registry import as_encoder

    made = as_encoder(encoder, features)
    with tempfile.TemporaryDirectory(prefix="melmask-") as folder:
        store = prepare_shown(sources, Path(folder) / "store", workers, made.spec or DEFAULT_SPEC)
        if store.rejected:
            console.print(rejections_table(store))
        with counted_bar("embedding") as show:
            vectors = made.embed_store(fixed_length(store, clip_s), progress=show)
        clips, notes = [stored.clip for stored in store.clips], store.notes
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        out,
        features=vectors,
        path=np.array([str(clip.path) for clip in clips]),
        label=np.array([clip.label or "" for clip in clips]),
        fold=np.array([clip.fold or "" for clip in clips]),
        group=np.array([clip.group or "" for clip in clips]),
    )
    if notes:
        listed = out.with_name(f"{out.name}.notes.csv")
        write_notes(listed, notes)
        print_notes(notes_of(notes, str(listed)))
    rejected = f"; files rejected: {len(store.rejected):,}, see above" if store.rejected else ""
    print_path(out, after=f": {vectors.shape[0]:,} embeddings of {vectors.shape[1]} dimensions{rejected}")
