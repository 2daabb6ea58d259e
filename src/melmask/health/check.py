"""What a path is, and the health of all its parts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from melmask.collection.index import DESCRIPTION as INDEX
from melmask.encoders.embeddings import PARQUET, Embeddings
from melmask.health.parts import Part, part
from melmask.health.runs import (
    check_encoder,
    check_lines,
    check_model,
    check_run,
    check_study,
    is_model,
    is_run,
    is_study,
)
from melmask.health.stores import check_cache, check_index, check_store, is_cache, is_store

WEIGHTS = (".safetensors", ".pth", ".pt")
EMBEDDINGS = (".npz", *PARQUET)


@dataclass(frozen=True)
class Health:
    """What a path is, and the state of its parts.

    Args:
        path: what was checked.
        kind: what it is: one of `KINDS`.
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
    """Check one of `KINDS`: all of it is read, and compared with its checksums. Nothing is written.

    Raises:
        ValueError: there is nothing at the path, or nothing that melmask wrote.
        ImportError: the library that the encoder of a trained model needs is not installed.
    """
    if not path.exists():
        raise ValueError(f"there is nothing at {path}: check the path")
    for kind, (is_one, parts) in KINDS.items():
        if is_one(path):
            return Health(path, kind, tuple(parts(path)))
    raise ValueError(f"{path} is none of what melmask checks: give {', '.join(KINDS)}")


def _is_file(*suffixes: str) -> Callable[[Path], bool]:
    return lambda path: path.is_file() and path.suffix.lower() in suffixes


KINDS: dict[str, tuple[Callable[[Path], bool], Callable[[Path], Iterator[Part]]]] = {
    "store": (is_store, check_store),
    "model": (is_model, check_model),  # which has an encoder as a run has
    "run": (is_run, check_run),
    "study": (is_study, check_study),
    "index": (lambda path: (path / INDEX).exists(), check_index),
    "cache": (is_cache, check_cache),
    "encoder file": (_is_file(*WEIGHTS), lambda path: iter([part(path.name, lambda: check_encoder(path))])),
    "embeddings": (_is_file(*EMBEDDINGS), lambda path: iter([part(path.name, lambda: Embeddings.load(path))])),
    "file of JSON lines": (_is_file(".jsonl"), lambda path: iter([check_lines(path)])),
}
