"""CREMA-D: acted emotions."""

import re
from pathlib import Path

from melmask.datasets.base import ALL, Dataset, Expected, Listing, Row
from melmask.datasets.layouts import audio_below, find_root
from melmask.datasets.splits import split_speakers

ACTORS = [str(actor) for actor in range(1001, 1092)]
EMOTIONS = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
LFS_POINTER = b"version https://git-lfs"


def _crema_d(folder: Path, _lists: Path | None) -> Listing:
    root = find_root(folder, "AudioWAV")
    split_of, rows = split_speakers(ACTORS), []
    for path in audio_below(root / "AudioWAV"):
        name = re.fullmatch(r"(\d{4})_[A-Z]{3}_([A-Z]{3})_\w+", path.stem)
        if name is None or name[1] not in split_of or name[2] not in EMOTIONS:
            raise ValueError(f"{path} is not named ACTOR_SENTENCE_EMOTION_LEVEL.wav: remove it")
        with path.open("rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise ValueError(f"{path} is a pointer of Git LFS and not audio: run git lfs pull in {root}")
        rows.append(Row(path, EMOTIONS[name[2]], split_of[name[1]], name[1]))
    return Listing(rows)


CREMA_D = Dataset(
    name="crema_d",
    title="CREMA-D",
    target="acted emotions in speech",
    clip_s=2.5,  # the mean: 606 MB of 16-bit samples at 16 kHz in 7,442 clips are 2.54 s each
    metric="accuracy",
    split_column="split",
    splits="train/valid/test",
    protocol=(
        "CREMA-D has no official split: speakers are disjoint as in TensorFlow Datasets (tfds.audio.CremaD 1.0.0), the "
        "91 actors shuffled with seed 0 and divided into 63, 9 and 19, so that scores on it are comparable"
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
