"""Sets of music and notes: GTZAN, NSynth and Surge."""

import hashlib
import re
from pathlib import Path

from melmask.data.download import Archive
from melmask.data.sets.layouts import audio_below, find_list, find_root, read_json, read_lines, read_table, unlisted
from melmask.data.sets.named_task import ALL, Expected, Listing, NamedTask, Row

SPLITS = ("train", "valid", "test")
PITCHES = range(21, 109)  # MIDI keys of a piano
SHARES = {"train": 0.8, "valid": 0.9, "test": 1.0}  # of presets, up to


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


def _nsynth(folder: Path, _lists: Path | None) -> Listing:
    root, rows = find_root(folder, "nsynth-train"), []
    for split in SPLITS:
        audio = root / f"nsynth-{split}/audio"
        for name, note in read_json(root / f"nsynth-{split}/examples.json").items():
            rows.append(Row(audio / f"{name}.wav", note["instrument_family_str"], split, note["instrument_str"]))
    return Listing(rows, unlisted=unlisted(rows, *(root / f"nsynth-{split}/audio" for split in SPLITS)))


def _surge(folder: Path, lists: Path | None) -> Listing:
    rows, given = [], None
    if lists is not None:
        given = {row["preset"]: row["split"] for row in read_table(lists, ("preset", "split"))}
        strange = sorted(set(given.values()) - set(SPLITS))
        if strange:
            raise ValueError(f"{lists} has the split {strange[0]!r}: name them {', '.join(SPLITS)}")
    for path in audio_below(folder):
        numbers, preset = re.findall(r"\d+", path.stem), path.parent.name
        if len(numbers) != 1:
            raise ValueError(f"{path} is not named for one MIDI pitch: take it out")
        if given is not None and preset not in given:
            raise ValueError(f"{lists} has no row for the preset {preset!r}: list every preset of the release once")
        rows.append(Row(path, str(int(numbers[0])), given[preset] if given else split_of_preset(preset), preset))
    return Listing(rows)


def split_of_preset(preset: str) -> str:
    """Train (80 %), valid or test (10 % each) by the preset's name, so that a part of the set is split like the whole.

    >>> split_of_preset("Bass 1")
    'train'
    """
    drawn = int.from_bytes(hashlib.sha256(preset.encode("utf-8", "surrogateescape")).digest()[:8], "big") / 2**64
    return next(split for split, end in SHARES.items() if drawn < end)


GTZAN = NamedTask(
    name="gtzan",
    title="GTZAN",
    what="music genres",
    unit_s=30.0,  # of nearly every clip
    metric="accuracy",
    column="split",
    splits="train/valid/test",
    protocol=(
        "the fault-filtered lists of Kereliuk, Sturm and Larsen (2015): 930 of the 1,000 clips, without repetitions, "
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
        "train_filtered.txt, valid_filtered.txt and test_filtered.txt of doi:10.48550/arXiv.1507.04761, kept for "
        "example at https://github.com/jongpillee/music_dataset_split/tree/master/GTZAN_split"
    ),
    no_download="its own page is gone and names no archive any more",
)

NSYNTH = NamedTask(
    name="nsynth",
    title="NSynth",
    what="instrument families",
    unit_s=4.0,  # arXiv 2103.06695, IV-A4
    metric="accuracy",
    column="split",
    splits="train/valid/test",
    protocol="the official split; its training instruments are in no other part, but valid and test share instruments",
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

SURGE = NamedTask(
    name="surge",
    title="Surge pitch",
    what="pitch of a synthesiser's note, of 88",
    unit_s=4.0,  # not confirmed: no text that we read has the length of its notes
    metric="accuracy",
    column="split",
    splits="train/valid/test",
    protocol=(
        "there is no official split: 80, 10 and 10 % of the presets by SHA-256 of their names, so that no preset is in "
        "two splits; another split can be given as a table preset,split"
    ),
    groups="the preset",
    expected=Expected({ALL: 2_084 * 88}, classes=88),  # every preset at every pitch; the 2,084 are not confirmed
    home="https://zenodo.org/records/4677097",
    doi="10.5281/zenodo.4677097",
    layout="PRESET/*.ogg, each named for its MIDI pitch, 21 to 108",
    collect=_surge,
    classes=tuple(str(pitch) for pitch in PITCHES),
    lists="optional: a CSV with the columns preset,split, for another split than ours",
    # No checksum: none that we could confirm.
    archives=(Archive("https://zenodo.org/records/4677097/files/surge-velocity64-2K.tar"),),
)
