"""Sets of music and notes: GTZAN, NSynth and Surge."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from melmask.data.download import Archive

SPLITS = ("train", "valid", "test")

ALL = "all"  # in place of splits, where only the number of all clips is known


@dataclass(frozen=True)
class Row:
    """A clip that should be there: where, its label (several joined by ``;``), its fold or split, and its group."""

    path: Path
    label: str
    split: str
    group: str = ""


@dataclass(frozen=True)
class Listing:
    """What the lists and folders of a set say it holds.

    Args:
        rows: the clips, whether their files are there or not.
        classes: the names that the set itself gives its classes, where a file of the release does.
        unlisted: audio files in its folders that none of its lists names.
        notes: what a user of the table has to know.
    """

    rows: Sequence[Row]
    classes: tuple[str, ...] = ()
    unlisted: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Expected:
    """What was released.

    Args:
        clips: number by fold or split, or of `ALL`; empty where nobody published a number.
        classes: how many.
        in_every_split: whether each class has a clip in each fold or split.
    """

    clips: Mapping[str, int]
    classes: int
    in_every_split: bool = True


@dataclass(frozen=True)
class NamedTask:
    """A public data set as a task.

    Args:
        name: on the command line.
        title: its own name.
        what: what is told apart.
        clip_s: length of the excerpts that the literature judges it on, in seconds: where clips differ, their average
            duration, as in BYOL-A (arXiv 2103.06695, IV-A1).
        metric: accuracy, or mean average precision for several labels a clip.
        column: whether clips have folds, each left out in turn, or one official split.
        splits: in words, for tables: which there are.
        protocol: what of the splits is official and what is not.
        groups: what the clips of one group share; "" where the set does not say.
        expected: what was released.
        home: the page from which it is to be had.
        doi: of the data set or its paper; "" where there is none.
        layout: the official files and folders that are read.
        collect: from its folder, and the path given for lists, to what it holds.
        classes: names of the classes, where they are fixed and no file of the release gives them.
        lists: lists that are not part of the release: what, and where to have them; "" if none.
        archives: plain archives that its own documentation names.
        no_download: why there is nothing to fetch, where there are no archives.
        missing_is_normal: clips that are gone for everybody are counted and are no error.
    """

    name: str
    title: str
    what: str
    clip_s: float
    metric: Literal["accuracy", "mAP"]
    column: Literal["fold", "split"]
    splits: str
    protocol: str
    groups: str
    expected: Expected
    home: str
    doi: str
    layout: str
    collect: Callable[[Path, Path | None], Listing]
    classes: tuple[str, ...] = ()
    lists: str = ""
    archives: tuple[Archive, ...] = ()
    no_download: str = ""
    missing_is_normal: bool = False

    @property
    def where(self) -> str:
        """Name, DOI and page, for messages."""
        return f"{self.title} ({f'doi:{self.doi}, ' if self.doi else ''}{self.home})"
