"""VoxForge: languages."""

import re
from pathlib import Path

from melmask.datasets.base import OURS, Dataset, Expected, Listing, Row
from melmask.datasets.layouts import audio_below, find_list, read_lines
from melmask.datasets.splits import FILE_COLUMNS, evar_name, find_listed, read_split_list, split_speakers


def _voxforge(folder: Path, lists: Path | None) -> Listing:
    official = find_list("voxforge_urls.txt", folder, lists)
    archives = [line.strip("\"'").removeprefix("http://") for line in read_lines(official)]
    for number, archive in enumerate(archives, 1):
        if not re.search(r"/[a-z]{2}/Trunk/.*/[^/]+\.tgz$", archive):
            raise ValueError(f"{official}, line {number}: {archive!r} is not .../LANGUAGE/Trunk/.../SPEAKER-....tgz")
    split_of = split_speakers(_speaker(archive) for archive in archives)
    rows = []
    for archive in archives:
        unpacked = folder / archive.removesuffix(".tgz")
        language, speaker = archive.split("/Trunk/")[0][-2:], _speaker(archive)
        # An archive that does not exist, or holds no recordings, counts as one missing file.
        clips = [path for path in audio_below(unpacked) if path.suffix == ".wav"] or [unpacked]
        rows += [Row(path, language, split_of[speaker], speaker) for path in clips]
    return Listing(rows)


def _voxforge_evar(folder: Path, lists: Path) -> Listing:
    """By a list of recordings, or of speakers, which are looked for below LANGUAGE/Trunk/.../SPEAKER-... alone."""
    column, split_of = read_split_list(lists, (*FILE_COLUMNS, "speaker", "user"))
    clips = [path for path in audio_below(folder) if _language_and_speaker(path.as_posix())]
    if column in FILE_COLUMNS:
        found = find_listed(split_of, clips, folder, _archive_and_name)
        paths = [(path, split_of[name]) for name, path in found.items()]
    else:
        speakers = [_language_and_speaker(path.as_posix()) for path in clips]
        paths = [(p, split_of[who[1]]) for p, who in zip(clips, speakers, strict=True) if who and who[1] in split_of]
    rows = []
    for path, split in paths:
        language, speaker = _language_and_speaker(path.as_posix()) or ("?", "")  # of a listed clip that is not there
        rows.append(Row(path, language, split, speaker))
    listed = {row.path for row in rows}
    return Listing(rows, unlisted=tuple(path for path in clips if path not in listed), split_name=evar_name(lists))


def _archive_and_name(path: Path) -> tuple[str, str]:
    """The archive SPEAKER-DATE-CODE that a recording is of, and its name in it."""
    archives = [part for part in path.parts[:-1] if re.fullmatch(r".+-\d{8}-\w+", part)]
    return archives[-1] if archives else "", path.stem


def _language_and_speaker(path: str) -> tuple[str, str] | None:
    """Language and speaker of a recording in an unpacked archive."""
    found = re.search(r"/([a-z]{2})/Trunk/.*?/([^/-]+)-[^/]*/.*[^/]+$", path)
    return (found[1], found[2]) if found else None


def _speaker(archive: str) -> str:
    return archive.rpartition("/")[2].split("-")[0]


VOXFORGE = Dataset(
    name="voxforge",
    title="VoxForge",
    target="language, of 6",
    clip_s=5.8,  # arXiv 2103.06695, IV-A4
    metric="accuracy",
    split_column="split",
    splits="train/valid/test",
    split_name=OURS,
    collect_evar=_voxforge_evar,
    protocol=(
        "VoxForge has no official split: archives and split are those of TensorFlow Datasets (tfds.audio.Voxforge "
        "1.0.0), whose speakers are shuffled with seed 0 and divided into 70, 10 and 20 %"
    ),
    groups="the speaker's name; all anonymous speakers are one group",
    expected=Expected({}, classes=6, in_every_split=False),
    home="http://www.voxforge.org",
    doi="",
    layout=(
        "www.repository.voxforge1.org/downloads/LANGUAGE/Trunk/Audio/Main/16kHz_16bit/SPEAKER-.../, as `wget -x -i "
        "voxforge_urls.txt` writes it, with each .tgz unpacked into a folder of its own name, and voxforge_urls.txt"
    ),
    collect=_voxforge,
    classes=("de", "en", "es", "fr", "it", "ru"),
    lists="voxforge_urls.txt, from https://storage.googleapis.com/tfds-data/downloads/voxforge/voxforge_urls.txt",
    no_download="it consists of thousands of archives: wget -x -i voxforge_urls.txt",
)
