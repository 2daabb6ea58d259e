"""GTZAN: genres of music."""

from pathlib import Path

from melmask.datasets.base import SPLITS, Dataset, Expected, Listing, Row
from melmask.datasets.layouts import find_list, find_root, read_lines


def _gtzan(folder: Path, lists: Path | None) -> Listing:
    root, rows = find_root(folder, "blues"), []
    if lists is not None and lists.is_file():
        raise ValueError(f"{lists} is one list: give the folder that holds all three")
    for split in SPLITS:
        official = find_list(f"{split}_filtered.txt", folder, lists)
        for number, name in enumerate(read_lines(official), 1):
            if name.count("/") != 1:
                raise ValueError(f"{official}, line {number}: {name!r} is not GENRE/GENRE.NNNNN.wav")
            stem = root / name.rpartition(".")[0]
            versions = [stem.with_name(f"{stem.name}{extension}") for extension in (".au", ".wav")]
            path = next((path for path in versions if path.is_file()), root / name)
            rows.append(Row(path, name.split("/")[0], split))
    return Listing(rows)


GTZAN = Dataset(
    name="gtzan",
    title="GTZAN",
    target="music genres",
    clip_s=30.0,  # of nearly every clip
    metric="accuracy",
    split_column="split",
    splits="train/valid/test",
    split_name="fault-filtered lists",
    protocol=(
        "the fault-filtered lists of Kereliuk, Sturm and Larsen (2015): 930 of the 1,000 clips, without repetitions "
        "and with no artist in two splits; GTZAN itself has no split"
    ),
    groups="",
    expected=Expected({"train": 443, "valid": 197, "test": 290}, classes=10),
    home="https://www.tensorflow.org/datasets/catalog/gtzan",
    doi="10.1109/TSA.2002.800560",
    layout="genres/GENRE/GENRE.NNNNN.au, or .wav, with train_filtered.txt, valid_filtered.txt and test_filtered.txt",
    collect=_gtzan,
    classes=("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock"),
    lists=(
        "train_filtered.txt, valid_filtered.txt and test_filtered.txt of doi:10.48550/arXiv.1507.04761, for example "
        "from https://github.com/jongpillee/music_dataset_split/tree/master/GTZAN_split"
    ),
    no_download="its own page no longer exists",
)
