"""Sets of everyday sounds: ESC-50, UrbanSound8K and FSD50K."""

from pathlib import Path

from melmask.data.download import Archive
from melmask.data.sets.layouts import find_root, read_json, read_table, unlisted
from melmask.data.sets.named_task import Expected, Listing, NamedTask, Row


def _esc50(folder: Path, _lists: Path | None) -> Listing:
    root = find_root(folder, "meta/esc50.csv")
    table = read_table(root / "meta/esc50.csv", ("filename", "fold", "category", "src_file"))
    rows = [Row(root / "audio" / clip["filename"], clip["category"], clip["fold"], clip["src_file"]) for clip in table]
    return Listing(rows, unlisted=unlisted(rows, root / "audio"))


def _urbansound8k(folder: Path, _lists: Path | None) -> Listing:
    root = find_root(folder, "metadata/UrbanSound8K.csv")
    table = read_table(root / "metadata/UrbanSound8K.csv", ("slice_file_name", "fsID", "fold", "class"))
    rows = [
        Row(root / "audio" / f"fold{clip['fold']}" / clip["slice_file_name"], clip["class"], clip["fold"], clip["fsID"])
        for clip in table
    ]
    return Listing(rows, unlisted=unlisted(rows, root / "audio"))


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
    without = () if rows and rows[0].group else ("no FSD50K.metadata there: clips have no groups",)
    folders = [root / f"FSD50K.{part}_audio" for part in ("dev", "eval")]
    return Listing(rows, classes=classes, unlisted=unlisted(rows, *folders), notes=without)


def _vocabulary(path: Path) -> tuple[str, ...]:
    """The second of three columns: number, class, machine id. There is no header."""
    if not path.is_file():
        raise ValueError(f"there is no {path}")
    return tuple(line.split(",")[1] for line in path.read_text(encoding="utf-8").splitlines() if line)


ESC50 = NamedTask(
    name="esc50",
    title="ESC-50",
    what="environmental sounds",
    unit_s=5.0,  # of every clip
    metric="accuracy",
    column="fold",
    splits="5 folds",
    protocol="the five official folds, each left out in turn",
    groups="the recording on Freesound that a clip is from (src_file)",
    expected=Expected({str(fold): 400 for fold in range(1, 6)}, classes=50),
    home="https://github.com/karolpiczak/ESC-50",
    doi="10.1145/2733373.2806390",
    layout="ESC-50-master/: meta/esc50.csv, audio/*.wav",
    collect=_esc50,
    # The archive of a branch is made anew with every change to it, so that no checksum of it lasts.
    archives=(Archive("https://github.com/karoldvl/ESC-50/archive/master.zip"),),
)

URBANSOUND8K = NamedTask(
    name="urbansound8k",
    title="UrbanSound8K",
    what="urban sounds",
    unit_s=4.0,  # arXiv 2103.06695, IV-A4
    metric="accuracy",
    column="fold",
    splits="10 folds",
    protocol="the ten official folds, each left out in turn",
    groups="the recording on Freesound that a clip is cut from (fsID)",
    # Its page has the total only.
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

FSD50K = NamedTask(
    name="fsd50k",
    title="FSD50K",
    what="sound events, several a clip",
    unit_s=7.6,  # on average: 108.3 h of 51,197 clips, by its page; no paper that we read judges it on excerpts
    metric="mAP",
    column="split",
    splits="train/valid/test",
    protocol="the official split: train and val of dev.csv, and eval.csv as test",
    groups="the uploader, from FSD50K.metadata if it is there",
    expected=Expected({"train": 36_796, "valid": 4_170, "test": 10_231}, classes=200, in_every_split=False),
    home="https://zenodo.org/records/4060432",
    doi="10.5281/zenodo.4060432",
    layout=(
        "FSD50K.ground_truth/ (dev.csv, eval.csv, vocabulary.csv), FSD50K.dev_audio/*.wav, FSD50K.eval_audio/*.wav "
        "and, for groups, FSD50K.metadata/ (dev_clips_info_FSD50K.json, eval_clips_info_FSD50K.json)"
    ),
    collect=_fsd50k,
    no_download="its audio is a zip archive in several parts, to be joined by hand: zip -s 0 FSD50K.dev_audio.zip "
    "--out whole.zip",
)
