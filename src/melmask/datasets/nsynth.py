"""NSynth: notes of instrument families."""

from pathlib import Path

from melmask.data.download import Archive
from melmask.datasets.base import OFFICIAL, SPLITS, Dataset, Expected, Listing, Row
from melmask.datasets.layouts import find_root, read_json, unlisted

PITCHES = range(21, 109)  # MIDI keys of a piano


def _nsynth(folder: Path, _lists: Path | None) -> Listing:
    root, rows = find_root(folder, "nsynth-train"), []
    for split in SPLITS:
        audio = root / f"nsynth-{split}/audio"
        for name, note in read_json(root / f"nsynth-{split}/examples.json").items():
            rows.append(Row(audio / f"{name}.wav", note["instrument_family_str"], split, note["instrument_str"]))
    return Listing(rows, unlisted=unlisted(rows, *(root / f"nsynth-{split}/audio" for split in SPLITS)))


NSYNTH = Dataset(
    name="nsynth",
    title="NSynth",
    target="instrument families",
    clip_s=4.0,  # arXiv 2103.06695, IV-A4
    metric="accuracy",
    split_column="split",
    splits="train/valid/test",
    split_name=OFFICIAL,
    protocol="the official split; its training instruments are in no other split, but valid and test share instruments",
    groups="the instrument",
    expected=Expected({"train": 289_205, "valid": 12_678, "test": 4_096}, classes=11, in_every_split=False),
    home="https://magenta.tensorflow.org/datasets/nsynth",
    doi="10.48550/arXiv.1704.01279",
    layout="nsynth-train/, nsynth-valid/ and nsynth-test/, each with examples.json and audio/*.wav (json/wav archives)",
    collect=_nsynth,
    classes=(
        *("bass", "brass", "flute", "guitar", "keyboard", "mallet"),
        *("organ", "reed", "string", "synth_lead", "vocal"),
    ),
    archives=tuple(
        Archive(f"http://download.magenta.tensorflow.org/datasets/nsynth/nsynth-{split}.jsonwav.tar.gz", checksum)
        for split, checksum in (
            ("train", "fde6665a93865503ba598b9fac388660"),
            ("valid", "87e94a00a19b6dbc99cf6d4c0c0cae87"),
            ("test", "5e6f8719bf7e16ad0a00d518b78af77d"),
        )
    ),
)
