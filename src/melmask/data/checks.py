"""Checksums of what a store is made of: taken as it is written, compared as it is read.

A shard's checksum is in its description and in store.json, a table's in store.json; both kinds of JSON end with a
checksum of themselves, their seal. What was compared once is noted in the user's cache by size and times of change, so
that a large store is not read twice for it.
"""

import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from xxhash import xxh3_128

from melmask.files import checksum, read_lines
from melmask.runtime import cache_folder

Verify = Literal["full", "first", "none"]  # what is compared: all at once, what is read and new or changed, nothing
SEAL = re.compile(rb',\s*"seal": "([0-9a-f]{32})"\s*\}\s*\Z')
CHECKSUMS = {"checksum", "checksums"}  # names that only sealed JSON has
SEAL_BYTES = 64  # that a seal takes at most
SETTLED_S = 2.0  # a file changed more recently might be changed again without another time of change


class Damaged(ValueError):
    """A part of a store is not what was written.

    Args:
        path: the file.
        fault: what is wrong with it.
        store: the store's folder.
        values: what it holds, where it is JSON that can be read all the same.
    """

    def __init__(self, path: Path, fault: str, store: Path, values: Mapping[str, Any] | None = None) -> None:
        super().__init__(path, fault, store, values)
        self.path, self.fault, self.store, self.values = path, fault, store, values or {}

    def __str__(self) -> str:
        remedy = f"prepare the same sources to {self.store} again: what is damaged is made again, and nothing else"
        return f"{self.path} is damaged: {self.fault}; {remedy}"


def sealed(values: Mapping[str, Any], indent: int | None = None) -> bytes:
    """JSON that ends with a checksum of all before it.

    >>> sealed({"sum": 1.5})
    b'{"sum": 1.5, "seal": "aaba1b0c6cdc5443e6055b50029e9357"}'
    """
    body = json.dumps(values, indent=indent)[:-1].rstrip().encode()
    before, after = (b",\n ", b"\n}\n") if indent else (b", ", b"}")
    return body + before + f'"seal": "{xxh3_128(body).hexdigest()}"'.encode() + after


def read_sealed(path: Path, store: Path) -> dict[str, Any]:
    """Read JSON that was sealed, or that an earlier version wrote without a seal.

    Raises:
        Damaged: it is not what was written.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    seal = SEAL.search(content, max(0, len(content) - SEAL_BYTES))
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:  # of the text, its encoding or its depth
        raise Damaged(path, f"it is no whole JSON ({error})", store) from error
    if not isinstance(values, dict):
        raise Damaged(path, "it holds no JSON object", store)
    found = xxh3_128(content[: seal.start()]).hexdigest() if seal else None
    if values.get("seal") != found or (seal is None and CHECKSUMS & values.keys()):
        raise Damaged(path, "its checksum is another", store, values)
    values.pop("seal", None)
    return values


class Verifier:
    """Compares the files of a folder with their checksums, each once.

    Args:
        folder: that they are in.
        verify: "full": all files; "first": those that were not compared before, or were changed since; "none".
    """

    def __init__(self, folder: Path, verify: Verify = "first") -> None:
        self.folder, self.verify = folder, verify
        key = sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
        self.record = cache_folder() / "verified" / f"{key}.jsonl"
        self._own: dict[str, list[Any]] = {}
        self._known = self._read() if verify == "first" else {}

    def is_intact(self, path: Path, expected: str) -> bool:
        """Whether a file has a checksum; it is read to find out if that is not known.

        Raises:
            OSError: it cannot be read.
        """
        if self.verify == "none":
            return True
        found = _state(path, expected)
        if found in (self._own.get(path.name), self._known.get(path.name)):
            return True
        if checksum(path) != expected:
            return False
        self._own[path.name] = found
        self._note({path.name: found})
        return True

    def trust(self, path: Path, expected: str) -> None:
        """Take a file for intact that was written just now; `settle` notes it."""
        self._own[path.name] = _state(path, expected)

    def settle(self, names: set[str]) -> None:
        """Note what is known of these files of the folder, in place of what was noted before."""
        with suppress(OSError):
            known = {name: state for name, state in (self._known | self._own).items() if name in names}
            if known != self._read():
                self.record.unlink(missing_ok=True)
                self._note(known)
            for record in self.record.parent.glob("*.jsonl"):
                if _is_of_none(record):
                    record.unlink()

    def _note(self, states: Mapping[str, list[Any]]) -> None:
        """Append to the record; where that is impossible, files are compared again another time."""
        before_ns = time.time_ns() - int(SETTLED_S * 1e9)
        settled = {name: state for name, state in states.items() if max(state[2:]) < before_ns}
        lines = "".join(json.dumps({"name": name, "state": state}) + "\n" for name, state in settled.items())
        if lines and not self.record.exists():
            lines = json.dumps({"folder": str(self.folder.resolve())}) + f"\n{lines}"
        if lines:
            with suppress(OSError):
                self.record.parent.mkdir(parents=True, exist_ok=True)
                with self.record.open("a", encoding="utf-8") as file:
                    file.write(lines)

    def _read(self) -> dict[str, list[Any]]:
        try:  # a damaged line costs no more than comparing a file again
            return dict(read_lines(self.record, lambda line: (line["name"], line["state"]))[0])
        except OSError:
            return {}


def _is_of_none(record: Path) -> bool:
    """Whether the store that a record is of is gone."""
    with record.open(encoding="utf-8", errors="replace") as file:
        first = file.readline()
    try:
        return not Path(json.loads(first)["folder"]).exists()
    except (ValueError, KeyError, TypeError):  # damaged
        return True


def _state(path: Path, expected: str) -> list[Any]:
    """What a file has as long as nobody writes to it."""
    status = path.stat()
    return [expected, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
