"""VoxCeleb1: speakers."""

from pathlib import Path

from melmask.datasets.base import OFFICIAL, Dataset, Expected, Listing, Row
from melmask.datasets.layouts import audio_below, find_list, read_lines, unlisted


def _voxceleb1(folder: Path, lists: Path | None) -> Listing:
    # Each of the two archives, dev and test, unpacks to a folder wav.
    places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    roots = [place / "wav" for place in places if (place / "wav").is_dir()]
    if not roots:
        raise ValueError(f"there is no folder wav in {folder}, nor in a folder in it")
    path_of = {path.relative_to(root).as_posix(): path for root in roots for path in audio_below(root)}
    official = find_list("iden_split.txt", folder, lists)
    rows = []
    for number, line in enumerate(read_lines(official), 1):
        part, _, name = line.partition(" ")
        if part not in ("1", "2", "3") or name.count("/") != 2:
            raise ValueError(f"{official}, line {number}: {line!r} is not '1 SPEAKER/VIDEO/NUMBER.wav'")
        split, (speaker, video, _) = {"1": "train", "2": "valid", "3": "test"}[part], name.split("/")
        rows.append(Row(path_of.get(name, roots[0] / name), speaker, split, f"{speaker}/{video}"))
    return Listing(rows, unlisted=unlisted(rows, *roots))


VOXCELEB1 = Dataset(
    name="voxceleb1",
    title="VoxCeleb1",
    target="speaker, of 1,251",
    clip_s=8.2,  # arXiv 2103.06695, IV-A4
    metric="accuracy",
    split_column="split",
    splits="train/valid/test",
    split_name=OFFICIAL,
    protocol="the official split for identification, iden_split.txt",
    groups="the speaker's video",
    expected=Expected({"train": 138_361, "valid": 6_904, "test": 8_251}, classes=1_251),
    home="https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html",
    doi="10.21437/Interspeech.2017-950",
    layout="wav/SPEAKER/VIDEO/*.wav of vox1_dev_wav.zip and vox1_test_wav.zip, in one folder or two; iden_split.txt",
    collect=_voxceleb1,
    lists="iden_split.txt, from https://www.robots.ox.ac.uk/~vgg/data/voxceleb/meta/iden_split.txt",
    no_download="it is distributed on request",
)
