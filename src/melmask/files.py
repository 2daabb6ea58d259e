"""Files that a kill, a full disk or a flipped bit cannot turn into wrong ones: written whole, and verified when read.

`atomic_write` is the one way in which files are written, `read_json` and `read_tensors` are how they are read, and
`append_lines` and `read_lines` are for files to which lines are added. Whatever is wrong with a file is a ValueError
that names the file, the part of it and the remedy.
"""

import errno
import json
import os
import re
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PosixPath, PurePosixPath
from pickle import UnpicklingError
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from xxhash import xxh3_128

from melmask.fields import check_fields, short

T = TypeVar("T")
TEMPORARY = ".tmp"  # extension of files that are being written
CHECKSUM = "xxh3_128"  # in the metadata of a file of tensors
BLOCK_BYTES = 2**20
MAX_NAMED = 10  # lines in a note
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FULL_REMEDY = "free some space and call again; what was there before is kept"
REMEDY = "restore it from a copy, or make it again"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; on leaving, flush it to disk and rename it to ``path``.

    After a kill at any moment ``path`` holds its old content or the new, never a part of it. The temporary file lies in
    the same folder and has the process id in its name, so that processes that write the same path do not disturb each
    other. If the block raises, it is removed and ``path`` is left as it was. The file gets the mode that the process's
    umask gives to new files.

    Raises:
        FileNotFoundError: the block wrote nothing, or the folder does not exist.
        OSError: it cannot be written, as on a full disk; the error names ``path``.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        temporary.unlink()
        yield temporary
        temporary.chmod(mode)  # libraries may make private files
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _explained(error, path) from None
        raise


def _explained(error: OSError, path: Path) -> OSError:
    """The error of writing a file, with its name and, where the disk is full, the remedy."""
    if error.errno is None:  # as of NumPy, which says how many bytes were written, and not of what
        is_named = str(path) in str(error)
        return error if is_named else OSError(f"{path} cannot be written: {error}; {FULL_REMEDY}")
    error.filename = error.filename or str(path)
    if error.errno in FULL and FULL_REMEDY not in str(error.strerror):
        error.strerror = f"{error.strerror}; {FULL_REMEDY}"
    return error


def remove_temporaries(folder: Path) -> None:
    """Remove what killed processes left of `atomic_write` in a folder that no other process is writing to."""
    for path in folder.glob(f"*{TEMPORARY}"):
        path.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str, errors: str = "strict") -> None:
    """Write a text in UTF-8, atomically, with its line ends as they are.

    Args:
        path: the file.
        text: its content.
        errors: what becomes of characters that UTF-8 has none for, as of `str.encode`.
    """
    write_bytes(path, text.encode("utf-8", errors))


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file in UTF-8, atomically."""
    write_text(path, json.dumps(values, indent=1) + "\n")


def read_json(
    path: Path, what: str = "file of melmask", fields: Mapping[str, type] | None = None, remedy: str = REMEDY
) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Args:
        path: the file.
        what: the file is, for the message: "recipe".
        fields: that it must have, each with its type: int, float (finite, and whole numbers count), str, bool, list or
            dict. It may have others.
        remedy: what to do about a damaged one.

    Raises:
        ValueError: it is missing, cannot be read, is no JSON object, or has not these fields; it names the file, the
            field and the remedy.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}, a {what}, cannot be read: {error.strerror}; {remedy}") from error
    return parse_json(content, f"{path} is no {what}", fields, remedy)


def parse_json(
    text: bytes | str, fault: str, fields: Mapping[str, type] | None = None, remedy: str = REMEDY
) -> dict[str, Any]:
    """An object of JSON text, as by `read_json`.

    >>> parse_json('{"mean": "x"}', "a.json is no store", {"mean": float})
    Traceback (most recent call last):
    ValueError: a.json is no store: field 'mean' is "x", not a number; restore it from a copy, or make it again
    """
    try:
        values = json.loads(text if isinstance(text, str) else text.decode("utf-8-sig"))
        if not isinstance(values, dict):
            raise ValueError(f"it holds {short(values)}, not an object")
        check_fields(values, fields or {})
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{fault}: {error}; {remedy}") from error
    return values


@dataclass(frozen=True)
class BadLine:
    """A line of a file that cannot be read.

    Args:
        number: of the line, from 1.
        text: the line, without its end.
        fault: what is wrong with it.
    """

    number: int
    text: str
    fault: str


def append_lines(path: Path, objects: Iterable[Mapping[str, Any]]) -> None:
    """Append objects to a file of JSON lines, which is made if it is missing.

    A last line that a kill or a full disk cut off is ended first, so that it spoils no other.

    Raises:
        OSError: they cannot be written, as on a full disk; the error names ``path``.
    """
    text = "".join(json.dumps(values) + "\n" for values in objects)
    try:
        with path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                text = text if file.read(1) == b"\n" else f"\n{text}"
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _explained(error, path) from None


def append_line(path: Path, values: Mapping[str, Any]) -> None:
    """Append one object to a file of JSON lines, as by `append_lines`."""
    append_lines(path, [values])


def read_lines(path: Path, parse: Callable[[dict[str, Any]], T] = dict) -> tuple[list[T], list[BadLine]]:  # type: ignore[assignment]
    """Read a file of JSON lines; a missing one has none.

    Args:
        path: the file.
        parse: makes what is wanted of a line's object, or raises ValueError, TypeError or KeyError.

    Returns:
        What was made of the good lines, and the bad ones, which stay in the file.
    """
    good: list[T] = []
    bad: list[BadLine] = []
    for number, line in enumerate(path.read_bytes().split(b"\n") if path.exists() else [], start=1):
        if line.strip():
            try:
                good.append(parse(parse_json(line, "damaged")))
            except (ValueError, TypeError, KeyError) as error:
                bad.append(BadLine(number, line.decode("utf-8", "surrogateescape"), str(error)))
    return good, bad


def good_lines(path: Path, parse: Callable[[dict[str, Any]], T] = dict) -> list[T]:  # type: ignore[assignment]
    """What `read_lines` makes of the good lines; the bad ones are named in a warning."""
    good, bad = read_lines(path, parse)
    if bad:
        warnings.warn(named_lines(path, bad), stacklevel=3)
    return good


def replace_lines(path: Path, objects: Iterable[Mapping[str, Any]], bad: Iterable[BadLine] = ()) -> None:
    """Write a file of JSON lines anew, atomically: the bad lines of the old one first, then these objects."""
    lines = [line.text for line in bad] + [json.dumps(values) for values in objects]
    write_text(path, "".join(f"{line}\n" for line in lines), errors="surrogateescape")


def named_lines(path: Path, bad: Iterable[BadLine]) -> str:
    """Which lines of a file were skipped, for a note; empty if none were.

    >>> named_lines(Path("log.jsonl"), [BadLine(3, "{", "damaged: ...")])
    'log.jsonl: line 3 is damaged and was skipped; it stays in the file'
    """
    numbers = [str(line.number) for line in bad]
    if not numbers:
        return ""
    if len(numbers) > MAX_NAMED:
        numbers = [*numbers[:MAX_NAMED], f"and {len(numbers) - MAX_NAMED} more"]
    if len(numbers) == 1:
        return f"{path}: line {numbers[0]} is damaged and was skipped; it stays in the file"
    return f"{path}: lines {', '.join(numbers)} are damaged and were skipped; they stay in the file"


def checksum(path: Path) -> str:
    """The xxh3 checksum (128 bits, in hexadecimal) of a file's content, read in blocks.

    Raises:
        OSError: it cannot be read.
    """
    total = xxh3_128()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            total.update(block)
    return total.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, atomically, with a checksum of all that it holds in its metadata.

    Raises:
        OSError: it cannot be written, as on a full disk.
    """
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    stated = {**metadata, CHECKSUM: _checksum_of(on_cpu, metadata)}
    with atomic_write(path) as temporary:
        try:
            save_file(on_cpu, temporary, stated)
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written: {error}; {FULL_REMEDY}") from error


def read_tensors(
    path: Path, needed: Iterable[str] = (), stated: Iterable[str] = (), remedy: str = REMEDY
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all tensors of a safetensors file, on the CPU, and its metadata, and verify its checksum.

    Files of others, and of earlier versions, have no checksum, and are read as they are.

    Args:
        path: the file.
        needed: names of tensors that it must hold.
        stated: names that its metadata must have.
        remedy: what to do about a damaged one.

    Raises:
        ValueError: the file is missing or damaged, or lacks one of these; it names the file, the tensor and the remedy.
    """
    try:
        with safe_open(path, "pt") as handle:
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
            metadata = dict(handle.metadata() or {})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}; {remedy}") from error
    expected = metadata.pop(CHECKSUM, None)
    if expected is not None and expected != _checksum_of(tensors, metadata):
        raise ValueError(f"{path} is damaged: what it holds is not what was written (its checksum differs); {remedy}")
    for names, there_are, what in ((needed, tensors, "tensor"), (stated, metadata, "entry")):
        for name in names:
            if name not in there_are:
                raise ValueError(f"{path} has no {what} {name!r}; {remedy}")
    return tensors, metadata


def _checksum_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Of names, types, shapes and values of tensors, and of the metadata, whatever their order."""
    total = xxh3_128(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode("utf-8", "surrogatepass"))
        if tensor.numel():
            total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def read_pickle(path: Path) -> Any:
    """Read a file that torch.save wrote, on the CPU: tensors and plain values only, never a program.

    Settings that argparse kept, as training scripts save them beside the weights, are read as well.

    Raises:
        ValueError: the file is missing or damaged, or holds objects that only running its code would restore.
    """
    try:
        with torch.serialization.safe_globals([Namespace, PurePosixPath, PosixPath]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        if not found:
            raise ValueError(f"{path} cannot be read as weights that torch.save saved: {error}") from error
        raise ValueError(
            f"{path} holds an object of {found[1]}, which is not read since it could run code: if you trust the file, "
            "save its weights alone, as torch.save({'model': state_dict}, 'weights.pth')"
        ) from error
    except (OSError, EOFError, RuntimeError, KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as weights that torch.save saved: {error}") from error


def select_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Select the tensors whose names start with ``prefix``, and remove it from their names.

    >>> select_prefix({"model.norm.bias": Tensor(), "masking.loss": Tensor()}, "model.")
    {'norm.bias': tensor([])}
    """
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def file_name(*words: str) -> str:
    """Join words to a file name that is safe on every file system and in a URL.

    Every run of characters other than letters, digits and ``_ . = ,`` becomes one hyphen.

    >>> file_name("masks", "A <b>/c"), file_name("esc50", "linear:learning_rate=3e-05")
    ('masks-A-b-c', 'esc50-linear-learning_rate=3e-05')
    """
    return "-".join(re.sub(r"[^\w.=,]+", "-", word).strip("-.") for word in words)
