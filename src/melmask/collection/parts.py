"""Embeddings of any number of recordings: block by block, each kept as it is done, so that a killed call resumes."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64, Int

from melmask.collection.sources import Block, blocks, found
from melmask.collection.windows import Division, WindowedStore
from melmask.data.manifest import Clip, Rejected
from melmask.data.prepare import NothingUsable, prepare
from melmask.data.store import NotedClip, Store
from melmask.data.writing import NearlySilent
from melmask.encoders.base import AudioEncoder
from melmask.files import atomic_write, read_json, remove_temporaries, write_json
from melmask.locks import exclusive, temporary_folder
from melmask.logmel import LogMelSpec

# Whole recordings are embedded in groups of 1,024, as `embed_store` does, so that blocks change no bit.
WHOLE_BLOCK, PART_BLOCK = (1024, 2**30), (64, 2**26)  # files, and bytes if there are several
WINDOWS_AT_ONCE, STEPS_AT_ONCE = 2048, 16_384  # rows of a part
SETTINGS = "settings.json"
COLUMNS = ("path", "label", "fold", "group", "source")
ARRAYS = ("row", "features", "start_s", "end_s")
DEFAULT_SPEC = LogMelSpec()

Show = Callable[[str, int, int | None], None]  # what is done, recordings so far, and in all if that is known


def show_nothing(note: str, done: int, total: int | None) -> None:
    """Show no progress."""


@dataclass(frozen=True, eq=False)
class Part:
    """Some embeddings.

    Args:
        clips: the recordings of a block.
        row: the number of the clip that each embedding is of.
        features: the embeddings; of time steps in half precision.
        start_s, end_s: of each within its recording, in seconds; nan for whole recordings.
    """

    clips: Sequence[Clip]
    row: Int[np.ndarray, " row"]
    features: Float[np.ndarray, "row dim"]
    start_s: Float64[np.ndarray, " row"]
    end_s: Float64[np.ndarray, " row"]

    def column(self, name: str) -> list[str]:
        """A column of the listings, a text for each embedding; empty where there is none."""
        texts = [str(getattr(clip, name) or "") for clip in self.clips]
        return [texts[row] for row in self.row.tolist()]


@dataclass(frozen=True)
class Done:
    """A block that is embedded.

    Args:
        folder: of the parts.
        key: of the block.
        clips: the recordings that were used, as lists in the order of `COLUMNS`.
        rejected, notes: what was found about the others, and about these.
        num_rows: embeddings.
        num_dims: of an embedding; 0 if there is none.
        num_parts: files.
    """

    folder: Path
    key: str
    clips: list[list[str | None]]
    rejected: list[list[str]]
    notes: list[list[str]]
    num_rows: int
    num_dims: int
    num_parts: int

    @staticmethod
    def read(folder: Path, key: str) -> "Done | None":
        """What was kept of a block; None if it is not done."""
        path = folder / f"{key}.json"
        return Done(folder, key, **read_json(path, "list of embeddings")) if path.exists() else None

    def parts(self) -> Iterator[Part]:
        """The embeddings, one part after the other."""
        clips = [Clip(Path(str(one[0])), one[1], one[2], one[3], str(one[4])) for one in self.clips]
        for number in range(self.num_parts):
            with np.load(_part(self.folder, self.key, number)) as file:
                yield Part(clips, *(file[name] for name in ARRAYS))

    def rejections(self) -> list[Rejected]:
        """What was rejected."""
        return [Rejected(Path(path), *more) for path, *more in self.rejected]

    def noted(self) -> list[NotedClip]:
        """What was found about recordings that are used."""
        return [NotedClip(Path(path), *more) for path, *more in self.notes]


def embed_in_blocks(
    encoder: AudioEncoder,
    recordings: Iterable[Clip | Rejected],
    folder: Path,
    division: Division,
    *,
    num_workers: int | None = None,
    show: Show = show_nothing,
) -> list[Done]:
    """Embed recordings block by block; what an earlier call left in the folder is not computed again.

    Args:
        encoder: what embeds.
        recordings: see `melmask.collection.sources.found`; they are read as they are needed.
        folder: where parts are kept until they are put together; other settings than those of an earlier call, or
            another encoder, start anew.
        division: what an embedding is of.
        num_workers: processes that decode, as of `melmask.data.prepare.prepare`.
        show: called as recordings are embedded.

    Raises:
        ValueError: time steps are asked of an encoder that has none.
        RuntimeError: another process is writing to the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done: list[Done] = []
    with exclusive(folder / "lock", f"another process is writing to {folder}: wait for it, or choose another output"):
        _check_settings(folder, {"encoder": encoder.identity, **asdict(division)}, keep=bool(encoder.identity))
        remove_temporaries(folder)
        parts = blocks(recordings, *(PART_BLOCK if division.has_times else WHOLE_BLOCK))
        first = list(islice(parts, 2))
        total = len(first[0].clips) if len(first) == 1 else None
        num_done = 0
        for block in chain(first, parts):
            kept = Done.read(folder, block.key)
            if kept is None:
                kept = _embed(encoder, block, folder, division, num_workers, _shifted(show, num_done, total))
            done.append(kept)
            num_done += len(block.clips)
            show("", num_done, total)
    return done


def embedded(
    encoder: AudioEncoder, sources: Sequence[str], num_workers: int | None = None, show: Show = show_nothing
) -> tuple[list[Clip], Float32[np.ndarray, "clip dim"], list[Rejected]]:
    """Whole recordings with their embeddings, in memory, and what was rejected.

    Raises:
        NothingUsable: no recording can be used.
    """
    with temporary_folder() as folder:
        done = embed_in_blocks(
            encoder, found(sources), folder / "parts", Division(), num_workers=num_workers, show=show
        )
        rejected = [one for block in done for one in block.rejections()]
        parts = [part for block in done for part in block.parts()]
    if not parts:
        raise NothingUsable(rejected, Path(sources[0]))
    clips = [part.clips[row] for part in parts for row in part.row.tolist()]
    return clips, np.concatenate([part.features for part in parts]), rejected


def _shifted(show: Show, num_before: int, total: int | None) -> Callable[[str, float], None]:
    return lambda note, num: show(note, num_before + int(num), total)


def _check_settings(folder: Path, settings: dict[str, Any], keep: bool) -> None:
    """Remove what was made with other settings, or by an encoder that cannot tell whether it is the same."""
    path = folder / SETTINGS
    if not (keep and path.exists() and read_json(path, "list of settings") == settings):
        for file in folder.iterdir():
            if file.is_dir():
                shutil.rmtree(file)
            elif file.name != "lock":
                file.unlink()
        write_json(path, settings)


def _part(folder: Path, key: str, number: int) -> Path:
    return folder / f"{key}-{number:05}.npz"


def _embed(
    encoder: AudioEncoder,
    block: Block,
    folder: Path,
    division: Division,
    num_workers: int | None,
    show: Callable[[str, float], None],
) -> Done:
    """Embed a block, part by part."""
    store_folder = folder / f"{block.key}.store"
    rejected: Sequence[Rejected] = block.rejected
    store: Store | None = None
    if block.clips:
        spec = encoder.spec or DEFAULT_SPEC

        def prepared(done: int, total: int, audio_s: float, num_rejected: int) -> None:
            show(f"{audio_s / 3600:.2f} h decoded", 0)

        try:
            listed = block.clips, block.rejected
            store = prepare([], store_folder, spec=spec, num_workers=num_workers, progress=prepared, listed=listed)
            rejected = store.rejected
        except NothingUsable as error:
            rejected = error.rejected
        except NearlySilent as error:
            silent = [Rejected(clip.path, "nearly silent", str(error), clip.source) for clip in block.clips]
            rejected = [*block.rejected, *silent]
    num_rows = num_dims = num_parts = 0
    for part in _made(encoder, store, division, lambda n: _part(folder, block.key, n), show) if store else ():
        num_rows, num_dims, num_parts = num_rows + len(part.features), part.features.shape[1], num_parts + 1
    clips = [stored.clip for stored in store.clips] if store else []
    values: dict[str, Any] = {
        "clips": [[str(clip.path), clip.label, clip.fold, clip.group, clip.source] for clip in clips],
        "rejected": [[str(one.path), one.reason, one.detail, one.source] for one in rejected],
        "notes": [[str(note.path), note.kind, note.detail, note.source] for note in (store.notes if store else [])],
        "num_rows": num_rows,
        "num_dims": num_dims,
        "num_parts": num_parts,
    }
    write_json(folder / f"{block.key}.json", values)
    shutil.rmtree(store_folder, ignore_errors=True)
    return Done(folder, block.key, **values)


def _made(
    encoder: AudioEncoder,
    store: Store,
    division: Division,
    place: Callable[[int], Path],
    show: Callable[[str, float], None],
) -> Iterator[Part]:
    """The parts of a block; those that are there already are read, all others computed and written."""
    divided = division.of(store)
    clips = [stored.clip for stored in store.clips]
    steps = _time_steps(encoder, store, place(0).with_suffix(".steps"), show) if division.frames else None
    num_rows, at_once = (len(steps.row), STEPS_AT_ONCE) if steps else (len(divided), WINDOWS_AT_ONCE)
    for number, first in enumerate(range(0, num_rows, at_once)):
        path, rows = place(number), range(first, min(num_rows, first + at_once))
        if path.exists():
            with np.load(path) as file:
                yield Part(clips, *(file[name] for name in ARRAYS))
            continue
        if steps:
            some = slice(rows.start, rows.stop)
            part = Part(clips, *(getattr(steps, name)[some] for name in ARRAYS))
        else:

            def progress(done: int, total: int, first: int = first, rows: range = rows) -> None:
                show("", len(store) * (first + len(rows) * done / max(1, total)) / num_rows)

            spans = np.array([divided.span_s(row) for row in rows] if division.window_s else [[np.nan] * 2] * len(rows))
            row = divided.row_of[first : rows.stop] if isinstance(divided, WindowedStore) else np.array(rows)
            part = Part(clips, row, encoder.embed_store(divided, rows, progress), spans[:, 0], spans[:, 1])
        with atomic_write(path) as temporary, temporary.open("wb") as out:
            np.savez(out, **{name: getattr(part, name) for name in ARRAYS})
        yield part
    place(0).with_suffix(".steps").unlink(missing_ok=True)


def _time_steps(encoder: AudioEncoder, store: Store, path: Path, show: Callable[[str, float], None]) -> Part:
    """The time steps of all clips, in a file that is mapped, so that a recording of a day needs little memory."""

    def allocate(shape: tuple[int, int]) -> np.ndarray:
        return np.lib.format.open_memmap(path, "w+", np.float16, shape)

    def progress(done: int, total: int) -> None:
        show("", len(store) * done / max(1, total))

    steps = encoder.time_steps(store, None, progress, allocate)
    row = np.repeat(np.arange(len(store)), steps.length)
    start_s = (np.arange(len(row)) - np.repeat(steps.start, steps.length)) * encoder.step_s
    sound_s = np.array([(stored.num_frames - 1) / store.spec.frames_per_s for stored in store.clips])[row]
    return Part([], row, steps.steps, start_s, np.maximum(start_s, np.minimum(start_s + encoder.step_s, sound_s)))
