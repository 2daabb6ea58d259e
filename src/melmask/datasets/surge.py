"""Surge: pitches of a synthesiser."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path

from melmask.data.download import Archive
from melmask.datasets.base import ALL, OURS, Dataset, Expected, Listing, Row
from melmask.datasets.layouts import audio_below
from melmask.datasets.nsynth import PITCHES
from melmask.datasets.splits import evar_name, read_split_list

CUMULATIVE_SHARES = {"train": 0.8, "valid": 0.9, "test": 1.0}  # of the presets


def _surge(folder: Path, lists: Path | None) -> Listing:
    rows, given = [], None
    if lists is not None:
        given = read_split_list(lists, ("preset", "tone"))[1]
    for path in audio_below(folder):
        numbers, preset = re.findall(r"\d+", path.stem), path.parent.name
        if len(numbers) != 1:
            raise ValueError(f"{path} is not named for one MIDI pitch: remove it")
        if given is not None and preset not in given:
            raise ValueError(f"{lists} has no row for the preset {preset!r}: list every preset of the release once")
        rows.append(Row(path, str(int(numbers[0])), given[preset] if given else split_of_preset(preset), preset))
    return Listing(rows, split_name=f"split of {lists.name}" if lists else "")


def _surge_evar(folder: Path, lists: Path) -> Listing:
    return replace(_surge(folder, lists), split_name=evar_name(lists))


def split_of_preset(preset: str) -> str:
    """Train (80 %), valid or test (10 % each) by a hash of the preset's name, so that a subset is split like the whole.

    >>> split_of_preset("Bass 1")
    'train'
    """
    drawn = int.from_bytes(hashlib.sha256(preset.encode("utf-8", "surrogateescape")).digest()[:8], "big") / 2**64
    return next(split for split, end in CUMULATIVE_SHARES.items() if drawn < end)


SURGE = Dataset(
    name="surge",
    title="Surge pitch",
    target="pitch of a synthesiser's note, of 88",
    clip_s=4.0,  # not confirmed: we found no text with the length of its notes
    metric="accuracy",
    split_column="split",
    splits="train/valid/test",
    split_name=OURS,
    collect_evar=_surge_evar,
    protocol=(
        "there is no official split: 80, 10 and 10 % of the presets by the SHA-256 of their names, so that no preset "
        "is in two splits; --lists takes another split as a CSV preset,split or tone,split"
    ),
    groups="the preset",
    expected=Expected({ALL: 2_084 * 88}, classes=88),  # every preset at every pitch; the 2,084 is not confirmed
    home="https://zenodo.org/records/4677097",
    doi="10.5281/zenodo.4677097",
    layout="PRESET/*.ogg, each named for its MIDI pitch, 21 to 108",
    collect=_surge,
    classes=tuple(str(pitch) for pitch in PITCHES),
    lists="optional: a CSV with the columns preset,split or tone,split, for another split",
    # Without a checksum: we could confirm none.
    archives=(Archive("https://zenodo.org/records/4677097/files/surge-velocity64-2K.tar"),),
)
