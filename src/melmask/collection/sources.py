"""Recordings, patterns, folders, manifests and lists of paths -> clips, in blocks that fit into memory."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from itertools import groupby
from pathlib import Path

from melmask.audio import archive_of
from melmask.data.archives import RECORDING_EXTENSIONS
from melmask.data.manifest import NOT_AUDIO, Clip, Rejected, list_sources

LIST = "-"  # the source that stands for paths on the standard input
LISTED = "standard input"  # as the source of their clips
FOREIGN = "Convert it if it is audio; use a pattern such as *.wav, if not."


@dataclass(frozen=True)
class Block:
    """Some recordings that are embedded together.

    Args:
        clips: their listings.
        rejected: what was found between them and is no recording.
    """

    clips: tuple[Clip, ...]
    rejected: tuple[Rejected, ...]

    @property
    def key(self) -> str:
        """A hash of the listings, and of size and time of their files: another one if any of it has changed."""
        digest = hashlib.sha256(repr(self.rejected).encode("utf-8", "surrogateescape"))
        for clip in self.clips:
            digest.update(f"{clip!r} {state_of(clip.path)}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:20]


def found(sources: Sequence[str], lines: Iterable[str] = ()) -> Iterator[Clip | Rejected]:
    """The recordings of all sources one after the other, in their order, and what is rejected at once.

    Args:
        sources: recordings, folders, manifests and archives, as of `melmask.data.manifest.list_sources`; patterns such
            as ``day*/**/*.wav``; and ``-`` for ``lines``.
        lines: paths, one a line, which are read as they are needed; a missing file is rejected later.

    Raises:
        ValueError: a source is missing or of no known kind, or a pattern matches nothing.
    """
    for kind, some in groupby(sources, _kind):
        if kind == LIST:
            names = (line.rstrip("\r\n") for line in lines)
            yield from (Clip(Path(name).absolute(), None, None, None, LISTED) for name in names if name.strip())
        elif kind == "pattern":
            for pattern in some:
                yield from _matching(pattern)
        else:
            for listings in list_sources([Path(source) for source in some]):
                yield from listings


def blocks(recordings: Iterable[Clip | Rejected], max_files: int, max_bytes: int) -> Iterator[Block]:
    """Recordings in blocks of so many files, and of so many bytes if there is more than one file."""
    clips: list[Clip] = []
    rejected: list[Rejected] = []
    num_bytes = 0
    for one in recordings:
        if isinstance(one, Rejected):
            rejected.append(one)
            continue
        size = state_of(one.path)[0]
        if clips and (len(clips) == max_files or num_bytes + size > max_bytes):
            yield Block(tuple(clips), tuple(rejected))
            clips, rejected, num_bytes = [], [], 0
        clips.append(one)
        num_bytes += size
    if clips or rejected:
        yield Block(tuple(clips), tuple(rejected))


def _kind(source: str) -> str:
    if source == LIST:
        return LIST
    return "pattern" if has_magic(source) and not Path(source).exists() else "place"


def _matching(pattern: str) -> Iterator[Clip | Rejected]:
    matches = sorted(Path(match) for match in glob(pattern, recursive=True))  # noqa: PTH207, which may be absolute
    if not matches:
        raise ValueError(f"no file matches {pattern}: check the pattern")
    for path in matches:
        if path.suffix.lower() in RECORDING_EXTENSIONS and not path.is_dir():
            yield Clip(path.absolute(), None, None, None, pattern)
        elif not path.is_dir():  # the files of folders match by themselves, or are not asked for
            yield Rejected(path.absolute(), NOT_AUDIO, FOREIGN, pattern)


def state_of(path: Path) -> tuple[int, int]:
    """Size and time of a file, or of the archive it lies in; zeros if there is none."""
    for place in (path, (archive_of(path) or (path,))[0]):
        try:
            stat = os.stat(place)  # noqa: PTH116, as of any path
            return stat.st_size, stat.st_mtime_ns
        except (OSError, ValueError):
            continue
    return 0, 0
