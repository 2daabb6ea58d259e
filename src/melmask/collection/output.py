"""Embeddings that were made block by block -> one .npz or Parquet file, a part in memory at a time."""

import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from melmask.collection.parts import COLUMNS, Done, Part
from melmask.encoders.embeddings import PARQUET
from melmask.escaping import in_parquet
from melmask.files import atomic_write

TIMES = ("start_s", "end_s")


def write_embeddings(out: Path, done: Sequence[Done], encoder: str, has_times: bool) -> tuple[int, int]:
    """Put parts together in one file: Parquet if it is named so, else .npz, with the same names.

    Args:
        out: the file, under exactly this name.
        done: the blocks in their order, with at least one embedding.
        encoder: its name.
        has_times: whether embeddings have a start and an end.

    Returns:
        The number of embeddings, and of dimensions.

    Raises:
        OSError: it cannot be written, as on a full disk.
    """
    num_rows, num_dims = sum(block.num_rows for block in done), max(block.num_dims for block in done)
    times = TIMES if has_times else ()
    write = _write_parquet if out.suffix.lower() in PARQUET else _write_npz
    write(out, done, encoder, times, (num_rows, num_dims))
    return num_rows, num_dims


def _parts(done: Sequence[Done]) -> Iterator[Part]:
    for block in done:
        yield from block.parts()


def _write_npz(out: Path, done: Sequence[Done], encoder: str, times: Sequence[str], shape: tuple[int, int]) -> None:
    first = next(_parts(done))
    columns: dict[str, tuple[Callable[[Part], Any], np.dtype, tuple[int, ...]]] = {
        "features": (lambda part: part.features, first.features.dtype, shape)
    }
    for place, name in enumerate(COLUMNS):
        width = max([1, *(len(str(clip[place] or "")) for block in done for clip in block.clips)])
        columns[name] = (lambda part, name=name: part.column(name), np.dtype(f"<U{width}"), shape[:1])  # type: ignore[misc]
    for name in times:
        columns[name] = (lambda part, name=name: getattr(part, name), np.dtype(np.float64), shape[:1])  # type: ignore[misc]
    with atomic_write(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, (of, dtype, whole) in columns.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": whole}
                np.lib.format.write_array_header_1_0(file, header)
                for part in _parts(done):
                    file.write(np.ascontiguousarray(np.asarray(of(part), dtype)).tobytes())
        with archive.open("encoder.npy", "w") as file:
            np.lib.format.write_array(file, np.array(encoder))


def _write_parquet(out: Path, done: Sequence[Done], encoder: str, times: Sequence[str], shape: tuple[int, int]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = next(_parts(done))
    kind = pa.from_numpy_dtype(first.features.dtype)
    fields = [(name, pa.string()) for name in COLUMNS] + [(name, pa.float64()) for name in times]
    schema = pa.schema([*fields, ("features", pa.list_(kind, shape[1]))], {"encoder": encoder})
    with atomic_write(out) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for part in _parts(done):
            texts = [
                pa.array([in_parquet(text) or None for text in part.column(name)], pa.string()) for name in COLUMNS
            ]
            flat = pa.array(np.ascontiguousarray(part.features).reshape(-1), kind)
            vectors = pa.FixedSizeListArray.from_arrays(flat, shape[1])
            columns = [*texts, *(pa.array(getattr(part, name)) for name in times), vectors]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=len(part.features))
