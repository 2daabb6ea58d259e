"""ESC-50: environmental sounds."""

from pathlib import Path

from melmask.data.download import Archive
from melmask.datasets.base import OFFICIAL, Dataset, Expected, Listing, Row
from melmask.datasets.layouts import find_root, read_table, unlisted


def _esc50(folder: Path, _lists: Path | None) -> Listing:
    root = find_root(folder, "meta/esc50.csv")
    table = read_table(root / "meta/esc50.csv", ("filename", "fold", "category", "src_file"))
    rows = [Row(root / "audio" / clip["filename"], clip["category"], clip["fold"], clip["src_file"]) for clip in table]
    return Listing(rows, unlisted=unlisted(rows, root / "audio"))


ESC50 = Dataset(
    name="esc50",
    title="ESC-50",
    target="environmental sounds",
    clip_s=5.0,  # of every clip
    metric="accuracy",
    split_column="fold",
    splits="5 folds",
    split_name=OFFICIAL,
    protocol="the five official folds, each held out in turn",
    groups="the recording on Freesound that a clip is cut from (src_file)",
    expected=Expected({str(fold): 400 for fold in range(1, 6)}, classes=50),
    home="https://github.com/karolpiczak/ESC-50",
    doi="10.1145/2733373.2806390",
    layout="ESC-50-master/: meta/esc50.csv, audio/*.wav",
    collect=_esc50,
    # The archive of a branch changes with every commit, so it has no fixed checksum.
    archives=(Archive("https://github.com/karoldvl/ESC-50/archive/master.zip"),),
)
