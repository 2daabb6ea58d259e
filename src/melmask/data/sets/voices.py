"""Sets of speech: Speech Commands, VoxCeleb1, VoxForge and CREMA-D."""

import itertools
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from melmask.data.download import Archive
from melmask.data.sets.layouts import audio_below, find_list, find_root, read_lines, unlisted
from melmask.data.sets.named_task import ALL, Expected, Listing, NamedTask, Row

SHARES = {"train": 0.7, "valid": 0.1, "test": 0.2}  # of the speakers, in TensorFlow Datasets
ACTORS = [str(actor) for actor in range(1001, 1092)]
EMOTIONS = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
COMMANDS = (  # noqa: SIM905
    "backward bed bird cat dog down eight five follow forward four go happy house learn left marvin nine no off on "
    "one right seven sheila six stop three tree two up visual wow yes zero"
).split()
LFS_POINTER = b"version https://git-lfs"


def deal_speakers(speakers: Iterable[str]) -> dict[str, str]:
    """The split of each speaker: 70 % train, 10 % valid, 20 % test, by a shuffle with seed 0.

    Args:
        speakers: names; those given several times count once.

    Source: `tfds.audio.CremaD` and `tfds.audio.Voxforge`, version 1.0.0. Deviates: not at all.

    >>> deal_speakers(["anna", "ben", "anna", "cleo"])
    {'cleo': 'train', 'ben': 'train', 'anna': 'test'}
    """
    order = sorted(set(speakers))
    # The old generator's stream is frozen, so that this shuffle gives the same split for ever.
    np.random.RandomState(0).shuffle(order)
    ends = [int(share * len(order)) for share in itertools.accumulate(SHARES.values())]
    ends[-1] = len(order)
    split = {}
    for name, start, end in zip(SHARES, [0, *ends], ends, strict=False):
        split.update(dict.fromkeys(order[start:end], name))
    return split


def _speech_commands(folder: Path, _lists: Path | None) -> Listing:
    root = find_root(folder, "testing_list.txt")
    split_of = dict.fromkeys(read_lines(root / "validation_list.txt"), "valid")
    split_of |= dict.fromkeys(read_lines(root / "testing_list.txt"), "test")
    words = [path for path in sorted(root.iterdir()) if path.is_dir() and path.name[0] not in "_."]
    there = [path.relative_to(root).as_posix() for path in audio_below(*words)]
    names = dict.fromkeys([*there, *split_of])  # each once, in order
    rows = [
        Row(root / name, name.split("/")[0], split_of.get(name, "train"), Path(name).stem.split("_nohash_")[0])
        for name in names
    ]
    return Listing(rows)


def _voxceleb1(folder: Path, lists: Path | None) -> Listing:
    # The two archives, dev and test, each unpack to a folder wav.
    places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    roots = [place / "wav" for place in places if (place / "wav").is_dir()]
    if not roots:
        raise ValueError(f"there is no folder wav in {folder}, nor in a folder in it")
    path_of = {path.relative_to(root).as_posix(): path for root in roots for path in audio_below(root)}
    official = find_list("iden_split.txt", folder, lists)
    rows = []
    for number, line in enumerate(read_lines(official), 1):
        part, _, name = line.partition(" ")
        if part not in ("1", "2", "3") or name.count("/") != 2:
            raise ValueError(f"{official}, line {number}: {line!r} is not '1 SPEAKER/VIDEO/NUMBER.wav'")
        split, (speaker, video, _) = {"1": "train", "2": "valid", "3": "test"}[part], name.split("/")
        rows.append(Row(path_of.get(name, roots[0] / name), speaker, split, f"{speaker}/{video}"))
    return Listing(rows, unlisted=unlisted(rows, *roots))


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


def _crema_d(folder: Path, _lists: Path | None) -> Listing:
    root = find_root(folder, "AudioWAV")
    split_of, rows = deal_speakers(ACTORS), []
    for path in audio_below(root / "AudioWAV"):
        name = re.fullmatch(r"(\d{4})_[A-Z]{3}_([A-Z]{3})_\w+", path.stem)
        if name is None or name[1] not in split_of or name[2] not in EMOTIONS:
            raise ValueError(f"{path} is not named ACTOR_SENTENCE_EMOTION_LEVEL.wav: take it out")
        with path.open("rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise ValueError(f"{path} is a pointer of Git LFS and no audio: run git lfs pull in {root}")
        rows.append(Row(path, EMOTIONS[name[2]], split_of[name[1]], name[1]))
    return Listing(rows)


SPEECH_COMMANDS = NamedTask(
    name="speech_commands",
    title="Speech Commands v0.02",
    what="spoken commands, all 35 words",
    unit_s=1.0,  # arXiv 2103.06695, IV-A4
    metric="accuracy",
    column="split",
    splits="train/valid/test",
    protocol="the official lists: validation_list.txt, testing_list.txt, all others train; without background noise",
    groups="the speaker",
    expected=Expected({"train": 84_843, "valid": 9_981, "test": 11_005}, classes=35),
    home="https://arxiv.org/abs/1804.03209",
    doi="10.48550/arXiv.1804.03209",
    layout="a folder with validation_list.txt, testing_list.txt and a folder of .wav for each word",
    collect=_speech_commands,
    classes=tuple(COMMANDS),
    archives=(
        Archive(
            "https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
            "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
        ),
    ),
)

VOXCELEB1 = NamedTask(
    name="voxceleb1",
    title="VoxCeleb1",
    what="who speaks, of 1,251",
    unit_s=8.2,  # arXiv 2103.06695, IV-A4
    metric="accuracy",
    column="split",
    splits="train/valid/test",
    protocol="the official split for identification, iden_split.txt",
    groups="the speaker's video",
    expected=Expected({"train": 138_361, "valid": 6_904, "test": 8_251}, classes=1_251),
    home="https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html",
    doi="10.21437/Interspeech.2017-950",
    layout="wav/SPEAKER/VIDEO/*.wav of vox1_dev_wav.zip and vox1_test_wav.zip, in one folder or two; iden_split.txt",
    collect=_voxceleb1,
    lists="iden_split.txt, from https://www.robots.ox.ac.uk/~vgg/data/voxceleb/meta/iden_split.txt",
    no_download="it is given out on request",
)

VOXFORGE = NamedTask(
    name="voxforge",
    title="VoxForge",
    what="language, of 6",
    unit_s=5.8,  # arXiv 2103.06695, IV-A4
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

CREMA_D = NamedTask(
    name="crema_d",
    title="CREMA-D",
    what="acted emotions in speech",
    unit_s=2.5,  # on average: 606 MB of 16-bit samples at 16 kHz in 7,442 clips are 2.54 s each
    metric="accuracy",
    column="split",
    splits="train/valid/test",
    protocol=(
        "CREMA-D has no official split: speakers are disjoint as in TensorFlow Datasets (tfds.audio.CremaD 1.0.0), the "
        "91 actors shuffled with seed 0 and dealt 63, 9 and 19, so that figures can be compared with those on it"
    ),
    groups="the actor",
    expected=Expected({ALL: 7_442}, classes=6),
    home="https://github.com/CheyneyComputerScience/CREMA-D",
    doi="10.1109/TAFFC.2014.2336244",
    layout="AudioWAV/ACTOR_SENTENCE_EMOTION_LEVEL.wav",
    collect=_crema_d,
    classes=tuple(EMOTIONS.values()),
    no_download="its audio is in Git LFS: clone github.com/CheyneyComputerScience/CREMA-D with git-lfs installed",
)
