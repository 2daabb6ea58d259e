"""How files are damaged: by a flipped bit, a cut, zeros; or by another value in a field."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAGE_BYTES = 4096
EXPONENT = 0x40  # in the highest byte of a float, of 16 and of 32 bits


def flip(path: Path, share: float = 0.75) -> None:
    """Flip an exponent bit of a float, at that share of the file."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * share) // 4 * 4 + 3] ^= EXPONENT
    path.write_bytes(content)


def cut(path: Path, share: float = 0.5) -> None:
    """Keep that share of the file, from its start."""
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def empty(path: Path) -> None:
    """Leave no byte."""
    path.write_bytes(b"")


def remove(path: Path) -> None:
    """Remove the file."""
    path.unlink()


def zero(path: Path) -> None:
    """Make the last page zeros, as after a power failure."""
    size = path.stat().st_size
    num = min(PAGE_BYTES, size // 2)
    path.write_bytes(path.read_bytes()[: size - num] + bytes(num))


def append(path: Path) -> None:
    """Append a page of something else."""
    path.write_bytes(path.read_bytes() + b"\xa5" * PAGE_BYTES)


def garbage(path: Path) -> None:
    """Replace the content by bytes that are neither text nor anything else."""
    path.write_bytes(bytes(range(256)) * 8)


def cut_line(path: Path) -> None:
    """Keep half of the lines."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: max(1, len(lines) // 2)]))


def tear(path: Path) -> None:
    """Cut the last line in its middle, as a kill does."""
    path.write_bytes(path.read_bytes()[:-20])


def lose_quote(path: Path) -> None:
    """Lose the first quote."""
    path.write_bytes(path.read_bytes().replace(b'"', b"", 1))


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change what a JSON file holds, and leave its checksum, if it has one, as it was."""
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


OF_BINARY: dict[str, Callable[[Path], None]] = {
    "one exponent bit is flipped": flip,
    "it is cut to half": cut,
    "it is emptied": empty,
    "it is removed": remove,
    "its last page is zeros": zero,
    "bytes are appended": append,
}
OF_TEXT: dict[str, Callable[[Path], None]] = {
    "it is cut to half": cut,
    "it is emptied": empty,
    "it is removed": remove,
    "it is bytes without sense": garbage,
}
