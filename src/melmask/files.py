"""Atomic file writing: after a kill at any moment a path holds its old content or the new, never a part of it."""

import json
import os
import re
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PosixPath, PurePosixPath
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

TEMPORARY = ".tmp"  # extension of files that are being written


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; on leaving, flush it to disk and rename it to ``path``.

    The temporary file lies in the same folder and has the process id in its name, so that processes that write the same
    path do not disturb each other. If the block raises, it is removed and ``path`` is left as it was.

    Raises:
        FileNotFoundError: the block wrote nothing, or the folder does not exist.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_temporaries(folder: Path) -> None:
    """Remove what killed processes left of `atomic_write` in a folder that no other process is writing to."""
    for path in folder.glob(f"*{TEMPORARY}"):
        path.unlink(missing_ok=True)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file in UTF-8, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file, atomically."""
    with atomic_write(path) as temporary:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, temporary, metadata)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all tensors of a safetensors file, on the CPU, and its metadata.

    Raises:
        ValueError: the file is missing or damaged.
    """
    try:
        with safe_open(path, "pt") as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}, handle.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from error


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
