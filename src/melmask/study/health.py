"""The health of what melmask wrote: what a path is, and whether each of its parts is whole; nothing is changed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from melmask.data.checks import Verifier, read_sealed
from melmask.data.manifest import STORE_MARK
from melmask.data.store import DESCRIPTION, Store, read_info
from melmask.encoders.cache import check_entry
from melmask.encoders.embeddings import Embeddings
from melmask.evaluation import comparisons, results
from melmask.evaluation.comparisons import COMPARISONS
from melmask.evaluation.results import RESULTS
from melmask.files import TEMPORARY, named_lines, read_lines, read_tensors, select_prefix
from melmask.nn.encoder_file import ENCODER, EncoderFile
from melmask.train.average import AVERAGE
from melmask.train.checkpoint import MODEL
from melmask.train.initial import read_initial
from melmask.train.recipe import Recipe
from melmask.train.run_folder import (
    CHECKPOINT,
    DATA,
    INIT,
    LOG,
    RECIPE,
    STABLE,
    kept_encoder,
    kept_steps,
    log_values,
    read_data,
)

State = Literal["whole", "damaged", "stale", "leftover"]
NUM_NAMED = 3  # bad lines whose faults are told
CACHED = ("features", "tasks")  # folders of the cache
LEFT = "a killed process left it: it is removed by the next call that writes here, or remove it"


@dataclass(frozen=True)
class Part:
    """A part of what was checked.

    Args:
        name: of the file, relative to what was checked, or of what it holds.
        state: whole; damaged, so that it is refused or skipped where it is read; stale, so that something newer is to
            be made; or a leftover, which nothing reads.
        detail: what is wrong, and the remedy; empty for what is whole.
    """

    name: str
    state: State
    detail: str = ""


@dataclass(frozen=True)
class Health:
    """What a path is, and the state of its parts.

    Args:
        path: what was checked.
        kind: what it is: "store", "run", "encoder file", ...
        parts: each file or kind of content.
    """

    path: Path
    kind: str
    parts: tuple[Part, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing is damaged or stale; leftovers do no harm."""
        return all(part.state in ("whole", "leftover") for part in self.parts)


def health_of(path: Path) -> Health:
    """Check a store, a run's folder, a cache of melmask, or a file of an encoder, of embeddings or of JSON lines.

    All of it is read, and compared with its checksums. Nothing is written.

    Raises:
        ValueError: there is nothing at the path, or nothing that melmask wrote.
    """
    if not path.exists():
        raise ValueError(f"there is nothing at {path}: check the path")
    for kind, (is_one, parts) in KINDS.items():
        if is_one(path):
            return Health(path, kind, tuple(parts(path)))
    raise ValueError(f"{path} is none of what melmask checks: give {', '.join(KINDS)}")


def _part(name: str, check: Callable[[], object]) -> Part:
    """Whole, unless the check raises, or returns the reason why it is stale."""
    try:
        stale = check()
    except (ValueError, OSError, RuntimeError) as error:
        return Part(name, "damaged", str(error))
    return Part(name, "stale", stale) if isinstance(stale, str) and stale else Part(name, "whole")


def _leftovers(folder: Path, *more: str) -> Iterator[Part]:
    for pattern in (f"*{TEMPORARY}", f"*/*{TEMPORARY}", *more):
        for path in sorted(folder.glob(pattern)):
            yield Part(str(path.relative_to(folder)), "leftover", LEFT)


def _store(folder: Path) -> Iterator[Part]:
    described = _part(DESCRIPTION, lambda: read_info(folder))
    yield described
    yield from _leftovers(folder, "shards/*.now")
    if described.state != "whole":
        return
    shards = read_info(folder).get("checksums", {}).get("shards", {})
    verifier = Verifier(folder / "shards", "full")

    def check(name: str) -> None:
        path = folder / "shards" / name
        read_sealed(path.with_suffix(".json"), folder)
        if not verifier.is_intact(path, shards[name]):
            raise ValueError(f"{path} is damaged: its checksum is another; prepare the same sources to {folder} again")

    yield from (_part(f"shards/{name}", lambda name=name: check(name)) for name in shards)  # type: ignore[misc]
    if not shards:
        yield Part("checksums", "stale", "an earlier version prepared it: prepare the same sources again, to add them")
    known = {Path(name).stem for name in shards}
    for path in sorted((folder / "shards").glob("*.npy")):
        if shards and path.stem not in known:
            yield Part(f"shards/{path.name}", "leftover", "no table lists it: the next change of the store removes it")
    yield _part("tables", lambda: _newer_than(Store.open(folder)))


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


def _run(run: Path) -> Iterator[Part]:
    yield _part(RECIPE, lambda: Recipe.load(run / RECIPE))
    yield _part(DATA, lambda: _same_data(run))
    yield from (_part(name, lambda name=name: read_tensors(run / name)) for name in _there(run, CHECKPOINT, STABLE))  # type: ignore[misc]
    yield _part(ENCODER, lambda: _encoder_of_run(run))
    for step in kept_steps(run):
        kept = kept_encoder(run, step)
        yield _part(str(kept.relative_to(run)), lambda kept=kept: _encoder(kept))  # type: ignore[misc]
    if (run / INIT).exists():
        yield _part(INIT, lambda: read_initial(run))
    for name in _there(run, LOG, RESULTS, COMPARISONS):
        yield from _lines(run / name)
    yield from _leftovers(run)


def _there(folder: Path, *names: str) -> list[str]:
    return [name for name in names if (folder / name).exists()]


def _same_data(run: Path) -> str:
    data = read_data(run)
    if not data:
        raise ValueError(f"{run / DATA} is lost: restore it from a copy; a run without it cannot be resumed")
    store = Path(data["store"])
    if (store / DESCRIPTION).exists() and read_info(store)["fingerprint"] != data["fingerprint"]:
        return f"the store {store} holds other data by now: prepare its sources as they were, to resume the run"
    return ""


def _encoder_of_run(run: Path) -> str:
    _encoder(run / ENCODER)
    if not (run / CHECKPOINT).exists():
        return ""
    saved = EncoderFile.load(run / ENCODER).encoder.state_dict()
    try:
        tensors, _ = read_tensors(run / CHECKPOINT)
    except ValueError:
        return ""  # that is a fault of the checkpoint
    own = select_prefix(tensors, AVERAGE) or select_prefix(tensors, f"{MODEL}encoder.")
    if all(torch.equal(saved[name], own[name]) for name in saved.keys() & own.keys()):
        return ""
    return f"{run / ENCODER} is not that of the last checkpoint: resume the run, which writes it again"


def _encoder(path: Path) -> None:
    state = EncoderFile.load(path).encoder.state_dict()
    bad = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if bad:
        raise ValueError(f"{path} has weights that are not finite ({bad[0]}): restore it from a copy, or make it again")


def _lines(path: Path) -> Iterator[Part]:
    """A file of JSON lines; its bad lines are named."""
    parse = {LOG: log_values, COMPARISONS: comparisons.from_line}.get(path.name, results.from_line)
    bad = read_lines(path, parse)[1]
    faults = "; ".join(f"line {line.number}: {line.fault}" for line in bad[:NUM_NAMED])
    yield Part(path.name, "damaged", f"{named_lines(path, bad)}: {faults}") if bad else Part(path.name, "whole")


def _cache(folder: Path) -> Iterator[Part]:
    features = folder / CACHED[0] if (folder / CACHED[0]).is_dir() else folder
    for path in sorted(features.glob("*.npy")):
        yield _part(str(path.relative_to(folder)), lambda path=path: check_entry(path))  # type: ignore[misc]
    for store in sorted(folder.glob(f"{CACHED[1]}/*/{STORE_MARK}")):
        for part in _store(store.parent):
            yield Part(f"{store.parent.relative_to(folder)}/{part.name}", part.state, part.detail)
    yield from _leftovers(folder)


def _is_cache(path: Path) -> bool:
    return path.is_dir() and (any((path / name).is_dir() for name in CACHED) or any(path.glob("*-clips.npy")))


KINDS: dict[str, tuple[Callable[[Path], bool], Callable[[Path], Iterator[Part]]]] = {
    "store": (lambda path: any((path / name).exists() for name in (DESCRIPTION, STORE_MARK)), _store),
    "run": (lambda path: any((path / name).exists() for name in (RECIPE, CHECKPOINT, ENCODER)), _run),
    "cache": (_is_cache, _cache),
    "encoder file": (
        lambda path: path.is_file() and path.suffix in (".safetensors", ".pth", ".pt"),
        lambda path: iter([_part(path.name, lambda: _encoder(path))]),
    ),
    "embeddings": (
        lambda path: path.is_file() and path.suffix == ".npz",
        lambda path: iter([_part(path.name, lambda: Embeddings.load(path))]),
    ),
    "file of JSON lines": (lambda path: path.is_file() and path.suffix == ".jsonl", _lines),
}
