"""Speech Commands: spoken words."""

from pathlib import Path

from melmask.data.download import Archive
from melmask.datasets.base import OFFICIAL, Dataset, Expected, Listing, Row
from melmask.datasets.layouts import audio_below, find_root, read_lines

COMMANDS = (  # noqa: SIM905
    "backward bed bird cat dog down eight five follow forward four go happy house learn left marvin nine no off on "
    "one right seven sheila six stop three tree two up visual wow yes zero"
).split()


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


SPEECH_COMMANDS = Dataset(
    name="speech_commands",
    title="Speech Commands v0.02",
    target="spoken commands, all 35 words",
    clip_s=1.0,  # arXiv 2103.06695, IV-A4
    metric="accuracy",
    split_column="split",
    splits="train/valid/test",
    split_name=OFFICIAL,
    protocol="the official lists validation_list.txt and testing_list.txt, all others train; without background noise",
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
