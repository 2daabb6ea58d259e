"""Small copies of public data sets with the layout of the release: the same files and columns, no real recordings."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from melmask.datasets.base import ALL, Expected
from melmask.datasets.splits import split_speakers


@dataclass(frozen=True)
class Copy:
    """A small copy: its folder, what it holds, and what its table must hold for some clips."""

    folder: Path
    expected: Expected
    clips: dict[str, tuple[str, str, str]]  # (label, split, group) by path
    lists: Path | None = None


def touch(path: Path, content: str = "sound") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def table(path: Path, rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def esc50(folder: Path) -> Copy:
    """Two folds of two classes; source 100 is in both folds, as four of the release are."""
    rows = [("filename", "fold", "target", "category", "esc10", "src_file", "take")]
    for fold in (1, 2):
        for target, category in enumerate(("dog", "rain")):
            source = 100 if category == "dog" else 200 + fold
            name = f"{fold}-{source}-A-{target}.wav"
            rows.append((name, fold, target, category, "True", source, "A"))
            touch(folder / "ESC-50-master/audio" / name)
    table(folder / "ESC-50-master/meta/esc50.csv", rows)
    clips = {
        "ESC-50-master/audio/1-100-A-0.wav": ("dog", "1", "100@1"),
        "ESC-50-master/audio/2-202-A-1.wav": ("rain", "2", "202"),
    }
    return Copy(folder, Expected({"1": 2, "2": 2}, classes=2), clips)


def urbansound8k(folder: Path) -> Copy:
    rows = [("slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class")]
    for fold in range(1, 11):
        for number, name in ((1, "car_horn"), (3, "dog_bark")):
            file = f"{fold}00{number}-{number}-0-0.wav"
            rows.append((file, f"{fold}00{number}", 0.0, 1.0, 1, fold, number, name))
            touch(folder / f"audio/fold{fold}" / file)
    table(folder / "metadata/UrbanSound8K.csv", rows)
    clips = {"audio/fold10/10001-1-0-0.wav": ("car_horn", "10", "10001")}
    return Copy(folder, Expected({str(fold): 2 for fold in range(1, 11)}, classes=2), clips)


def speech_commands(folder: Path) -> Copy:
    parts = {"aa": "train", "bb": "valid", "cc": "test"}
    lists: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    for word in ("yes", "no"):
        for speaker, split in parts.items():
            name = f"{word}/{speaker}_nohash_0.wav"
            lists[split].append(name)
            touch(folder / name)
    touch(folder / "_background_noise_/white_noise.wav")
    touch(folder / "validation_list.txt", "\n".join(lists["valid"]) + "\n")
    touch(folder / "testing_list.txt", "\n".join(lists["test"]) + "\n")
    clips = {"yes/aa_nohash_0.wav": ("yes", "train", "aa"), "no/cc_nohash_0.wav": ("no", "test", "cc")}
    return Copy(folder, Expected(dict.fromkeys(("train", "valid", "test"), 2), classes=2), clips)


def voxceleb1(folder: Path) -> Copy:
    """The two archives in two folders, and the list beside them."""
    lines = []
    for speaker, archive in (("id10001", "vox1_dev_wav"), ("id10270", "vox1_test_wav")):
        for part in (1, 2, 3):
            name = f"{speaker}/video{part}/00001.wav"
            lines.append(f"{part} {name}")
            touch(folder / archive / "wav" / name)
    touch(folder / "iden_split.txt", "\n".join(lines) + "\n")
    clips = {
        "vox1_dev_wav/wav/id10001/video1/00001.wav": ("id10001", "train", "id10001/video1"),
        "vox1_test_wav/wav/id10270/video3/00001.wav": ("id10270", "test", "id10270/video3"),
    }
    return Copy(folder, Expected(dict.fromkeys(("train", "valid", "test"), 2), classes=2), clips)


def voxforge(folder: Path) -> Copy:
    """Ten speakers of two languages, an archive each, with the list outside of the folder."""
    speakers, archives = [f"speaker{number}" for number in range(10)], []
    for number, speaker in enumerate(speakers):
        language = "de" if number % 2 else "en"
        top = f"www.repository.voxforge1.org/downloads/{language}/Trunk/Audio/Main/16kHz_16bit/{speaker}-20150101-abc"
        archives.append(f"{top}.tgz")
        touch(folder / top / f"{speaker}-20150101-abc/wav/de1.wav")
        touch(folder / top / f"{speaker}-20150101-abc/etc/PROMPTS")
    lists = touch(folder.parent / "lists/voxforge_urls.txt", "\n".join(archives) + "\n")
    path = "www.repository.voxforge1.org/downloads/de/Trunk/Audio/Main/16kHz_16bit/speaker1-20150101-abc/"
    split = split_speakers(speakers)["speaker1"]
    clips = {f"{path}speaker1-20150101-abc/wav/de1.wav": ("de", split, "speaker1")}
    return Copy(folder, Expected({}, classes=2, in_every_split=False), clips, lists)


def crema_d(folder: Path) -> Copy:
    """All 91 actors, each in two emotions."""
    for actor in range(1001, 1092):
        for emotion in ("ANG", "NEU"):
            level = "X" if actor == 1040 else "XX"  # one file of the release is named so
            touch(folder / f"AudioWAV/{actor}_DFA_{emotion}_{level}.wav")
    split = split_speakers(str(actor) for actor in range(1001, 1092))["1040"]
    clips = {"AudioWAV/1040_DFA_ANG_X.wav": ("anger", split, "1040")}
    return Copy(folder, Expected({ALL: 182}, classes=2), clips)


def gtzan(folder: Path) -> Copy:
    """Lists in a folder of their own; a clip that they filter out exists too."""
    lists = folder.parent / "lists"
    for number, split in enumerate(("train", "valid", "test")):
        names = [f"{genre}/{genre}.0000{number}.wav" for genre in ("blues", "rock")]
        touch(lists / f"{split}_filtered.txt", "\n".join(names) + "\n")
        touch(folder / "genres" / names[0].replace(".wav", ".au"))
        touch(folder / "genres" / names[1])
    touch(folder / "genres/blues/blues.00099.au")
    clips = {"genres/blues/blues.00002.au": ("blues", "test", ""), "genres/rock/rock.00001.wav": ("rock", "valid", "")}
    return Copy(folder, Expected(dict.fromkeys(("train", "valid", "test"), 2), classes=2), clips, lists)


def nsynth(folder: Path) -> Copy:
    """Valid and test share an instrument, as in the release, and a family is in train only."""
    notes = {"train": ("bass_synthetic_001", "synth_lead_synthetic_002"), "valid": ("bass_synthetic_009",)}
    for split in ("train", "valid", "test"):
        examples = {}
        for instrument in notes.get(split, notes["valid"]):
            name = f"{instrument}-{'060' if split == 'test' else '061'}-100"
            family = "synth_lead" if "lead" in instrument else "bass"
            examples[name] = {"instrument_family_str": family, "instrument_str": instrument, "pitch": 60}
            touch(folder / f"nsynth-{split}/audio/{name}.wav")
        touch(folder / f"nsynth-{split}/examples.json", json.dumps(examples))
    clips = {
        "nsynth-train/audio/synth_lead_synthetic_002-061-100.wav": ("synth_lead", "train", "synth_lead_synthetic_002"),
        "nsynth-test/audio/bass_synthetic_009-060-100.wav": ("bass", "test", "bass_synthetic_009@test"),
    }
    return Copy(folder, Expected({"train": 2, "valid": 1, "test": 1}, classes=2, in_every_split=False), clips)


def surge(folder: Path) -> Copy:
    """Three presets of two pitches, with a split given by the user."""
    rows = [("preset", "split")]
    for number, split in enumerate(("train", "valid", "test")):
        rows.append((f"Lead {number}", split))
        for pitch in (21, 108):
            touch(folder / f"surge/Lead {number}/{pitch:03}.ogg")
    table(folder.parent / "presets.csv", rows)
    clips = {"surge/Lead 2/021.ogg": ("21", "test", "Lead 2")}
    return Copy(folder, Expected({ALL: 6}, classes=2), clips, folder.parent / "presets.csv")


def fsd50k(folder: Path) -> Copy:
    dev, evaluation = [("fname", "labels", "mids", "split")], [("fname", "labels", "mids")]
    info: dict[str, dict[str, dict[str, str]]] = {"dev": {}, "eval": {}}
    for number, split in enumerate(("train", "val", "test", "train"), 1):
        part = "eval" if split == "test" else "dev"
        row = (number, "Bark,Dog,Animal", "/m/05tny_,/m/0bt9lr,/m/0jbk")
        (evaluation if part == "eval" else dev).append(row if part == "eval" else (*row, split))
        info[part][str(number)] = {"title": "a dog", "uploader": f"user{number}"}
        touch(folder / f"FSD50K.{part}_audio/{number}.wav")
    table(folder / "FSD50K.ground_truth/dev.csv", dev)
    table(folder / "FSD50K.ground_truth/eval.csv", evaluation)
    names = ("Animal", "Bark", "Dog")
    table(folder / "FSD50K.ground_truth/vocabulary.csv", [(i, name, f"/m/{i}") for i, name in enumerate(names)])
    for part, clips_info in info.items():
        touch(folder / f"FSD50K.metadata/{part}_clips_info_FSD50K.json", json.dumps(clips_info))
    clips = {"FSD50K.dev_audio/2.wav": ("Bark;Dog;Animal", "valid", "user2")}
    return Copy(folder, Expected({"train": 2, "valid": 1, "test": 1}, classes=3, in_every_split=False), clips)


def audioset20k(folder: Path) -> Copy:
    """Three ways of naming files, and one video that no longer exists."""
    labels = [
        ("index", "mid", "display_name"),
        (0, "/m/09x0r", "Speech"),
        (1, "/m/05zppz", "Male speech, man speaking"),
    ]
    table(folder / "class_labels_indices.csv", labels)
    header = (
        "# Segments csv created Sun Mar  5 10:54:31 2017\n# num_ytids=2\n# YTID, start_seconds, end_seconds, labels\n"
    )
    both, speech = '"/m/09x0r,/m/05zppz"', '"/m/09x0r"'
    lists = {
        "balanced_train": [("--aaaaaaaa_", both), ("bbbbbbbbbbb", speech), ("Ycccccccccc", both)],
        "unbalanced_train": [("ddddddddddd", speech)],
        "eval": [("eeeeeeeeeee", both), ("ggggggggggg", both)],
    }
    for name, segments in lists.items():
        lines = "".join(f"{video}, 30.000, 40.000, {mids}\n" for video, mids in segments)
        touch(folder / f"{name}_segments.csv", header + lines)
    for name in ("train/Y--aaaaaaaa_.wav", "train/bbbbbbbbbbb.flac", "Ycccccccccc_30.000.wav", "eval/eeeeeeeeeee.wav"):
        touch(folder / "audio" / name)
    touch(folder / "audio/ddddddddddd.wav")
    clips = {
        "audio/train/Y--aaaaaaaa_.wav": ("Speech;Male speech, man speaking", "train", ""),
        "audio/Ycccccccccc_30.000.wav": ("Speech;Male speech, man speaking", "train", ""),
        "audio/eval/eeeeeeeeeee.wav": ("Speech;Male speech, man speaking", "test", ""),
    }
    return Copy(folder, Expected({"train": 3, "test": 2}, classes=2), clips)


def audioset2m(folder: Path) -> Copy:
    small = audioset20k(folder)
    clips = {**small.clips, "audio/ddddddddddd.wav": ("Speech", "train", "")}
    return Copy(folder, Expected({"train": 4, "test": 2}, classes=2), clips)


COPIES: dict[str, Callable[[Path], Copy]] = {
    make.__name__: make
    for make in (
        *(esc50, urbansound8k, speech_commands, voxceleb1, voxforge, crema_d),
        *(gtzan, nsynth, surge, fsd50k, audioset20k, audioset2m),
    )
}


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[str], Copy]:
    """Makes the small copy of a data set by its name."""
    return lambda name: COPIES[name](tmp_path / name)
