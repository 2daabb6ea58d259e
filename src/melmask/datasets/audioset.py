"""AudioSet, with its balanced and with its full training set."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from melmask.datasets.base import OFFICIAL, Dataset, Expected, Listing, Row
from melmask.datasets.layouts import audio_below, find_list, read_table

ID_CHARACTERS = 11  # of a YouTube video id
NUM_BALANCED, NUM_UNBALANCED, NUM_EVALUATION = 22_160, 2_041_789, 20_371  # segments in the lists


def video_of(stem: str) -> str:
    """The id of the YouTube video in a file name: alone, after a ``Y``, or before ``_`` and times; "" if there is none.

    >>> [video_of(stem) for stem in ("-0SdAVK79lg", "Y-0SdAVK79lg", "-0SdAVK79lg_30.000", "speech")]
    ['-0SdAVK79lg', '-0SdAVK79lg', '-0SdAVK79lg', '']
    """
    for start in (1, 0) if stem.startswith("Y") and len(stem) > ID_CHARACTERS else (0,):
        video, rest = stem[start : start + ID_CHARACTERS], stem[start + ID_CHARACTERS :]
        if len(video) == ID_CHARACTERS and rest[:1] in ("", "_"):
            return video
    return ""


def _collect_lists(folder: Path, lists: Path | None, parts: Sequence[tuple[str, str]]) -> Listing:
    """Read segment lists, given with their splits, and find each video's audio by name anywhere in the folder."""
    if lists is not None and lists.is_file():
        raise ValueError(f"{lists} is one list: give the folder that holds all of them")
    labels = read_table(find_list("class_labels_indices.csv", folder, lists), ("mid", "display_name"))
    name_of = {row["mid"]: row["display_name"] for row in labels}
    with_semicolon = [name for name in name_of.values() if ";" in name]
    if with_semicolon:
        raise ValueError(f"the class {with_semicolon[0]!r} has a ; in its name, which separates labels")
    path_of: dict[str, Path] = {}
    for path in audio_below(folder):
        path_of.setdefault(video_of(path.stem), path)
    rows = []
    for name, split in parts:
        official = find_list(name, folder, lists)
        for number, video, mids in _segments(official):
            unknown = [mid for mid in mids if mid not in name_of]
            if unknown:
                raise ValueError(f"{official}, line {number}: {unknown[0]} is not in class_labels_indices.csv")
            rows.append(Row(path_of.get(video, folder / video), ";".join(name_of[mid] for mid in mids), split))
    return Listing(rows, classes=tuple(name_of.values()))


def _segments(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """The segments of a list: line number, video id, and class ids."""
    with path.open(newline="", encoding="utf-8") as file:
        for number, cells in enumerate(csv.reader(file, skipinitialspace=True), 1):
            if not cells or cells[0].startswith("#"):
                continue
            if len(cells) != 4:
                raise ValueError(
                    f"{path}, line {number}: {len(cells)} cells, not YTID, start_seconds, end_seconds, labels"
                )
            yield number, cells[0], cells[3].split(",")


def _collect_20k(folder: Path, lists: Path | None) -> Listing:
    return _collect_lists(folder, lists, (("balanced_train_segments.csv", "train"), ("eval_segments.csv", "test")))


def _collect_2m(folder: Path, lists: Path | None) -> Listing:
    training = (("balanced_train_segments.csv", "train"), ("unbalanced_train_segments.csv", "train"))
    return _collect_lists(folder, lists, (*training, ("eval_segments.csv", "test")))


AUDIOSET_20K = Dataset(
    name="audioset20k",
    title="AudioSet-20K",
    target="sound events, several a clip",
    clip_s=10.0,  # of every segment, except at the end of a video
    metric="mAP",
    split_column="split",
    splits="train/test",
    split_name=OFFICIAL,
    protocol=(
        "official lists: balanced training segments as train, evaluation segments as test; a validation split is "
        "drawn from train. Videos disappear, so the clips that exist are counted: report the counts with the score"
    ),
    groups="",
    expected=Expected({"train": NUM_BALANCED, "test": NUM_EVALUATION}, classes=527),
    home="https://research.google.com/audioset/download.html",
    doi="10.1109/ICASSP.2017.7952261",
    layout=(
        "class_labels_indices.csv, balanced_train_segments.csv and eval_segments.csv (for AudioSet-2M also "
        "unbalanced_train_segments.csv), with audio files named YTID, Y + YTID or YTID_start... anywhere below"
    ),
    collect=_collect_20k,
    no_download="only its lists are distributed; the audio is that of YouTube videos",
    may_lack_clips=True,
)

AUDIOSET_2M = replace(
    AUDIOSET_20K,
    name="audioset2m",
    title="AudioSet-2M",
    protocol=AUDIOSET_20K.protocol.replace("balanced training", "balanced and unbalanced training"),
    expected=Expected({"train": NUM_BALANCED + NUM_UNBALANCED, "test": NUM_EVALUATION}, classes=527),
    collect=_collect_2m,
)
