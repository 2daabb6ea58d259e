"""Every data set, read from a small copy of the official layout: the table, and the message of every fault."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from melmask.datasets import DATASETS, find_dataset
from melmask.datasets.base import ALL, Dataset, Expected, Listing, Row
from melmask.datasets.build import build_table, clip_s_of, write_table
from melmask.datasets.crema_d import ACTORS
from melmask.datasets.splits import split_speakers
from melmask.datasets.surge import split_of_preset
from melmask.evaluation.splits import splits_of
from melmask.evaluation.task import read_task

each_dataset = pytest.mark.parametrize("name", DATASETS)
each_strict_dataset = pytest.mark.parametrize("name", [name for name in DATASETS if not name.startswith("audioset")])


def made(copy, name, **settings):
    return build_table(DATASETS[name], copy.folder, lists=copy.lists, expected=copy.expected, **settings)


def rows_of(table: Path, column: str) -> dict[str, tuple[str, str, str]]:
    with table.open(encoding="utf-8") as file:
        return {row["path"]: (row["label"], row[column], row["group"]) for row in csv.DictReader(file)}


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


@each_dataset
def test_the_table_is_a_task_with_the_official_splits(name, copy_of, tmp_path):
    copy, dataset = copy_of(name), DATASETS[name]
    write_table(made(copy, name), tmp_path / f"{name}.csv")
    rows = rows_of(tmp_path / f"{name}.csv", dataset.split_column)
    for path, expected in copy.clips.items():
        assert rows[f"{name}/{path}"] == expected  # relative, as the copy lies below the table's folder
    read = read_task(tmp_path / f"{name}.csv")
    assert read.metric == dataset.metric and len(read.classes) == copy.expected.classes
    assert all(path.is_file() for path in read.paths)
    splits = splits_of(read)
    if dataset.split_column == "fold":
        assert [split.name for split in splits] == list(copy.expected.clips)
    else:
        [split] = splits
        counts = {part: sum(row[1] == part for row in rows.values()) for part in ("train", "valid", "test")}
        assert len(split.test) == counts["test"] > 0
        assert len(split.train) + len(split.valid) == counts["train"] + counts["valid"]
        if counts["valid"]:
            assert len(split.valid) == counts["valid"]
    assert (read.groups is not None) == bool(dataset.groups)


@each_dataset
def test_the_record_has_what_a_reader_of_a_figure_asks_for(name, copy_of, tmp_path):
    copy, dataset = copy_of(name), DATASETS[name]
    built = made(copy, name)
    record = json.loads(write_table(built, tmp_path / "elsewhere" / "table.csv").read_text())
    assert record["title"] == dataset.title and record["doi"] == dataset.doi
    assert record["clip_s"] == dataset.clip_s and record["protocol"] == dataset.protocol and not record["shortages"]
    assert sum(record["num_clips"].values()) == len(built.rows) and len(record["classes"]) == copy.expected.classes
    assert Path(next(iter(rows_of(tmp_path / "elsewhere" / "table.csv", dataset.split_column)))).is_absolute()


@each_strict_dataset
def test_a_missing_clip_is_an_error_unless_allowed_and_then_recorded(name, copy_of, tmp_path):
    copy, dataset = copy_of(name), DATASETS[name]
    whole = made(copy, name)
    gone = whole.rows[0].path
    gone.unlink()
    with pytest.raises(ValueError, match="is not as released") as caught:
        made(copy, name)
    message = str(caught.value)
    assert dataset.title in message and dataset.doi in message and dataset.home in message
    assert "--allow-missing" in message
    count = copy.expected.clips.get(ALL) or copy.expected.clips.get(whole.rows[0].split)
    if count:
        assert f" clips of {count}" in message
    partial = made(copy, name, allow_missing=True)
    assert len(partial.rows) == len(whole.rows) - 1 and partial.shortages
    record = json.loads(write_table(partial, tmp_path / "t.csv").read_text())
    assert record["shortages"] == list(partial.shortages)
    assert all(path in record["missing"] for path in (str(path.relative_to(copy.folder)) for path in partial.missing))


@each_strict_dataset
def test_a_split_without_clips_is_never_allowed(name, copy_of):
    copy = copy_of(name)
    for row in made(copy, name).rows:
        row.path.unlink()
    with pytest.raises(ValueError, match=r"exist|there is no"):
        made(copy, name, allow_missing=True)


@pytest.mark.parametrize("name", [name for name, dataset in DATASETS.items() if dataset.expected.clips])
def test_more_clips_than_released_are_another_release(name, copy_of):
    copy = copy_of(name)
    fewer = replace(copy.expected, clips={split: count - 1 for split, count in copy.expected.clips.items()})
    with pytest.raises(ValueError, match=r"clips of \d+\n(.|\n)*this is another release"):
        build_table(DATASETS[name], copy.folder, lists=copy.lists, expected=fewer, allow_missing=True)


@each_dataset
def test_another_number_of_classes_is_an_error(name, copy_of):
    copy = copy_of(name)
    fewer = replace(copy.expected, classes=copy.expected.classes - 1)
    dataset = replace(DATASETS[name], classes=())
    with pytest.raises(ValueError, match=f"{copy.expected.classes} classes of {fewer.classes}"):
        build_table(dataset, copy.folder, lists=copy.lists, expected=fewer)
    if not dataset.may_lack_clips:
        more = replace(copy.expected, classes=copy.expected.classes + 1)
        with pytest.raises(ValueError, match=f"{copy.expected.classes} classes of {more.classes}"):
            build_table(DATASETS[name], copy.folder, lists=copy.lists, expected=more)


@each_dataset
def test_an_empty_folder_is_an_error_with_layout_and_source(name, tmp_path):
    dataset = DATASETS[name]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="laid out as") as caught:
        build_table(dataset, tmp_path / "empty")
    assert dataset.layout in str(caught.value) and dataset.reference in str(caught.value)
    with pytest.raises(ValueError, match="is no folder"):
        build_table(dataset, tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["voxceleb1", "voxforge", "gtzan", "audioset20k"])
def test_a_list_that_is_missing_is_named_with_the_option(name, copy_of, tmp_path):
    copy = copy_of(name)
    for path in [*copy.folder.glob("*.txt"), *copy.folder.glob("*.csv")]:
        path.unlink()
    with pytest.raises(ValueError, match=r"there is no \w+\.(txt|csv) in .* --lists"):
        build_table(DATASETS[name], copy.folder, expected=copy.expected)


@pytest.mark.parametrize(
    ("name", "file", "text", "message"),
    [
        ("voxceleb1", "iden_split.txt", "4 id1/v/1.wav\n", r"iden_split\.txt, line 7: .*SPEAKER/VIDEO"),
        ("audioset20k", "eval_segments.csv", "hhhhhhhhhhh, 0.0\n", r"eval_segments\.csv, line 6: 2 cells"),
        ("audioset20k", "eval_segments.csv", 'h, 0.0, 1.0, "/m/0"\n', r"line 6: /m/0 is not in class_labels"),
        ("audioset20k", "class_labels_indices.csv", "2,/m/1,a;b\n", "'a;b' has a ; in its name"),
        ("fsd50k", "FSD50K.ground_truth/dev.csv", "9\n", r"dev\.csv, line 5: too few cells"),
        ("fsd50k", "FSD50K.ground_truth/dev.csv", "9,Dog,/m/0bt9lr,dev\n", "dev is not in the release"),
        (
            "fsd50k",
            "FSD50K.metadata/eval_clips_info_FSD50K.json",
            "{",
            r"eval_clips_info_FSD50K\.json is no file of the release",
        ),
        ("nsynth", "nsynth-test/examples.json", "}", r"examples\.json is no file of the release"),
        ("esc50", "ESC-50-master/meta/esc50.csv", "1-1-A-0.wav,1,0,dog,True,1,A\n", "1-1-A-0.wav"),
        ("speech_commands", "testing_list.txt", "yes/dd_nohash_0.wav\n", "yes/dd_nohash_0.wav"),
    ],
)
def test_a_fault_in_a_list_is_named(name, file, text, message, copy_of):
    copy = copy_of(name)
    append(copy.folder / file, text)
    with pytest.raises(ValueError, match=message):
        made(copy, name)


def test_columns_that_are_missing_are_named(copy_of):
    copy = copy_of("esc50")
    path = copy.folder / "ESC-50-master/meta/esc50.csv"
    path.write_text(path.read_text().replace("src_file", "source"))
    with pytest.raises(ValueError, match=r"esc50\.csv has no column src_file"):
        made(copy, "esc50")


def test_lists_from_elsewhere_are_checked_too(copy_of):
    copy = copy_of("gtzan")
    append(copy.lists / "valid_filtered.txt", "rock.00001\n")
    with pytest.raises(ValueError, match=r"valid_filtered\.txt, line 3: 'rock.00001' is not GENRE"):
        made(copy, "gtzan")
    copy = copy_of("surge")
    append(copy.lists, "Lead 3,extra\n")
    with pytest.raises(ValueError, match=r"presets\.csv has the split 'extra': name them train, valid, test"):
        made(copy, "surge")


def test_a_class_that_is_not_in_the_release_is_named(copy_of):
    copy = copy_of("speech_commands")
    (copy.folder / "maybe").mkdir()
    (copy.folder / "maybe" / "aa_nohash_0.wav").touch()
    with pytest.raises(ValueError, match="classes that are not in the release: maybe"):
        build_table(
            DATASETS["speech_commands"], copy.folder, expected=replace(copy.expected, clips={}), allow_missing=True
        )


def test_a_class_that_a_split_lacks_is_named(copy_of):
    copy = copy_of("esc50")
    path = copy.folder / "ESC-50-master/audio/1-100-A-0.wav"
    path.unlink()
    with pytest.raises(ValueError, match="fold 1: no clip of dog"):
        made(copy, "esc50")


def test_files_that_no_list_names_are_left_out_with_a_note(copy_of):
    copy = copy_of("esc50")
    (copy.folder / "ESC-50-master/audio/mine.wav").touch()
    (copy.folder / "ESC-50-master/audio/._1-100-A-0.wav").touch()
    [note] = [note for note in made(copy, "esc50").notes if "no list names" in note]
    assert note == "1 audio files that no list names are left out: ESC-50-master/audio/mine.wav"


def test_groups_in_several_official_splits_are_named_by_both(copy_of):
    built = made(copy_of("esc50"), "esc50")
    assert {row.group for row in built.rows} == {"100@1", "100@2", "201", "202"}
    assert built.notes == ("1 groups are in several splits of the release, for example 100: renamed to group@split",)


def test_videos_that_no_longer_exist_are_counted_and_no_error(copy_of):
    copy = copy_of("audioset20k")
    built = made(copy, "audioset20k")
    assert built.num_clips == {"test": 1, "train": 3} and [path.name for path in built.missing] == ["ggggggggggg"]
    assert not built.shortages and built.notes[0].startswith("1 of 5 listed files do not exist: ggggggggggg")
    with pytest.raises(ValueError, match=r"test: 2 clips of 3(.|\n)*another release"):  # but lists must be complete
        build_table(
            DATASETS["audioset20k"],
            copy.folder,
            expected=replace(copy.expected, clips={"train": 3, "test": 3}),
            allow_missing=True,
        )
    (copy.folder / "audio/eval/eeeeeeeeeee.wav").unlink()
    with pytest.raises(ValueError, match="test: none of its clips exist"):
        made(copy, "audioset20k")


def test_the_large_audioset_trains_on_both_lists(copy_of):
    built = made(copy_of("audioset2m"), "audioset2m")
    assert built.num_clips == {"test": 1, "train": 4}


def test_fsd50k_without_its_metadata_has_no_groups(copy_of):
    copy = copy_of("fsd50k")
    for path in (copy.folder / "FSD50K.metadata").iterdir():
        path.unlink()
    built = made(copy, "fsd50k")
    assert all(not row.group for row in built.rows) and "clips have no groups" in built.notes[0]


def test_crema_d_refuses_other_files_and_pointers_of_git_lfs(copy_of):
    copy = copy_of("crema_d")
    odd = copy.folder / "AudioWAV/1001_DFA_JOY_XX.wav"
    odd.touch()
    with pytest.raises(ValueError, match=r"1001_DFA_JOY_XX\.wav is not named"):
        made(copy, "crema_d")
    odd.unlink()
    (copy.folder / "AudioWAV/1001_DFA_ANG_XX.wav").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="pointer of Git LFS"):
        made(copy, "crema_d")


def test_actors_are_split_as_in_tensorflow_datasets():
    split_of = split_speakers(ACTORS)
    counts = {split: list(split_of.values()).count(split) for split in ("train", "valid", "test")}
    assert counts == {"train": 63, "valid": 9, "test": 19}
    # Its catalogue has 738 clips in valid: all 82 of nine actors, and so of none of whom it lacks a clip.
    assert all(split_of[actor] != "valid" for actor in ("1006", "1013", "1017", "1040"))
    assert split_speakers(reversed(ACTORS)) == split_of


def test_a_part_of_crema_d_is_split_like_the_whole(copy_of):
    copy = copy_of("crema_d")
    whole = {row.path: row.split for row in made(copy, "crema_d").rows}
    for path in copy.folder.glob("AudioWAV/10[0-4]*_NEU_*.wav"):
        path.unlink()
    part = {row.path: row.split for row in made(copy, "crema_d", allow_missing=True).rows}
    assert len(part) < len(whole) and all(whole[path] == split for path, split in part.items())


def test_an_archive_of_voxforge_without_recordings_is_missing_as_a_whole(copy_of):
    copy = copy_of("voxforge")
    folder = next(copy.folder.rglob("speaker3-20150101-abc"))
    next(folder.rglob("*.wav")).unlink()
    built = made(copy, "voxforge", allow_missing=True)
    assert built.missing == (folder,) and len(built.rows) == 9
    copy.lists.write_text("somewhere/else.tgz\n")
    with pytest.raises(ValueError, match=r"voxforge_urls\.txt, line 1: .*LANGUAGE/Trunk"):
        made(copy, "voxforge")


def test_presets_are_split_by_their_names(copy_of):
    copy = copy_of("surge")
    splits = [split_of_preset(f"Preset {number}") for number in range(4000)]
    assert abs(splits.count("train") / 4000 - 0.8) < 0.03 and abs(splits.count("test") / 4000 - 0.1) < 0.02
    copy.lists.write_text("preset,split\nLead 0,train\n")
    with pytest.raises(ValueError, match="no row for the preset 'Lead 1'"):
        made(copy, "surge")
    (copy.folder / "surge/Lead 0/21-22.ogg").touch()
    with pytest.raises(ValueError, match=r"21-22\.ogg is not named for one MIDI pitch"):
        build_table(DATASETS["surge"], copy.folder, expected=copy.expected)
    (copy.folder / "surge/Lead 0/21-22.ogg").rename(copy.folder / "surge/Lead 0/120.ogg")
    with pytest.raises(ValueError, match="classes that are not in the release: 120"):
        build_table(DATASETS["surge"], copy.folder, expected=Expected({}, classes=88, in_every_split=False))


@pytest.mark.parametrize("name", ["gtzan", "audioset20k"])
def test_one_list_in_place_of_several_is_refused(name, copy_of):
    copy = copy_of(name)
    one = next(iter([*copy.folder.glob("*.csv"), *copy.folder.parent.glob("lists/*.txt")]))
    with pytest.raises(ValueError, match="is one list"):
        build_table(DATASETS[name], copy.folder, lists=one, expected=copy.expected)


def test_a_table_has_to_be_a_csv(copy_of, tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.csv"):
        write_table(made(copy_of("esc50"), "esc50"), tmp_path / "table.txt")


# As the data sets' own papers and pages have them.
PUBLISHED = {
    "esc50": (2_000, 50),
    "urbansound8k": (8_732, 10),
    "speech_commands": (105_829, 35),
    "voxceleb1": (153_516, 1_251),
    "crema_d": (7_442, 6),
    "gtzan": (930, 10),
    "nsynth": (305_979, 11),
    "surge": (2_084 * 88, 88),
    "fsd50k": (51_197, 200),
    "audioset20k": (22_160 + 20_371, 527),
    "audioset2m": (2_084_320, 527),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_splits_add_up_to_the_published_totals(name):
    expected = DATASETS[name].expected
    assert (sum(expected.clips.values()), expected.classes) == PUBLISHED[name]


@each_dataset
def test_a_data_set_is_described_in_full(name):
    dataset = DATASETS[name]
    assert dataset.name == name and dataset.target and dataset.splits and dataset.protocol and dataset.layout
    assert dataset.clip_s > 0 and dataset.expected.classes > 1 and dataset.home.startswith("http")
    assert bool(dataset.archives) != bool(dataset.no_download)
    assert not dataset.classes or len(set(dataset.classes)) == dataset.expected.classes
    assert all(len(archive.checksum) in (0, 32, 64) for archive in dataset.archives)


@each_dataset
def test_the_clip_length_is_read_from_the_record(name, copy_of, tmp_path):
    write_table(made(copy_of(name), name), tmp_path / "table.csv")
    assert clip_s_of(tmp_path / "table.csv") == DATASETS[name].clip_s
    assert clip_s_of(tmp_path / "another.csv") == 0
    (tmp_path / "table.task.json").write_text("{}")
    assert clip_s_of(tmp_path / "table.csv") == 0


@pytest.mark.parametrize(
    ("record", "clip_s"), [('{"clip_s": 5}', 5.0), ('{"unit_s": 8.2}', 8.2), ('{"unit_s": 1, "clip_s": 2.5}', 2.5)]
)
def test_records_of_earlier_versions_and_of_users_are_read(record, clip_s, tmp_path):
    (tmp_path / "mine.task.json").write_text(record)
    assert clip_s_of(tmp_path / "mine.csv") == clip_s


@pytest.mark.parametrize("record", ["{", "[]", '{"clip_s": -1}', '{"clip_s": "long"}', '{"clip_s": Infinity}'])
def test_a_damaged_record_is_an_error(record, tmp_path):
    (tmp_path / "mine.task.json").write_text(record)
    with pytest.raises(ValueError, match=r"mine\.task\.json is no record of a task: .*; make the task again"):
        clip_s_of(tmp_path / "mine.csv")


def test_an_unknown_data_set_is_an_error_with_the_known_ones():
    with pytest.raises(ValueError, match=r"no data set 'esc5': did you mean esc50\? there are: esc50, urbansound8k"):
        find_dataset("esc5")
    with pytest.raises(ValueError, match=r"math:pi is of type float: name a melmask\.datasets\.base\.Dataset"):
        find_dataset("math:pi")


def test_a_data_set_without_published_numbers_takes_what_it_finds(tmp_path):
    def collect(folder: Path, lists: Path | None) -> Listing:
        return Listing([Row(folder / f"{i}.wav", "ab"[i % 2], "train" if i < 4 else "test") for i in range(6)])

    dataset = Dataset(name="mine", title="My set", collect=collect, layout="NUMBER.wav")
    for i in range(5):
        (tmp_path / f"{i}.wav").touch()
    with pytest.raises(ValueError, match=r"1 of 6 listed files do not exist: 5\.wav\n  Source: My set; complete it"):
        build_table(dataset, tmp_path)
    (tmp_path / "5.wav").touch()
    table = build_table(dataset, tmp_path)
    assert table.num_clips == {"test": 2, "train": 4} and table.classes == ("a", "b") and not table.notes
    write_table(table, tmp_path / "mine.csv")
    assert clip_s_of(tmp_path / "mine.csv") == 0 and read_task(tmp_path / "mine.csv").name == "mine"
