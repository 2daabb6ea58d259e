"""How long a search of an index of random vectors takes, exactly and by its graph, and how often both agree.

python benchmarks/search.py --rows 1000000 --dims 960
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from melmask.collection.index import DESCRIPTION, VECTORS, WINDOWS, Index, _add_to_graph, unit
from melmask.files import write_json

NUM_QUERIES, NUM_HITS = 20, 10


def main() -> None:
    """Write an index, search it, and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dims", type=int, default=960)
    sizes = parser.parse_args()
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((100, sizes.dims)).astype(np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / VECTORS).open("wb") as file:
            for first in range(0, sizes.rows, 50_000):
                some = min(50_000, sizes.rows - first)
                noise = rng.standard_normal((some, sizes.dims), dtype=np.float32)
                file.write(unit(centres[rng.integers(0, 100, some)] + noise).tobytes())
        times = np.arange(sizes.rows, dtype=float)
        columns = {"path": pa.array(["a.wav"] * sizes.rows), "start_s": times, "end_s": times + 1}
        pq.write_table(pa.table(columns | {"current": np.ones(sizes.rows, bool)}), folder / WINDOWS)
        info = {"encoder": "random", "identity": "", "window_s": 1.0, "hop_s": 1.0}
        write_json(folder / DESCRIPTION, info | {"num_rows": sizes.rows, "num_dims": sizes.dims})
        queries = centres[:NUM_QUERIES] + rng.standard_normal((NUM_QUERIES, sizes.dims), dtype=np.float32)
        exact, exact_ms = searched(folder, queries)
        start = time.perf_counter()
        _add_to_graph(folder, sizes.rows, sizes.dims)
        build_s = time.perf_counter() - start
        found, graph_ms = searched(folder, queries)
    agree = np.mean([len(set(one) & set(other)) / NUM_HITS for one, other in zip(exact, found, strict=True)])
    print(f"{sizes.rows:,} x {sizes.dims}: exact {exact_ms:.1f} ms, graph {graph_ms:.1f} ms a query, ", end="")
    print(f"made in {build_s:.0f} s, {100 * agree:.0f} % of the {NUM_HITS} nearest")


def searched(folder: Path, queries: np.ndarray) -> tuple[list[list[float]], float]:
    """The windows found for each query, and the median time of one in milliseconds."""
    index, found, times = Index(folder), [], []
    for query in queries:
        start = time.perf_counter()
        hits, _ = index.search(query[None], NUM_HITS)
        times.append(time.perf_counter() - start)
        found.append([hit.start_s for hit in hits])
    return found, 1000 * float(np.median(times))


if __name__ == "__main__":
    main()
