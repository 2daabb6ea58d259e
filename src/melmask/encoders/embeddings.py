"""The file of embeddings that `melmask embed` writes: a vector a recording, and where each recording is."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from melmask.data.manifest import Clip
from melmask.files import atomic_write

PARQUET = (".parquet", ".pq")
COLUMNS = ("path", "label", "fold", "group", "source")  # of a clip, each an array [clip] of text


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Embeddings of recordings.

    Args:
        features: a vector for each recording.
        clips: the recordings, in the order of the rows.
        start_s: where each embedding's window starts within its recording; None of whole recordings.
        encoder: the name of the encoder; empty in files of earlier versions.
    """

    features: Float32[np.ndarray, "clip dim"]
    clips: Sequence[Clip]
    encoder: str
    start_s: Sequence[float] | None = None

    def save(self, path: Path) -> None:
        """Write them as .npz, under exactly this name: features [clip, dim], the columns of `COLUMNS`, and encoder."""
        arrays: dict[str, Any] = {
            name: np.array([str(getattr(clip, name) or "") for clip in self.clips]) for name in COLUMNS
        }
        # Into an open file, as NumPy would add .npz to another name.
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez(file, features=self.features, encoder=np.array(self.encoder), **arrays)

    @staticmethod
    def load(path: Path) -> "Embeddings":
        """Read what `save` wrote, in this or an earlier version, which has neither source nor encoder.

        Raises:
            ValueError: the file is missing, damaged, or holds no embeddings with their paths.
        """
        if path.suffix.lower() in PARQUET:
            return _of_parquet(path)
        try:
            if not zipfile.is_zipfile(path):  # which np.load would advise to unpickle
                raise ValueError("it is no .npz file, or is cut off")
            with np.load(path, allow_pickle=False) as file:
                columns = {name: file[name].tolist() if name in file else [""] * len(file["path"]) for name in COLUMNS}
                features, encoder = (
                    file["features"].astype(np.float32),
                    str(file.get("encoder", "")),
                )
                start_s = file["start_s"].tolist() if "start_s" in file else None
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} holds no embeddings that `melmask embed --out {path}` wrote: {error}") from error
        if features.ndim != 2 or any(len(column) != len(features) for column in columns.values()):
            raise ValueError(f"{path} has {features.shape} features for {len(columns['path'])} paths: embed again")
        return Embeddings(features, _clips_of(columns), encoder, start_s)


def _of_parquet(path: Path) -> Embeddings:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        columns = {name: [text or "" for text in table[name].to_pylist()] for name in COLUMNS}
        vectors = table["features"].combine_chunks()
        features = np.asarray(vectors.flatten(), np.float32).reshape(len(table), -1)
        start_s = table["start_s"].to_pylist() if "start_s" in table.column_names else None
        encoder = (table.schema.metadata or {}).get(b"encoder", b"").decode()
    except (OSError, ValueError, KeyError, AttributeError, pyarrow.ArrowException) as error:
        raise ValueError(f"{path} holds no embeddings that `melmask embed --out {path}` wrote: {error}") from error
    return Embeddings(features, _clips_of(columns), encoder, start_s)


def _clips_of(columns: Mapping[str, Sequence[str]]) -> list[Clip]:
    return [
        Clip(Path(file), label or None, fold or None, group or None, source)
        for file, label, fold, group, source in zip(*columns.values(), strict=True)
    ]
