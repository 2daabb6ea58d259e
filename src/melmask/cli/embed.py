"""The command embed: embeddings of recordings in a file."""

import tempfile
from pathlib import Path

import numpy as np
from tyro.conf import Positional

from melmask.cli.console import bar, console
from melmask.cli.options import DEFAULT_SPEC, NUM_CORES, prepare_shown
from melmask.encoders.features import FeatureSettings, Layers, Pooling
from melmask.encoders.fixed_length import fixed_length


def embed(
    encoder: Positional[str],
    paths: Positional[tuple[Path, ...]],
    out: Path,
    layers: Layers = "last",
    pooling: Pooling = "mean",
    clip_s: float = 0.0,
    workers: int = NUM_CORES,
) -> None:
    """Write clip embeddings of recordings to an .npz file: features [clip, dim], path, label, fold, group.

    Args:
        encoder: a run's folder, an encoder file, or another encoder that `melmask evaluate` takes.
        paths: folders and CSV manifests.
        out: the file to write.
        layers: of a melmask encoder: last, all, or numbers from 1 on.
        pooling: of a melmask encoder, over time.
        clip_s: length of each clip in seconds: the middle of longer clips; shorter ones zero-padded; 0 for
            whole clips.
        workers: processes that decode.
    """
    from melmask.encoders.registry import make_encoder

    made = make_encoder(encoder, FeatureSettings(layers, pooling))
    with tempfile.TemporaryDirectory(prefix="melmask-") as folder:
        store = prepare_shown(paths, Path(folder) / "store", workers, made.spec or DEFAULT_SPEC)
        with bar("embedding") as (progress, task):
            features = made.embed_store(
                fixed_length(store, clip_s),
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
        clips = [stored.clip for stored in store.clips]
        out.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            out,
            features=features,
            path=np.array([str(clip.path) for clip in clips]),
            label=np.array([clip.label or "" for clip in clips]),
            fold=np.array([clip.fold or "" for clip in clips]),
            group=np.array([clip.group or "" for clip in clips]),
        )
    rejected = f"; {len(store.rejected)} files rejected, see above" if store.rejected else ""
    console.print(f"[bold]{out}[/]: {features.shape[0]:,} embeddings of {features.shape[1]} dimensions{rejected}")
