"""How long a search of an index of random vectors takes, exactly and by its graph, and how often both agree.

python benchmarks/search.py --rows 1000000 --dims 192
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from melmask.collection.index import DESCRIPTION, GRAPH, VECTORS, WINDOWS, Index, _complete_graph, unit
from melmask.files import write_json

NUM_QUERIES, NUM_HITS = 20, 10
NUM_CLUSTERS, WINDOWS_PER_RECORDING, ROWS_AT_ONCE = 1_000, 100, 50_000


def main() -> None:
    """Write an index, search it, and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dims", type=int, default=960)
    parser.add_argument("--keep", type=Path, help="a folder that keeps the index, or holds it from an earlier call")
    sizes = parser.parse_args()
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((NUM_CLUSTERS, sizes.dims)).astype(np.float32)
    queries = centres[:NUM_QUERIES] + rng.standard_normal((NUM_QUERIES, sizes.dims), dtype=np.float32)
    with tempfile.TemporaryDirectory() as temporary:
        folder = sizes.keep or Path(temporary)
        build_s = 0.0
        if not (folder / DESCRIPTION).exists():
            write_index(folder, sizes.rows, centres, rng)
            start = time.perf_counter()
            _complete_graph(Index(folder))
            build_s = time.perf_counter() - start
        found, graph_ms, open_ms = searched(folder, queries)
        (folder / GRAPH).rename(folder / "graph")
        exact, exact_ms, _ = searched(folder, queries)
        (folder / "graph").rename(folder / GRAPH)
    agree = np.mean([len(set(one) & set(other)) / NUM_HITS for one, other in zip(exact, found, strict=True)])
    print(f"{sizes.rows:,} x {sizes.dims}: opened in {open_ms:.0f} ms, then {graph_ms:.1f} ms a query by the graph, ")
    print(f"{exact_ms:.0f} ms exactly; graph made in {build_s:.0f} s, {100 * agree:.0f} % of the {NUM_HITS} nearest")


def write_index(folder: Path, num_rows: int, centres: np.ndarray, rng: np.random.Generator) -> None:
    """An index of random vectors in clusters, without its graph."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / VECTORS).open("wb") as file:
        for first in range(0, num_rows, ROWS_AT_ONCE):
            some = min(ROWS_AT_ONCE, num_rows - first)
            noise = rng.standard_normal((some, centres.shape[1]), dtype=np.float32)
            file.write(unit(centres[rng.integers(0, len(centres), some)] + noise).tobytes())
    rows = np.arange(num_rows)
    start_s = rows % WINDOWS_PER_RECORDING + 0.0
    paths = pa.array([f"/recordings/{row // WINDOWS_PER_RECORDING:06}.wav" for row in rows.tolist()])
    columns = {"path": paths, "start_s": start_s, "end_s": start_s + 1, "current": np.ones(num_rows, bool)}
    pq.write_table(pa.table(columns), folder / WINDOWS)
    info = {"encoder": "random", "identity": "", "window_s": 1.0, "hop_s": 1.0}
    write_json(folder / DESCRIPTION, info | {"num_rows": num_rows, "num_dims": centres.shape[1]})


def searched(folder: Path, queries: np.ndarray) -> tuple[list[list[tuple[str, float]]], float, float]:
    """The windows found for each query, the median milliseconds of a query, and those until the first is answered."""
    start = time.perf_counter()
    index, found, times = Index(folder), [], [start]
    for query in queries:
        hits, _ = index.search(query[None], NUM_HITS)
        times.append(time.perf_counter())
        found.append([(hit.path, hit.start_s) for hit in hits])
    taken = 1000 * np.diff(times)
    return found, float(np.median(taken[1:])), float(taken[0])


if __name__ == "__main__":
    main()
