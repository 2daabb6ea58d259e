"""UrbanSound8K: urban sounds."""

from pathlib import Path

from melmask.data.download import Archive
from melmask.datasets.base import OFFICIAL, Dataset, Expected, Listing, Row
from melmask.datasets.layouts import find_root, read_table, unlisted


def _urbansound8k(folder: Path, _lists: Path | None) -> Listing:
    root = find_root(folder, "metadata/UrbanSound8K.csv")
    table = read_table(root / "metadata/UrbanSound8K.csv", ("slice_file_name", "fsID", "fold", "class"))
    rows = [
        Row(root / "audio" / f"fold{clip['fold']}" / clip["slice_file_name"], clip["class"], clip["fold"], clip["fsID"])
        for clip in table
    ]
    return Listing(rows, unlisted=unlisted(rows, root / "audio"))


URBANSOUND8K = Dataset(
    name="urbansound8k",
    title="UrbanSound8K",
    target="urban sounds",
    clip_s=4.0,  # arXiv 2103.06695, IV-A4
    metric="accuracy",
    split_column="fold",
    splits="10 folds",
    split_name=OFFICIAL,
    protocol="the ten official folds, each held out in turn",
    groups="the recording on Freesound that a clip is cut from (fsID)",
    # Its page has only the total.
    expected=Expected(
        {str(fold): count for fold, count in enumerate((873, 888, 925, 990, 936, 823, 838, 806, 816, 837), start=1)},
        classes=10,
    ),
    home="https://urbansounddataset.weebly.com/urbansound8k.html",
    doi="10.5281/zenodo.1203745",
    layout="UrbanSound8K/: metadata/UrbanSound8K.csv, audio/fold1 ... fold10/*.wav",
    collect=_urbansound8k,
    classes=(
        *("air_conditioner", "car_horn", "children_playing", "dog_bark", "drilling"),
        *("engine_idling", "gun_shot", "jackhammer", "siren", "street_music"),
    ),
    archives=(
        Archive("https://zenodo.org/records/1203745/files/UrbanSound8K.tar.gz", "9aa69802bbf37fb986f71ec1483a196e"),
    ),
)
