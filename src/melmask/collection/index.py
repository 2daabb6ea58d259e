"""An index: windows of a collection of recordings with their embeddings, in a folder that can be added to and searched.

The folder holds windows.parquet (path, start_s, end_s, current), vectors.f16 (unit vectors [window, dim] in half
precision, row by row), of many windows with the extra `search` vectors.usearch (a graph of them), and index.json, which
is written last and says of how many windows, and of which encoder, all this is. What a killed call wrote beyond that is
ignored, and written again.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float16, Float32, Int

from melmask.collection.parts import Done, Show, embed_in_blocks, show_nothing
from melmask.collection.sources import state_of
from melmask.collection.windows import Division
from melmask.data.manifest import Clip, Rejected
from melmask.encoders.base import AudioEncoder
from melmask.encoders.embeddings import Embeddings
from melmask.encoders.features import FeatureSettings
from melmask.files import atomic_write, read_json, write_json
from melmask.locks import exclusive, temporary_folder

DESCRIPTION, WINDOWS, VECTORS, GRAPH = "index.json", "windows.parquet", "vectors.f16", "vectors.usearch"
FILES, PARTS, LOCK = "files.json", "parts", "lock"
FIELDS = {"encoder": str, "identity": str, "window_s": float, "hop_s": float, "num_rows": int, "num_dims": int}
EXACT_UP_TO = 20_000  # windows, which are compared one by one in some milliseconds
ROWS_AT_ONCE, MAX_MAPPED = 65_536, 5_000
EXTRA = "pip install 'melmask[search]'"


@dataclass(frozen=True)
class Hit:
    """A window that is similar to a query: its recording, its times in seconds, and the cosine similarity."""

    path: str
    start_s: float
    end_s: float
    similarity: float


class Index:
    """An index that `update_index` wrote, opened for any number of searches.

    Args:
        folder: of the index.

    Raises:
        ValueError: it holds no index, or a damaged one.
    """

    def __init__(self, folder: Path) -> None:
        import pyarrow.parquet as pq

        self.folder = folder
        remedy = "make it with `melmask index`"
        self.info = read_json(folder / DESCRIPTION, "description of an index", FIELDS, remedy)
        num_rows, num_dims = self.info["num_rows"], self.info["num_dims"]
        try:
            self.vectors: Float16[np.ndarray, "row dim"] = np.memmap(
                folder / VECTORS, np.float16, "r", shape=(num_rows, num_dims)
            )
            self.windows = pq.read_table(folder / WINDOWS, read_dictionary=["path"]).slice(0, num_rows)
            if len(self.windows) < num_rows:
                raise ValueError(f"{WINDOWS} has {len(self.windows):,} windows, and {DESCRIPTION} {num_rows:,}")
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder} is a damaged index: {error}; remove it, and {remedy}") from error
        self.is_current = self.windows["current"].to_numpy(zero_copy_only=False)

    def __len__(self) -> int:
        return int(self.is_current.sum())

    @property
    def settings(self) -> FeatureSettings:
        """Layers and pooling of its encoder."""
        stored = self.info.get("features", {})
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in stored.items()}
        return FeatureSettings(**values)

    def embeddings(self) -> Embeddings:
        """The current windows with their vectors, at most `MAX_MAPPED` of them, evenly spaced."""
        rows = np.flatnonzero(self.is_current)
        rows = rows[:: max(1, -(-len(rows) // MAX_MAPPED))]
        table = self.windows.take(rows).to_pydict()
        clips = [Clip(Path(path), None, None, None, self.folder.name) for path in table["path"]]
        return Embeddings(self.vectors[rows].astype(np.float32), clips, self.info["encoder"], table["start_s"])

    def check(self, encoder: AudioEncoder) -> None:
        """Refuse another encoder than the one whose embeddings these are.

        Raises:
            ValueError: its weights or settings are other ones.
        """
        if encoder.identity != self.info["identity"]:
            raise ValueError(
                f"{self.folder} holds embeddings of another encoder, {self.info['encoder']}, than {encoder.name}, or "
                "of other weights or settings of it: name that one, or make another index"
            )

    def search(self, queries: Float32[np.ndarray, "query dim"], num_hits: int) -> tuple[list[Hit], str]:
        """The windows that are most similar to any of the queries, the most similar one first.

        Returns:
            The hits; and a remark on how they were found, empty if there is nothing to say.

        Raises:
            ValueError: queries are of another length.
        """
        if queries.shape[1] != self.vectors.shape[1]:
            raise ValueError(f"queries of {queries.shape[1]} dimensions; {self.folder} has {self.vectors.shape[1]}")
        units = unit(queries).astype(np.float32)
        rows, remark = self._candidates(units, num_hits)
        rows = rows[self.is_current[rows]]
        similarity = (self.vectors[rows].astype(np.float32) @ units.T).max(axis=1, initial=-1.0)
        best = np.argsort(-similarity, kind="stable")[:num_hits]
        found = self.windows.take(rows[best]).to_pydict()
        columns = found["path"], found["start_s"], found["end_s"], similarity[best].tolist()
        return [Hit(*values) for values in zip(*columns, strict=True)], remark

    def _candidates(
        self, units: Float32[np.ndarray, "query dim"], num_hits: int
    ) -> tuple[Int[np.ndarray, " row"], str]:
        if self._graph is not None:
            return np.unique(np.concatenate([self._by_graph(query, num_hits) for query in units])), ""
        best: list[np.ndarray] = []
        for first in range(0, len(self.vectors), ROWS_AT_ONCE):
            block = self.vectors[first : first + ROWS_AT_ONCE].astype(np.float32)
            similarity = (block @ units.T).max(axis=1)
            similarity[~self.is_current[first : first + len(block)]] = -np.inf
            top = np.argsort(-similarity, kind="stable")[:num_hits]
            best.append(first + top)
        remark = self.why_exact and f"compared all {len(self.vectors):,} windows, as {self.why_exact}"
        return np.concatenate([np.zeros(0, np.int64), *best]), remark

    @property
    def why_exact(self) -> str:
        """Why all windows are compared, with the remedy; empty for few windows, and where there is a graph."""
        return self._opened_graph[1]

    @property
    def _graph(self) -> Any:
        return self._opened_graph[0]

    @cached_property
    def _opened_graph(self) -> tuple[Any, str]:
        """The graph of the vectors, whose file is mapped and not read; or None, and why."""
        if len(self.vectors) <= EXACT_UP_TO:
            return None, ""
        try:
            from usearch.index import Index as Graph
        except ImportError:
            return None, f"the extra is missing: after `{EXTRA}` and indexing again it takes milliseconds"
        file, again = self.folder / GRAPH, "index the same sources again, and it takes milliseconds"
        if not file.exists():
            return None, f"there is no {GRAPH}: {again}"
        try:
            graph = Graph.restore(file, view=True)
        except (ValueError, RuntimeError) as error:
            return None, f"{file} is damaged ({error}): {again}"
        if graph is None or len(graph) != len(self.vectors):
            return None, f"{file} is of other windows: {again}"
        return graph, ""

    def _by_graph(self, query: Float32[np.ndarray, " dim"], num_hits: int) -> Int[np.ndarray, " row"]:
        """Rows near a query, so many that enough of them are current."""
        wanted = min(num_hits, len(self))
        asked = 2 * num_hits
        while True:
            rows = np.asarray(self._graph.search(query, min(asked, len(self.vectors))).keys, np.int64)
            if self.is_current[rows].sum() >= wanted or asked >= len(self.vectors):
                return rows
            asked *= 8


def unit(vectors: Float32[np.ndarray, "row dim"]) -> Float16[np.ndarray, "row dim"]:
    """Vectors of length 1, in half precision; zeros stay zeros."""
    length = np.linalg.norm(vectors.astype(np.float32), axis=1, keepdims=True)
    return (vectors / np.maximum(length, np.finfo(np.float32).tiny)).astype(np.float16)


@dataclass(frozen=True)
class Update:
    """What an index was brought up to date with: recordings, windows added, and what was rejected."""

    num_new: int
    num_kept: int
    num_gone: int
    num_added: int
    rejected: list[Rejected]


def update_index(
    folder: Path,
    encoder: AudioEncoder,
    called: str,
    recordings: Iterable[Clip | Rejected],
    division: Division,
    *,
    num_workers: int | None = None,
    show: Show = show_nothing,
) -> Update:
    """Make an index, or bring one up to date: new and changed recordings are embedded, no others.

    Windows of recordings that have changed, or whose files are gone, are not found any more.

    Args:
        folder: of the index: new, empty, or an index of the same encoder and windows.
        encoder: what embeds.
        called: the name by which a search loads it.
        recordings: see `melmask.collection.sources.found`.
        division: the windows; those of an existing index where it has none.
        num_workers, show: as of `embed_in_blocks`.

    Raises:
        ValueError: the folder holds something else, or an index of another encoder or other windows.
        RuntimeError: another process is writing to the folder.
    """
    if folder.is_dir() and any(folder.iterdir()) and not any((folder / name).exists() for name in (DESCRIPTION, PARTS)):
        raise ValueError(f"{folder} holds files that are no index, and is left as it is: choose a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / LOCK, f"another process is writing to {folder}: wait for it, or choose another folder"):
        old = Index(folder) if (folder / DESCRIPTION).exists() else None
        if old:
            old.check(encoder)
            before = Division(window_s=old.info["window_s"], hop_s=old.info["hop_s"])
            if division.window_s and division != before:
                raise ValueError(
                    f"{folder} has windows of {before.window_s:g} s: leave --window-s out, or make another"
                )
            division = before
        known = read_json(folder / FILES, "list of files") if old else {}
        states: dict[str, list[int]] = {}
        parts = folder / PARTS
        new = _changed(recordings, known, states)
        done = embed_in_blocks(encoder, new, parts, division, num_workers=num_workers, show=show)
        rejected = [one for block in done for one in block.rejections()]
        used = {str(clip[0]) for block in done for clip in block.clips}
        gone = {path for path in known if path in used or not state_of(Path(path))[1]}
        kept = {path: state for path, state in known.items() if path not in gone}
        num_added = sum(block.num_rows for block in done)
        if num_added or gone:
            _append(folder, old, done, gone)
            write_json(folder / FILES, kept | {path: states[path] for path in used})
            values: dict[str, Any] = {"encoder": called, "identity": encoder.identity, **asdict(division)}
            values["features"] = asdict(encoder.settings) if encoder.settings else {}
            num_dims = old.info["num_dims"] if old else max(block.num_dims for block in done)
            num_rows = (old.info["num_rows"] if old else 0) + num_added
            write_json(folder / DESCRIPTION, values | {"num_rows": num_rows, "num_dims": num_dims})
        index = Index(folder) if num_added or gone else old
        if index:
            _complete_graph(index)
        shutil.rmtree(parts, ignore_errors=True)
    return Update(len(used), len(kept), len(gone - used), num_added, rejected)


def _changed(
    recordings: Iterable[Clip | Rejected], known: dict[str, list[int]], states: dict[str, list[int]]
) -> Iterator[Clip | Rejected]:
    """What is not known as it is now, as it is needed; the states of these recordings are added to ``states``."""
    for one in recordings:
        if isinstance(one, Clip):
            state = list(state_of(one.path))
            if known.get(str(one.path)) == state:
                continue
            states[str(one.path)] = state
        yield one


def _append(folder: Path, old: Index | None, done: Sequence[Done], gone: set[str]) -> None:
    """Write the vectors behind those that are there, and the table of windows with the new ones."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    tables = []
    if old:
        is_gone = pc.is_in(old.windows["path"].cast(pa.string()), pa.array(gone, pa.string())).to_numpy()
        place = old.windows.column_names.index("current")
        tables.append(old.windows.set_column(place, "current", pa.array(old.is_current & ~is_gone)))
    num_bytes = old.info["num_rows"] * old.info["num_dims"] * 2 if old else 0
    with (folder / VECTORS).open("r+b" if old else "wb") as file:
        file.truncate(num_bytes)
        file.seek(num_bytes)
        for block in done:
            for part in block.parts():
                file.write(unit(part.features).tobytes())
                paths = pa.array(part.column("path"), pa.string()).dictionary_encode()
                columns = paths, part.start_s, part.end_s, np.ones(len(part.row), bool)
                tables.append(pa.table(dict(zip(("path", "start_s", "end_s", "current"), columns, strict=True))))
        file.flush()
        os.fsync(file.fileno())
    with atomic_write(folder / WINDOWS) as temporary:
        pq.write_table(pa.concat_tables(tables), temporary)


def _complete_graph(index: Index) -> None:
    """Add what is missing to the graph of a large index, where usearch is installed; searches work without it."""
    if not index.why_exact:
        return
    try:
        from usearch.index import Index as Graph
    except ImportError:
        return
    file, num_rows = index.folder / GRAPH, len(index.vectors)
    graph = None
    with suppress(ValueError, RuntimeError):  # a damaged one is made anew
        graph = Graph.restore(file) if file.exists() else None
    if graph is None or len(graph) > num_rows:
        graph = Graph(ndim=index.vectors.shape[1], metric="cos", dtype="f16")
    for first in range(len(graph), num_rows, ROWS_AT_ONCE):
        rows = np.arange(first, min(num_rows, first + ROWS_AT_ONCE))
        graph.add(rows, index.vectors[rows])
    with atomic_write(file) as temporary:
        graph.save(temporary)


def nearest_windows(index: Index, encoder: AudioEncoder, query: Path, num_hits: int) -> tuple[list[Hit], str]:
    """The windows that are most similar to any window of a recording; see `Index.search`.

    Raises:
        ValueError: the encoder is another one than the index's, or the recording cannot be used.
    """
    index.check(encoder)
    if num_hits < 1:
        raise ValueError(f"num is a number of windows to find, at least 1, got {num_hits}")
    division = Division(window_s=index.info["window_s"], hop_s=index.info["hop_s"])
    clip = Clip(query.absolute(), None, None, None, query.name)
    with temporary_folder() as folder:
        done = embed_in_blocks(encoder, [clip], folder / PARTS, division, num_workers=0)
        rejected = [one for block in done for one in block.rejections()]
        if rejected:
            raise ValueError(f"{query}: {rejected[0].reason}: {rejected[0].detail}")
        vectors = np.concatenate([part.features for block in done for part in block.parts()])
    return index.search(vectors, num_hits)
