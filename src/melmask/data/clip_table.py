"""The table of a store's clips: columns, of which a row becomes an object when it is asked for.

On disk it is an Arrow table, ``clips.arrow``, which pandas.read_feather and other tools read too. 300,000 rows are read
in .02 s and 23 MiB; as objects they took 3.3 s and 318 MB.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, SupportsIndex, overload

import numpy as np
from jaxtyping import Int

from melmask.data.manifest import Clip

if TYPE_CHECKING:
    import pyarrow

CODED = ("label", "fold", "group", "source", "shard")  # columns of few different words
NUMBERS = ("start_frame", "num_frames")
COLUMNS = ("path", *CODED, *NUMBERS)


@dataclass(frozen=True)
class StoredClip:
    """A clip and the place of its frames.

    Args:
        clip: the listing.
        shard: name of a file in the folder ``shards``.
        start_frame: its first row in the shard.
        num_frames: its number of rows.
    """

    clip: Clip
    shard: str
    start_frame: int
    num_frames: int


@dataclass(frozen=True)
class _Texts:
    """Texts, one after the other in UTF-8, and where each ends; file names on Linux are bytes and need not be UTF-8."""

    data: bytes | memoryview
    ends: Int[np.ndarray, " row_and_one"]

    def __getitem__(self, row: int) -> str:
        return bytes(self.data[self.ends[row] : self.ends[row + 1]]).decode("utf-8", "surrogateescape")

    @staticmethod
    def of(texts: Sequence[str]) -> "_Texts":
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
        return _Texts(b"".join(encoded), np.cumsum([0, *map(len, encoded)]))


class ClipTable(Sequence[StoredClip]):
    """The clips of a store, in order.

    Args:
        paths: of the recordings.
        words: of each coded column the words that it has; empty for none.
        codes: of each coded column the number of each clip's word.
        start_frame, num_frames: see `StoredClip`.
    """

    def __init__(
        self,
        paths: _Texts,
        words: Mapping[str, Sequence[str]],
        codes: Mapping[str, Int[np.ndarray, " clip"]],
        start_frame: Int[np.ndarray, " clip"],
        num_frames: Int[np.ndarray, " clip"],
    ) -> None:
        self._paths, self._words, self._codes = paths, words, codes
        self.start_frame, self.num_frames = start_frame, num_frames

    @staticmethod
    def of(rows: Sequence[Sequence[str | int]]) -> "ClipTable":
        """The table of rows with COLUMNS.

        Raises:
            ValueError: a frame is no number.
        """
        columns = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
        words, codes = {}, {}
        for name, column in zip(CODED, columns[1:], strict=False):
            number: dict[str, int] = {}
            codes[name] = np.array([number.setdefault(str(word), len(number)) for word in column], dtype=np.int32)
            words[name] = list(number)
        start_frame, num_frames = (np.array(list(map(int, column)), dtype=np.int64) for column in columns[-2:])
        return ClipTable(_Texts.of(list(map(str, columns[0]))), words, codes, start_frame, num_frames)

    @staticmethod
    def of_clips(clips: Sequence[StoredClip]) -> "ClipTable":
        """The table of these clips."""
        return ClipTable.of(
            [
                (str(item.clip.path), item.clip.label or "", item.clip.fold or "", item.clip.group or "",
                 item.clip.source, item.shard, item.start_frame, item.num_frames)
                for item in clips
            ]
        )  # fmt: skip

    @staticmethod
    def from_arrow(content: bytes) -> "ClipTable":
        """Read what `to_arrow` wrote.

        Raises:
            ValueError: it is no such table.
        """
        import pyarrow

        try:
            table = pyarrow.ipc.open_file(pyarrow.py_buffer(content)).read_all()
            words, codes = {}, {}
            for name in CODED:
                column = _whole(table[name])
                words[name] = [_decoded(word) for word in column.dictionary.to_pylist()]
                codes[name] = column.indices.to_numpy(zero_copy_only=False)
                if len(table) and not 0 <= codes[name].min() <= codes[name].max() < len(words[name]):
                    raise ValueError(f"column {name} has a number without a word")
            start_frame, num_frames = (_whole(table[name]).to_numpy() for name in NUMBERS)
            paths = _texts_of(_whole(table["path"]))
        except (pyarrow.ArrowException, KeyError, AttributeError) as error:
            raise ValueError(f"it is no Arrow table of clips: {error}") from error
        return ClipTable(paths, words, codes, start_frame, num_frames)

    def to_arrow(self) -> bytes:
        """The table as an Arrow IPC file. Columns are text, or bytes where a name is not in UTF-8."""
        import pyarrow

        columns: dict[str, pyarrow.Array] = {"path": _arrow_texts([self._paths[row] for row in range(len(self))])}
        for name in CODED:
            columns[name] = pyarrow.DictionaryArray.from_arrays(
                pyarrow.array(self._codes[name], pyarrow.int32()), _arrow_texts(self._words[name])
            )
        columns |= {"start_frame": pyarrow.array(self.start_frame), "num_frames": pyarrow.array(self.num_frames)}
        table, sink = pyarrow.table(columns), pyarrow.BufferOutputStream()
        with pyarrow.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue().to_pybytes()

    def with_num_frames(self, num_frames: int) -> "ClipTable":
        """The same clips, each of that many frames."""
        lengths = np.full(len(self), num_frames, dtype=np.int64)
        return ClipTable(self._paths, self._words, self._codes, self.start_frame, lengths)

    def word(self, column: str, row: int) -> str:
        """The word of a clip in one of the columns CODED; empty for none."""
        return self._words[column][self._codes[column][row]]

    def words(self, column: str) -> list[str]:
        """The word of each clip in one of the columns CODED."""
        words = self._words[column]
        return [words[code] for code in self._codes[column].tolist()]

    @cached_property
    def recordings(self) -> Int[np.ndarray, " recording"]:
        """The first clip of each recording: clips that are listings of one file share its frames."""
        places = np.stack([self._codes["shard"].astype(np.int64), self.start_frame], axis=1)
        return np.sort(np.unique(places, axis=0, return_index=True)[1])

    def __len__(self) -> int:
        return len(self.start_frame)

    @overload
    def __getitem__(self, row: SupportsIndex) -> StoredClip: ...
    @overload
    def __getitem__(self, row: slice) -> list[StoredClip]: ...
    def __getitem__(self, row: SupportsIndex | slice) -> StoredClip | list[StoredClip]:
        if isinstance(row, slice):
            return [self[number] for number in range(*row.indices(len(self)))]
        number = range(len(self))[row]
        label, fold, group, source, shard = (self.word(column, number) for column in CODED)
        clip = Clip(Path(self._paths[number]), label or None, fold or None, group or None, source)
        return StoredClip(clip, shard, int(self.start_frame[number]), int(self.num_frames[number]))

    def __iter__(self) -> Iterator[StoredClip]:
        paths = (self._paths[row] for row in range(len(self)))
        words = (self.words(column) for column in CODED)
        numbers = (self.start_frame.tolist(), self.num_frames.tolist())
        for path, label, fold, group, source, shard, start, num in zip(paths, *words, *numbers, strict=True):
            yield StoredClip(Clip(Path(path), label or None, fold or None, group or None, source), shard, start, num)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClipTable) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


def _arrow_texts(texts: Sequence[str]) -> "pyarrow.Array":
    import pyarrow

    try:
        return pyarrow.array(texts, pyarrow.string())
    except UnicodeEncodeError:
        return pyarrow.array([text.encode("utf-8", "surrogateescape") for text in texts], pyarrow.binary())


def _whole(column: "pyarrow.ChunkedArray") -> "pyarrow.Array":
    """A column in one piece: as it is, if it is in one."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _decoded(word: str | bytes) -> str:
    return word.decode("utf-8", "surrogateescape") if isinstance(word, bytes) else word


def _texts_of(column: "pyarrow.Array") -> _Texts:
    """The texts of an Arrow column, without a copy."""
    _, ends, data = column.buffers()
    numbers = np.frombuffer(ends, np.int32)[column.offset : column.offset + len(column) + 1] if len(column) else [0]
    return _Texts(memoryview(data) if data is not None else b"", np.asarray(numbers))
