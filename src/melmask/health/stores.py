"""The health of stores, the cache, embeddings and indexes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from melmask.collection.index import DESCRIPTION as INDEX
from melmask.collection.index import FILES, GRAPH, PARTS, ROWS_AT_ONCE, VECTORS, Index
from melmask.collection.sources import state_of
from melmask.data.checks import Verifier, read_sealed
from melmask.data.manifest import STORE_MARK
from melmask.data.store import DESCRIPTION, Store, read_info
from melmask.encoders.cache import check_entry
from melmask.files import read_json
from melmask.health.parts import Part, leftovers, part, within

CACHED = ("features", "tasks")  # folders of the cache
UNIT = 0.01  # by how much the length of a vector in half precision may differ from 1


def check_store(folder: Path) -> Iterator[Part]:
    """Its description, every shard by its checksum, its tables, and whether recordings are newer."""
    described = part(DESCRIPTION, lambda: read_info(folder))
    yield described
    yield from leftovers(folder, "shards/*.now")
    if described.state != "whole":
        return
    shards = read_info(folder).get("checksums", {}).get("shards", {})
    verifier = Verifier(folder / "shards", "full")

    def check(name: str) -> None:
        path = folder / "shards" / name
        read_sealed(path.with_suffix(".json"), folder)
        if not verifier.is_intact(path, shards[name]):
            raise ValueError(f"{path} is damaged: its checksum is another; prepare the same sources to {folder} again")

    yield from (part(f"shards/{name}", lambda name=name: check(name)) for name in shards)  # type: ignore[misc]
    if not shards:
        yield Part("checksums", "stale", "an earlier version prepared it: prepare the same sources again, to add them")
    known = {Path(name).stem for name in shards}
    for path in sorted((folder / "shards").glob("*.npy")):
        if shards and path.stem not in known:
            yield Part(f"shards/{path.name}", "leftover", "no table lists it: the next change of the store removes it")
    yield part("tables", lambda: _newer_than(Store.open(folder)))


def is_store(path: Path) -> bool:
    """Whether a path is a store, also one whose description is lost."""
    return any((path / name).exists() for name in (DESCRIPTION, STORE_MARK))


def _newer_than(store: Store) -> str:
    """Why a store is stale: a recording was written after it; also reads its notes, so that these are checked."""
    made_ns = (store.folder / DESCRIPTION).stat().st_mtime_ns
    assert store.notes is not None
    newer = [path for path in {stored.clip.path for stored in store.clips} if _modified_ns(path) > made_ns]
    if not newer:
        return ""
    return f"{len(newer):,} recordings are newer than the store, such as {min(newer)}: prepare the same sources again"


def _modified_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:  # a store needs its recordings no more, and one in an archive has no time of its own
        return 0


def check_cache(folder: Path) -> Iterator[Part]:
    """Its embeddings, and its stores of tasks."""
    features = folder / CACHED[0] if (folder / CACHED[0]).is_dir() else folder
    for path in sorted(features.glob("*.npy")):
        yield part(str(path.relative_to(folder)), lambda path=path: check_entry(path))  # type: ignore[misc]
    for store in sorted(folder.glob(f"{CACHED[1]}/*/{STORE_MARK}")):
        yield from within(folder, store.parent, check_store(store.parent))
    yield from leftovers(folder)


def is_cache(path: Path) -> bool:
    """Whether a path is the cache, or its folder of embeddings."""
    return path.is_dir() and (any((path / name).is_dir() for name in CACHED) or any(path.glob("*-clips.npy")))


def check_index(folder: Path) -> Iterator[Part]:
    """Its windows and vectors, its graph, and whether recordings have changed or are gone."""
    opened = part(INDEX, lambda: Index(folder))
    yield opened
    if (folder / PARTS).exists():
        yield Part(PARTS, "leftover", "a call that was killed left it: `melmask index` goes on from there")
    yield from leftovers(folder)
    if opened.state != "whole":
        return
    index = Index(folder)
    yield part(VECTORS, lambda: _check_vectors(index))
    yield part(FILES, lambda: _changed_since(folder))
    if (folder / GRAPH).exists():
        yield part(GRAPH, lambda: index.why_exact)


def _check_vectors(index: Index) -> None:
    for first in range(0, len(index.vectors), ROWS_AT_ONCE):
        length = np.linalg.norm(index.vectors[first : first + ROWS_AT_ONCE].astype(np.float32), axis=1)
        bad = np.flatnonzero(~((np.abs(length - 1) < UNIT) | (length == 0)))
        if len(bad):
            raise ValueError(
                f"{index.folder / VECTORS} is damaged: the vector of window {first + bad[0]} has a length of "
                f"{length[bad[0]]:.3g}, not 1; remove {index.folder}, and make it again with `melmask index`"
            )


def _changed_since(folder: Path) -> str:
    """Why an index is stale: recordings have changed, or are gone."""
    known = read_json(folder / FILES, "list of files", remedy=f"remove {folder}, and make it with `melmask index`")
    changed = [path for path, state in known.items() if list(state_of(Path(path))) != state]
    if not changed:
        return ""
    return f"{len(changed):,} recordings have changed or are gone, such as {min(changed)}: index the same sources again"
