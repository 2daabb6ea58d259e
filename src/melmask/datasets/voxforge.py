"""VoxForge: languages."""

import re
from pathlib import Path

from melmask.datasets.base import Expected, Listing, NamedTask, Row
from melmask.datasets.layouts import audio_below, deal_speakers, find_list, read_lines


def _voxforge(folder: Path, lists: Path | None) -> Listing:
    official = find_list("voxforge_urls.txt", folder, lists)
    archives = [line.strip("\"'").removeprefix("http://") for line in read_lines(official)]
    for number, archive in enumerate(archives, 1):
        if not re.search(r"/[a-z]{2}/Trunk/.*/[^/]+\.tgz$", archive):
            raise ValueError(f"{official}, line {number}: {archive!r} is not .../LANGUAGE/Trunk/.../SPEAKER-....tgz")
    split_of = deal_speakers(_speaker(archive) for archive in archives)
    rows = []
    for archive in archives:
        unpacked = folder / archive.removesuffix(".tgz")
        language, speaker = archive.split("/Trunk/")[0][-2:], _speaker(archive)
        # An archive that is not there, or has no recordings in it, is missing as a whole.
        clips = [path for path in audio_below(unpacked) if path.suffix == ".wav"] or [unpacked]
        rows += [Row(path, language, split_of[speaker], speaker) for path in clips]
    return Listing(rows)


def _speaker(archive: str) -> str:
    return archive.rpartition("/")[2].split("-")[0]


VOXFORGE = NamedTask(
    name="voxforge",
    title="VoxForge",
    what="language, of 6",
    clip_s=5.8,  # arXiv 2103.06695, IV-A4
    metric="accuracy",
    column="split",
    splits="train/valid/test",
    protocol=(
        "VoxForge has no official split: archives and split of TensorFlow Datasets (tfds.audio.Voxforge 1.0.0), whose "
        "speakers are shuffled with seed 0 and dealt 70, 10 and 20 %"
    ),
    groups="the speaker's name; all that are called anonymous are one",
    expected=Expected({}, classes=6, in_every_split=False),
    home="http://www.voxforge.org",
    doi="",
    layout=(
        "www.repository.voxforge1.org/downloads/LANGUAGE/Trunk/Audio/Main/16kHz_16bit/SPEAKER-.../, as `wget -x -i "
        "voxforge_urls.txt` leaves it, with each .tgz unpacked into a folder of its own name, and voxforge_urls.txt"
    ),
    collect=_voxforge,
    classes=("de", "en", "es", "fr", "it", "ru"),
    lists="voxforge_urls.txt, from https://storage.googleapis.com/tfds-data/downloads/voxforge/voxforge_urls.txt",
    no_download="it is thousands of archives: wget -x -i voxforge_urls.txt",
)
