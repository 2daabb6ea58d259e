"""Files of predictions: one table as CSV or Parquet, or a label track a recording for Audacity or Raven."""

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from melmask.escaping import in_csv, in_parquet
from melmask.files import atomic_write, write_text
from melmask.models.base import Prediction, Row

Format = Literal["csv", "parquet", "audacity", "raven"]
TRACKS: dict[str, str] = {"audacity": ".txt", "raven": ".selections.txt"}  # a file a recording, with this extension
ROWS_AT_ONCE = 16_384
RAVEN = (
    "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)", "Label",
    "Score",
)  # fmt: skip
Write = Callable[[Prediction], None]


def format_of(out: Path, given: Format | None) -> Format:
    """The format of a file by its extension, unless one is given.

    Raises:
        ValueError: the extension is of none.

    >>> format_of(Path("a.csv"), None), format_of(Path("a.selections.txt"), None), format_of(Path("a.txt"), None)
    ('csv', 'raven', 'audacity')
    """
    if given:
        return given
    ends = {".csv": "csv", ".parquet": "parquet", ".selections.txt": "raven", ".txt": "audacity"}
    for end, name in ends.items():
        if out.name.lower().endswith(end):
            return name  # type: ignore[return-value]
    raise ValueError(
        f"{out} has none of the extensions {', '.join(ends)}: name the format with --format, "
        f"{', '.join(get_args(Format))}"
    )


@contextmanager
def written(
    out: Path, kind: Format, columns: Mapping[str, type], recordings: Sequence[Path], fmax_hz: float
) -> Iterator[Write]:
    """Yield a function that writes what was found in one recording after the other.

    A table is there under its name when all is written. Label tracks are of one recording each: for several, ``out`` is
    a folder, in which each has its name; equal names get a number.

    Args:
        out: the file, or the folder of label tracks.
        kind: its format.
        columns: of a table, with the types of their cells.
        recordings: all that will be written.
        fmax_hz: the upper end of the boxes in Raven's tables.

    Raises:
        ValueError: a file is named for the label tracks of several recordings.
    """
    if kind in TRACKS:
        names = _track_names(out, recordings, TRACKS[kind])
        yield lambda found: _write_track(names[found.path], found, kind, fmax_hz)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as temporary, (_csv if kind == "csv" else _parquet)(temporary, columns) as write:
        yield lambda found: write(found.rows())


@contextmanager
def _csv(path: Path, columns: Mapping[str, type]) -> Iterator[Callable[[Iterator[Row]], None]]:
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(map(in_csv, columns))
        yield lambda rows: writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: str | float | bool) -> str:
    """A cell of a CSV table; times and probabilities without an exponent."""
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    return in_csv(str(value).lower() if isinstance(value, bool) else value)


@contextmanager
def _parquet(path: Path, columns: Mapping[str, type]) -> Iterator[Callable[[Iterator[Row]], None]]:
    import pyarrow as pa
    from pyarrow import parquet

    kinds: dict[type, Any] = {str: pa.string(), float: pa.float64(), bool: pa.bool_()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    waiting: list[Row] = []
    with parquet.ParquetWriter(path, schema) as writer:

        def flush() -> None:
            cells = zip(*waiting, strict=True) if waiting else [[] for _ in schema]
            arrays = [
                pa.array([in_parquet(value) if isinstance(value, str) else value for value in of_column], field.type)
                for of_column, field in zip(cells, schema, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            waiting.clear()

        def add(rows: Iterator[Row]) -> None:
            for row in rows:
                waiting.append(row)
                if len(waiting) >= ROWS_AT_ONCE:
                    flush()

        yield add
        flush()


def _track_names(out: Path, recordings: Sequence[Path], extension: str) -> dict[Path, Path]:
    """The file of each recording's label track."""
    several = list(dict.fromkeys(recordings))
    if len(several) == 1 and not out.is_dir() and out.suffix:
        return {several[0]: out}
    if out.suffix and not out.is_dir():
        raise ValueError(
            f"{out} would be the label track of {len(several)} recordings, and a track is of one: name a folder, with "
            "--format audacity or raven"
        )
    seen: Counter[str] = Counter()
    names = {}
    for path in several:
        seen[path.stem] += 1
        number = f"-{seen[path.stem]}" if seen[path.stem] > 1 else ""
        names[path] = out / f"{path.stem}{number}{extension}"
    return names


def _write_track(path: Path, found: Prediction, kind: Format, fmax_hz: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(RAVEN)] if kind == "raven" else []
    for number, region in enumerate(found.regions(), start=1):
        label = " ".join(region.label.split())  # a tab or a line end would be the next column or line
        if kind == "audacity":
            lines.append(f"{region.start_s:.6f}\t{region.end_s:.6f}\t{label} {region.score:.2f}")
        else:
            times = f"{region.start_s:.6f}\t{region.end_s:.6f}\t0.0\t{fmax_hz:.1f}"
            lines.append(f"{number}\tSpectrogram 1\t1\t{times}\t{label}\t{region.score:.6f}")
    write_text(path, "".join(f"{line}\n" for line in lines), errors="surrogateescape")
