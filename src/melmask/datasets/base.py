"""How a labelled data set is described: its layout, its official splits, and what was released."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from melmask.data.download import Archive

SPLITS = ("train", "valid", "test")

OFFICIAL = "official split"  # what tables call a split that the release itself has
OURS = "melmask split"  # that of a release that has none, where no list is given

ALL = "all"  # in place of a fold or split in `Expected.clips`, if only the total number of clips is known


@dataclass(frozen=True)
class Row:
    """A row of the table to be made, for a clip that the data set lists.

    Args:
        path: the audio file.
        label: its class, or several joined by ``;``.
        split: its fold or split.
        group: what it must not share between splits, e.g. the speaker; "" if the data set does not say.
    """

    path: Path
    label: str
    split: str
    group: str = ""


@dataclass(frozen=True)
class Listing:
    """The clips of a data set according to its lists and folders.

    Args:
        rows: the clips, whether their files exist or not.
        classes: names of the classes, if a file of the release has them.
        unlisted: audio files in its folders that no list names.
        notes: what a user of the table has to know.
        split_name: what tables call the split, if it is not the data set's usual one.
    """

    rows: Sequence[Row]
    classes: tuple[str, ...] = ()
    unlisted: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    split_name: str = ""


@dataclass(frozen=True)
class Expected:
    """The contents of the release, to check a copy against.

    Args:
        clips: number of clips by fold or split, or in total under `ALL`; empty if not published.
        classes: number of classes; 0 if not published.
        in_every_split: whether every class occurs in every fold or split.
    """

    clips: Mapping[str, int]
    classes: int
    in_every_split: bool = True


NOT_PUBLISHED = Expected({}, classes=0, in_every_split=False)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A labelled data set, and how to read its folder as released.

    Args:
        name: on the command line.
        title: its own name.
        target: what is classified.
        collect: reads its folder and, if given, the path of lists that are not part of the release.
        layout: the official files and folders that ``collect`` reads, for messages.
        clip_s: length of the excerpts that published scores are for, in seconds; 0 for whole clips. Where clips differ
            in length, it is their mean duration, as in BYOL-A (arXiv 2103.06695, IV-A1).
        metric: accuracy, or mean average precision if a clip can have several labels.
        split_column: "fold" if each fold is held out in turn, "split" if there is one official split.
        splits: which folds or splits there are, in words.
        split_name: what tables call its split where no list of another is given; "" if it is not known whose it is.
        collect_evar: reads its folder by the split file that EVAR, the evaluation package of M2D, publishes; None if
            EVAR takes the same split, or none.
        protocol: which of the splits are official and which are not.
        groups: what the clips of a group share; "" if the data set does not say.
        expected: what was released.
        home: address of the page that it is available from.
        doi: of the data set or its paper; "" if there is none.
        classes: names of the classes, if they are fixed and no file of the release has them.
        lists: lists that are not part of the release, and where they are available; "" if there are none.
        archives: plain archives that its own documentation links to.
        no_download: why it cannot be downloaded, if there are no archives.
        may_lack_clips: clips that nobody can get any more are counted, and are not an error.
    """

    name: str
    title: str
    collect: Callable[[Path, Path | None], Listing]
    layout: str
    target: str = ""
    clip_s: float = 0.0
    metric: Literal["accuracy", "mAP"] = "accuracy"
    split_column: Literal["fold", "split"] = "split"
    splits: str = ""
    split_name: str = ""
    collect_evar: Callable[[Path, Path], Listing] | None = None
    protocol: str = ""
    groups: str = ""
    expected: Expected = NOT_PUBLISHED
    home: str = ""
    doi: str = ""
    classes: tuple[str, ...] = ()
    lists: str = ""
    archives: tuple[Archive, ...] = ()
    no_download: str = ""
    may_lack_clips: bool = False

    @property
    def reference(self) -> str:
        """Title, DOI and page, for messages."""
        sources = ", ".join(source for source in (self.doi and f"doi:{self.doi}", self.home) if source)
        return f"{self.title} ({sources})" if sources else self.title
