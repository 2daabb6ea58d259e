"""Recordings in archives: WebDataset tars, and HDF5 files with a data set a recording; none is unpacked."""

from pathlib import Path, PurePosixPath

from melmask.audio import ARCHIVE_EXTENSIONS, AUDIO_EXTENSIONS, AudioError
from melmask.audio.places import HDF5_EXTENSIONS, members_of, opened_content

LOG_MEL_EXTENSION = ".npy"
RECORDING_EXTENSIONS = AUDIO_EXTENSIONS | {LOG_MEL_EXTENSION}
CLASS_EXTENSION = ".cls"  # of WebDataset: a file with the class of the sample that has its name
MAX_CLASS_BYTES = 4096


def is_archive(path: Path) -> bool:
    """Whether its name is that of an archive."""
    return path.suffix.lower() in ARCHIVE_EXTENSIONS


def recordings_in(archive: Path) -> tuple[list[tuple[Path, str | None]], list[Path]]:
    """The recordings in an archive, in its order, with their classes, and what else is in it.

    Args:
        archive: a tar, whose members of one name but different extensions are one sample, or an HDF5 file.

    Returns:
        Path and class of each recording, with None for one without a class; and the members that belong to none.

    Raises:
        AudioError: it is damaged, or a library is missing.

    Source: the conventions of WebDataset, for names and for the extension cls. Deviates: other metadata is not read.
    """
    members = members_of(archive)
    if archive.suffix.lower() in HDF5_EXTENSIONS:
        return [(archive / name, None) for name in members], []
    recordings = [name for name in members if PurePosixPath(name).suffix.lower() in RECORDING_EXTENSIONS]
    samples = {_sample(name) for name in recordings}
    classes = {_sample(name): name for name in members if name.endswith(CLASS_EXTENSION)}
    labelled = [(archive / name, _class(archive, classes.get(_sample(name)))) for name in recordings]
    return labelled, [archive / name for name in members if _sample(name) not in samples]


def _sample(name: str) -> str:
    """What the members of a sample have in common: all before the first dot of the name."""
    path = PurePosixPath(name)
    return str(path.parent / path.name.partition(".")[0])


def _class(archive: Path, name: str | None) -> str | None:
    if name is None:
        return None
    try:
        with opened_content(archive / name) as content:
            return content.read(0, MAX_CLASS_BYTES).decode(errors="replace").strip() or None
    except AudioError:  # it is empty
        return None
