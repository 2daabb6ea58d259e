"""FSD50K: sound events, several a clip."""

from pathlib import Path

from melmask.datasets.base import OFFICIAL, Dataset, Expected, Listing, Row
from melmask.datasets.layouts import find_root, read_json, read_table, unlisted


def _fsd50k(folder: Path, _lists: Path | None) -> Listing:
    root = find_root(folder, "FSD50K.ground_truth")
    truth, rows = root / "FSD50K.ground_truth", []
    for part, columns in (("dev", ("fname", "labels", "split")), ("eval", ("fname", "labels"))):
        info = root / "FSD50K.metadata" / f"{part}_clips_info_FSD50K.json"
        uploaders = read_json(info) if info.is_file() else {}
        for clip in read_table(truth / f"{part}.csv", columns):
            split = {"train": "train", "val": "valid"}.get(clip["split"], clip["split"]) if part == "dev" else "test"
            uploader = uploaders.get(clip["fname"], {}).get("uploader", "")
            path = root / f"FSD50K.{part}_audio" / f"{clip['fname']}.wav"
            rows.append(Row(path, clip["labels"].replace(",", ";"), split, uploader))
    classes = _vocabulary(truth / "vocabulary.csv")
    without = () if rows and rows[0].group else ("there is no FSD50K.metadata: clips have no groups",)
    folders = [root / f"FSD50K.{part}_audio" for part in ("dev", "eval")]
    return Listing(rows, classes=classes, unlisted=unlisted(rows, *folders), notes=without)


def _vocabulary(path: Path) -> tuple[str, ...]:
    """The second of the three columns number, class and class id; there is no header."""
    if not path.is_file():
        raise ValueError(f"there is no {path}")
    return tuple(line.split(",")[1] for line in path.read_text(encoding="utf-8").splitlines() if line)


FSD50K = Dataset(
    name="fsd50k",
    title="FSD50K",
    target="sound events, several a clip",
    clip_s=7.6,  # the mean: 108.3 h of 51,197 clips, by its page; we know no paper that evaluates on excerpts
    metric="mAP",
    split_column="split",
    splits="train/valid/test",
    split_name=OFFICIAL,
    protocol="the official split: train and val of dev.csv, and eval.csv as test",
    groups="the uploader, if FSD50K.metadata exists",
    expected=Expected({"train": 36_796, "valid": 4_170, "test": 10_231}, classes=200, in_every_split=False),
    home="https://zenodo.org/records/4060432",
    doi="10.5281/zenodo.4060432",
    layout=(
        "FSD50K.ground_truth/ (dev.csv, eval.csv, vocabulary.csv), FSD50K.dev_audio/*.wav, FSD50K.eval_audio/*.wav "
        "and, for groups, FSD50K.metadata/ (dev_clips_info_FSD50K.json, eval_clips_info_FSD50K.json)"
    ),
    collect=_fsd50k,
    no_download=(
        "its audio is a zip archive in several parts, which must be joined by hand: zip -s 0 FSD50K.dev_audio.zip "
        "--out whole.zip"
    ),
)
