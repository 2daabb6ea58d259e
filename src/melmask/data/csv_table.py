"""CSV tables as people have them -> rows by column, whatever their separator and however their headers are written."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

from melmask.escaping import from_csv

SEPARATORS = (",", ";", "\t", "|")
ALTERNATIVES = ({"fold", "split"},)  # columns of which a table has one
MANIFEST_EXTENSIONS = (".csv", ".tsv")
MAX_COLUMNS = 10_000
MIN_LIKENESS = 0.8  # of a header to a column's name, above which it is taken for a slip
PREFIXES, SUFFIXES = ("cv", "k", "my", "class", "true"), ("id", "ids", "no", "nr", "num", "number", "name", "names")
UNCLOSED = "a quote is opened and not closed: close it, or write a quote within a cell twice"


@dataclass(frozen=True)
class CsvTable:
    """The rows of a table.

    Args:
        path: the file.
        columns: the known columns that it has, in its order.
        unread: its other headers, as written.
        rows: the line that each row begins in, and its cells by known column; cells that a short row lacks are empty.
    """

    path: Path
    columns: tuple[str, ...]
    unread: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]


def read_csv(path: Path, known: Sequence[str], needed: Sequence[str] = ("path",)) -> CsvTable:
    """Read a table with a header.

    Cells are separated by a comma, semicolon, tab or ``|``, whichever the header uses. Headers are matched without
    case and blanks. The text is UTF-8, or UTF-16 with a byte order mark.

    Args:
        path: the file.
        known: names of the columns that are read.
        needed: those that must be there.

    Raises:
        ValueError: no such file, a needed column is missing, a column is there twice or has nearly the name of a known
            one, a quote is not closed, or a row has more cells than the header. The message names file and line.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist: check the path of the manifest")
    with path.open("rb") as raw:
        encoding = "utf-16" if raw.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    errors = "strict" if encoding == "utf-16" else "surrogateescape"
    try:
        with path.open(newline="", encoding=encoding, errors=errors) as file:
            text = file.read()
    except UnicodeError as error:
        raise ValueError(f"{path} cannot be read as {encoding} ({error}): save the table as CSV in UTF-8") from error
    separator = _separator_of(text, needed[0])
    rows = _rows(path, text, separator)
    _, header = next(rows, (1, []))
    column_of = _match(path, header, known, needed)
    found = []
    for line, cells in rows:
        if len(cells) > len(header):
            raise ValueError(
                f"{path}, line {line}: more cells than columns: put cells with {separator!r} in quotes, or check the "
                "header"
            )
        cells += [""] * (len(header) - len(cells))
        found.append((line, {column: from_csv(cells[number]) for column, number in column_of.items()}))
    unread = [name.strip() for number, name in enumerate(header) if number not in column_of.values() and name.strip()]
    return CsvTable(path, tuple(column_of), tuple(unread), tuple(found))


def is_manifest(path: Path) -> bool:
    """Whether a file is a table with a column ``path``."""
    if path.suffix.lower() not in MANIFEST_EXTENSIONS:
        return False
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError:
        return False
    text = start.decode("utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", errors="replace")
    return "path" in map(_plain, _header(text, _separator_of(text, "path")))


def _plain(header: str) -> str:
    """A header without case and blanks."""
    return re.sub(r"\s", "", header).casefold()


def _header(text: str, separator: str) -> list[str]:
    first = next((line for line in io.StringIO(text, newline="") if line.strip()), "")
    return next(csv.reader([first], delimiter=separator), [])


def _separator_of(text: str, needed: str) -> str:
    """The separator with which the header has the needed column, or, if none has it, that with most columns."""
    for separator in SEPARATORS:
        if needed in map(_plain, _header(text, separator)):
            return separator
    return max(SEPARATORS, key=lambda separator: len(_header(text, separator)))


def _rows(path: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The line that each row begins in, and its cells; blank lines are left out."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    width = 0
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                raise ValueError(f"{path}, line {first}: {UNCLOSED}") from error
            if "expected after" in str(error):
                raise ValueError(f"{path}, line {first}: {error}: {UNCLOSED}") from error
            raise ValueError(f"{path}, line {first}: {error}: save the manifest as plain CSV") from error
        width = width or len(cells)
        if reader.line_num > first and any(_swallows_rows(cell, separator, width) for cell in cells):
            raise ValueError(f"{path}, line {first}: {UNCLOSED}: the cell ends in line {reader.line_num} only")
        if any(cell.strip() for cell in cells):
            yield first, cells


def _swallows_rows(cell: str, separator: str, width: int) -> bool:
    """Whether a cell of several lines holds what looks like a row, as after a quote that was not closed."""
    lines = re.split(r"\r\n?|\n", cell)
    return len(lines) > 1 and any(line.count(separator) >= max(1, width - 1) for line in lines)


def _match(path: Path, header: Sequence[str], known: Sequence[str], needed: Sequence[str]) -> dict[str, int]:
    """The number of each known column of a header."""
    if len(header) > MAX_COLUMNS:
        raise ValueError(
            f"{path}, line 1: {len(header):,} columns: check the separator, or leave out what is not needed"
        )
    plain = [_plain(name) for name in header]
    for name, times in Counter(plain).items():
        if times > 1 and name in known:
            raise ValueError(f"{path}, line 1: {times} columns are called {name!r}: keep the one to be used")
    column_of = {name: number for number, name in enumerate(plain) if name in known}
    present = set(column_of).union(*(same for same in ALTERNATIVES if same & set(column_of)))
    for name in known:
        like = [written for written, own in zip(header, plain, strict=True) if own not in known and _is_like(own, name)]
        if like and name not in present:
            raise ValueError(
                f"{path}, line 1: the column {like[0].strip()!r} is not read, and there is no column {name!r}: if "
                f"that is meant, name it {name}; if not, give it a name that is less like it"
            )
    for name in needed:
        if name not in column_of:
            found = ", ".join(written.strip() for written in header) or "nothing"
            more = ",".join(column for column in known if column not in needed)
            raise ValueError(
                f"{path}, line 1: no column {name!r} (found: {found}): the header is {','.join(needed)}[,{more}]"
            )
    return column_of


def _is_like(header: str, name: str) -> bool:
    """Whether a header is nearly a column's name: folds, fold_id, lable; not every other word for it."""
    letters, wanted = re.sub(r"[^a-z]", "", header), name.replace("_", "")
    extended = [wanted, *(before + wanted for before in PREFIXES), *(wanted + after for after in SUFFIXES)]
    same_letters = sorted(letters) == sorted(wanted)
    return letters in extended or same_letters or SequenceMatcher(None, letters, wanted).ratio() >= MIN_LIKENESS
