"""CREMA-D: acted emotions."""

import re
from pathlib import Path

from melmask.datasets.base import ALL, OURS, Dataset, Expected, Listing, Row
from melmask.datasets.layouts import audio_below, find_root
from melmask.datasets.splits import FILE_COLUMNS, evar_name, find_listed, read_split_list, split_speakers

ACTORS = [str(actor) for actor in range(1001, 1092)]
EMOTIONS = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
LFS_POINTER = b"version https://git-lfs"


def _crema_d(folder: Path, _lists: Path | None) -> Listing:
    split_of = split_speakers(ACTORS)
    return Listing([_row(path, split_of[_parts(path)[0]]) for path in _recordings(folder)])


def _crema_d_evar(folder: Path, lists: Path) -> Listing:
    """By a list of recordings, or of actors."""
    column, split_of = read_split_list(lists, (*FILE_COLUMNS, "actor", "speaker"))
    clips = _recordings(folder)
    if column in FILE_COLUMNS:
        audio = find_root(folder, "AudioWAV") / "AudioWAV"
        found = find_listed(split_of, clips, audio, key=lambda path: path.stem)
        rows = [_row(path, split_of[name]) for name, path in found.items()]
    else:
        rows = [_row(path, split_of[_parts(path)[0]]) for path in clips if _parts(path)[0] in split_of]
    listed = {row.path for row in rows}
    return Listing(rows, unlisted=tuple(path for path in clips if path not in listed), split_name=evar_name(lists))


def _recordings(folder: Path) -> list[Path]:
    root = find_root(folder, "AudioWAV")
    clips = audio_below(root / "AudioWAV")
    for path in clips:
        with path.open("rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise ValueError(f"{path} is a pointer of Git LFS and not audio: run git lfs pull in {root}")
    return clips


def _parts(path: Path) -> tuple[str, str]:
    """Actor and emotion in a recording's name."""
    name = re.fullmatch(r"(\d{4})_[A-Z]{3}_([A-Z]{3})_\w+", path.stem)
    if name is None or name[1] not in ACTORS or name[2] not in EMOTIONS:
        raise ValueError(f"{path} is not named ACTOR_SENTENCE_EMOTION_LEVEL.wav: remove it")
    return name[1], EMOTIONS[name[2]]


def _row(path: Path, split: str) -> Row:
    actor, emotion = _parts(path)
    return Row(path, emotion, split, actor)


CREMA_D = Dataset(
    name="crema_d",
    title="CREMA-D",
    target="acted emotions in speech",
    clip_s=2.5,  # the mean: 606 MB of 16-bit samples at 16 kHz in 7,442 clips are 2.54 s each
    metric="accuracy",
    split_column="split",
    splits="train/valid/test",
    split_name=OURS,
    collect_evar=_crema_d_evar,
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
