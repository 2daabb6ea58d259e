"""A task's recordings: prepared once, kept in the cache, and embedded by every encoder alike."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int

from melmask.data.checks import Verify
from melmask.data.prepare import prepare
from melmask.data.store import REJECTED, Store
from melmask.datasets.build import split_of
from melmask.encoders.cache import Reads, cached_features
from melmask.encoders.fixed_length import ClipLength, at_clip_length
from melmask.encoders.registry import NamedEncoder
from melmask.encoders.timesteps import TimeSteps
from melmask.evaluation.protocol import EXCERPTS, ProtocolName
from melmask.evaluation.task import Task, read_task, usable_part
from melmask.logmel import LogMelSpec
from melmask.runtime import cache_folder

ShowProgress = Callable[[str, int, int], None]  # called with (what is being done, number done, number in all)


def show_nothing(what: str, done: int, total: int) -> None:
    """The progress of a call that nobody watches."""


def task_store_folder(table: Path, spec: LogMelSpec) -> Path:
    """The folder in the cache that holds a task's log-mels.

    Args:
        table: the task's CSV.
        spec: the log-mel settings; other settings have another folder.
    """
    key = hashlib.sha256(f"{table.resolve()} {spec}".encode()).hexdigest()[:12]
    return cache_folder() / "tasks" / f"{table.stem}-{key}"


def prepare_task(
    table: Path,
    spec: LogMelSpec,
    *,
    num_workers: int | None = None,
    verify: Verify = "first",
    progress: ShowProgress = show_nothing,
) -> Store:
    """Prepare a task's recordings in the cache, or find them there.

    Args:
        table: a CSV with path,label[,fold][,group].
        spec: the log-mel settings.
        num_workers: processes that decode; 0 decodes in this process; None: as of `prepare`.
        verify: what is compared with checksums; what is damaged is made again.
        progress: called with what is being done, and the number of clips done and in all.

    Raises:
        ValueError, RuntimeError: see `melmask.data.prepare.prepare`.
    """

    def show(done: int, total: int, audio_s: float, num_rejected: int) -> None:
        rejected = f", {num_rejected} rejected" if num_rejected else ""
        progress(f"preparing, {audio_s / 3600:.2f} h of audio{rejected}", done, total)

    return prepare(
        [table], task_store_folder(table, spec), spec=spec, num_workers=num_workers, verify=verify, progress=show
    )


@dataclass(frozen=True, eq=False)
class PreparedTask:
    """A task with the log-mels of its clips.

    Args:
        table: its CSV.
        task: labels, folds and groups of the clips that lie in all stores.
        stores: with different log-mel settings, at the task's clip length, as clips are trained on.
        test_stores: the same, as clips are tested.
        rows: of each store the rows of these clips, in the task's order.
        clip_s: length of the clips in seconds; 0 for whole clips.
    """

    table: Path
    task: Task
    stores: Sequence[Store]
    test_stores: Sequence[Store]
    rows: Sequence[Int[np.ndarray, " clip"]]
    clip_s: float
    protocol: ProtocolName = "melmask"

    @staticmethod
    def of(
        table: Path,
        stores: Sequence[Store],
        clip_length: ClipLength,
        protocol: ProtocolName = "melmask",
        *,
        name: str = "",
        allow_duplicates: bool = False,
    ) -> "PreparedTask":
        """Join the stores that a table was prepared to.

        Args:
            table: the task's CSV.
            stores: at least one, each with other log-mel settings.
            clip_length, protocol, allow_duplicates: see `EvaluationSettings`.
            name: of the task; the table's if empty.

        Raises:
            ValueError: the table is no task, its record is damaged, or a class or fold has no clip in all stores.
        """
        excerpts, whole = EXCERPTS[protocol], stores
        stores, clip_s = at_clip_length(whole, table, clip_length, excerpts.train)
        test_stores = at_clip_length(whole, table, clip_s, excerpts.test)[0]
        rows = _shared_rows(stores)
        task = task_in_store(table, stores[0], rows[0].tolist(), name=name, allow_duplicates=allow_duplicates)
        return PreparedTask(table, task, stores, test_stores, rows, clip_s, protocol)

    @property
    def split_name(self) -> str:
        """What tables call its split."""
        return split_name(self.table, self.task)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the scores has to know of the clips."""
        if not self.clip_s:
            return ()
        return (EXCERPTS[self.protocol].note.format(self.clip_s),)

    def features(
        self, encoder: NamedEncoder, reads: Reads, progress: ShowProgress = show_nothing, *, tested: bool = False
    ) -> Float32[np.ndarray, "clip dim"] | TimeSteps:
        """Embed the clips, or read their features from the cache.

        Args:
            encoder: any, with one of the stores' log-mel settings or none.
            reads: what the probe reads.
            progress: called with the number of chunks done and in all.
            tested: the clips as they are tested, not as they are trained on.

        Raises:
            ValueError: the encoder cannot embed these clips.
        """
        specs = [store.spec for store in self.stores]
        number = specs.index(encoder.encoder.spec or specs[0])

        def show(done: int, total: int) -> None:
            progress(f"{encoder.name}: embedding", done, total)

        store = (self.test_stores if tested else self.stores)[number]
        return cached_features(reads, encoder.encoder, store, progress=show)[self.rows[number]]

    @property
    def is_tested_as_trained(self) -> bool:
        """Whether the same part of a clip is read in training and testing."""
        return not self.clip_s or EXCERPTS[self.protocol].train == EXCERPTS[self.protocol].test


def split_name(table: Path, task: Task) -> str:
    """What tables call a task's split: what the record beside its table says, or whose the folds are.

    Raises:
        ValueError: the record is damaged.
    """
    return split_of(table) or ("random folds" if task.folds is None else "split of the table")


def task_in_store(
    table: Path, store: Store, rows: Sequence[int] | None = None, *, name: str = "", allow_duplicates: bool = False
) -> Task:
    """The task of the clips that a store has of a table, in the store's order.

    Args:
        table: the task's CSV.
        store: the table, prepared.
        rows: of the store; None for all.
        name: of the task; the table's if empty.
        allow_duplicates: see `EvaluationSettings`.

    Raises:
        ValueError: the table is no task, the store was made of another table, or a class or fold has no usable clip.
    """
    whole = read_task(table, name)
    part = usable_part(whole, *rows_in_table(whole.paths, table, store, rows))
    return replace(part, allow_duplicates=allow_duplicates)


def rows_in_table(
    paths: Sequence[Path], table: Path, store: Store, rows: Sequence[int] | None = None
) -> tuple[list[int], list[tuple[str, str]], str]:
    """What `usable_part` needs: the rows of a table that lie in a store, their contents, and where the rest is listed.

    Args:
        paths: of the recordings in the table.
        table: the CSV.
        store: the table, prepared.
        rows: of the store; None for all.

    Raises:
        ValueError: the store has a clip that the table does not have.
    """
    number = {path: row for row, path in enumerate(paths)}
    contents, rows = store.contents(), range(len(store)) if rows is None else rows
    found = [store.clips[row].clip.path for row in rows]
    for path in found:
        if path not in number:
            raise ValueError(f"{path} in {store.folder} is not in {table}: the table has changed, so prepare it again")
    return [number[path] for path in found], [contents[row] for row in rows], str(store.folder / REJECTED)


def _shared_rows(stores: Sequence[Store]) -> list[Int[np.ndarray, " clip"]]:
    """Of each store the rows of the clips that all of them hold, in the order of the first."""
    row_of = [{stored.clip.path: row for row, stored in enumerate(store.clips)} for store in stores]
    shared = [stored.clip.path for stored in stores[0].clips if all(stored.clip.path in rows for rows in row_of)]
    if not shared:
        raise ValueError(
            "no recording can be used with the log-mel settings of all encoders: see the lists of rejected files"
        )
    return [np.array([rows[path] for path in shared]) for rows in row_of]
