"""Splits by lists that others publish, and what tables call a split."""

import json

import pytest

from melmask.cli import main
from melmask.datasets import DATASETS
from melmask.datasets.base import Dataset, Listing, Row
from melmask.datasets.build import build_table, dataset_of, split_of, write_table


def by_list(copy, name, lines, tmp_path, **options):
    lists = tmp_path / "published.csv"
    lists.write_text("\n".join(lines) + "\n")
    return build_table(DATASETS[name], copy.folder, lists=lists, split="evar", **{"expected": copy.expected, **options})


@pytest.mark.parametrize("column", ["preset", "tone"])
def test_surge_is_split_by_preset_whatever_the_column_is_called(copy_of, tmp_path, column):
    lines = [f"{column},split", "Lead 0,test", "Lead 1,train", "Lead 2,val"]
    built = by_list(copy_of("surge"), "surge", lines, tmp_path)
    assert {row.group: row.split for row in built.rows} == {"Lead 0": "test", "Lead 1": "train", "Lead 2": "valid"}
    assert built.split_name == "EVAR split (published.csv)"
    write_table(built, tmp_path / "surge.csv")
    assert split_of(tmp_path / "surge.csv") == built.split_name and dataset_of(tmp_path / "surge.csv") == "surge"


def test_crema_d_is_split_by_recordings_or_by_actors(copy_of, tmp_path):
    copy = copy_of("crema_d")
    names = sorted(path.stem for path in (copy.folder / "AudioWAV").iterdir())
    parts = {name: ("test", "train", "valid")[number % 3] for number, name in enumerate(names[:-1])}
    rows = [f"any/folder/{name}.flac,{name[9:12]},{split}" for name, split in parts.items()]
    built = by_list(copy, "crema_d", ["file_name,label,split", *rows], tmp_path)
    assert {row.path.stem: row.split for row in built.rows} == parts
    [note] = [note for note in built.notes if "no list names" in note]
    assert names[-1] in note
    actors = [f"{actor},{('train', 'validation', 'test')[actor % 3]}" for actor in range(1001, 1092)]
    built = by_list(copy, "crema_d", ["actor,split", *actors], tmp_path)
    assert len(built.rows) == 182 and not any("no list names" in note for note in built.notes)
    assert all(row.split == ("train", "valid", "test")[int(row.group) % 3] for row in built.rows)


def test_a_listed_recording_that_is_not_there_is_missing(copy_of, tmp_path):
    copy = copy_of("crema_d")
    names = sorted(path.name for path in (copy.folder / "AudioWAV").iterdir())
    lines = ["file_name,split", *(f"{name},{('train', 'valid', 'test')[i % 3]}" for i, name in enumerate(names))]
    (copy.folder / "AudioWAV" / names[0]).unlink()
    with pytest.raises(ValueError, match=f"1 of 182 listed files do not exist: .*{names[0]}"):
        by_list(copy, "crema_d", lines, tmp_path)
    built = by_list(copy, "crema_d", lines, tmp_path, allow_missing=True)
    assert len(built.rows) == 181 and [path.name for path in built.missing] == [names[0]]


def test_voxforge_is_split_by_recordings_in_their_archives_or_by_speakers(copy_of, tmp_path):
    copy = copy_of("voxforge")
    rows = [f"speaker{i}-20150101-abc/wav/de1.wav,{('test', 'train', 'valid')[i % 3]}" for i in range(9)]
    built = by_list(copy, "voxforge", ["file_name,split", *rows], tmp_path)
    assert {row.group: row.split for row in built.rows} == {
        f"speaker{i}": ("test", "train", "valid")[i % 3] for i in range(9)
    }
    assert {row.label for row in built.rows} == {"de", "en"} and any("no list names" in note for note in built.notes)
    rows = [f"speaker{i},{('test', 'train', 'valid')[i % 3]}" for i in range(10)]
    built = by_list(copy, "voxforge", ["speaker,split", *rows], tmp_path)
    assert len(built.rows) == 10 and {row.split for row in built.rows} == {"train", "valid", "test"}
    # One of the same name in another archive does not stand in for it.
    rows = ["elsewhere-20150101-abc/wav/de1.wav,test", "speaker1-20150101-abc/wav/de1.wav,train"]
    with pytest.raises(ValueError, match="listed files do not exist: elsewhere"):
        by_list(copy, "voxforge", ["file_name,split", *rows], tmp_path)


@pytest.mark.parametrize("name", DATASETS)
def test_only_official_splits_are_called_official(name, copy_of):
    copy = copy_of(name)
    built = build_table(DATASETS[name], copy.folder, lists=copy.lists, expected=copy.expected)
    expected = {"crema_d": "melmask split", "voxforge": "melmask split", "surge": "split of presets.csv"}
    assert built.split_name == expected.get(name, "fault-filtered lists" if name == "gtzan" else "official split")
    if name == "surge":
        built = build_table(DATASETS[name], copy.folder, expected=copy.expected, allow_missing=True)
        assert built.split_name == "melmask split"
    if DATASETS[name].collect_evar is None:
        same = build_table(DATASETS[name], copy.folder, lists=copy.lists, split="evar", expected=copy.expected)
        assert same.split_name == built.split_name and same.rows == built.rows


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["name,split", "Lead 0,train"], "has no column preset or tone: its columns are name, split"),
        (["tone,part", "Lead 0,train"], "has no column split"),
        (["tone,split", "Lead 0,later"], "has the split 'later': name them train, valid, test"),
        (["tone,split", "Lead 0,train", "Lead 0,test"], "has 'Lead 0' in the splits train and test: keep one"),
        (["tone,split", "Lead 0,train"], "has no row for the preset 'Lead 1'"),
    ],
)
def test_faults_of_a_list_are_named(copy_of, tmp_path, lines, message):
    with pytest.raises(ValueError, match=message):
        by_list(copy_of("surge"), "surge", lines, tmp_path)


def test_evar_s_split_needs_its_file_and_is_not_known_of_other_data_sets(copy_of):
    copy = copy_of("crema_d")
    with pytest.raises(ValueError, match=r"EVAR's split of CREMA-D is a file that EVAR publishes.*--lists"):
        build_table(DATASETS["crema_d"], copy.folder, split="evar")
    with pytest.raises(ValueError, match="is a folder: give the split file itself"):
        build_table(DATASETS["crema_d"], copy.folder, lists=copy.folder, split="evar")
    own = Dataset(name="own", title="Own", collect=lambda *_: Listing([Row(copy.folder, "a", "train")]), layout="any")
    with pytest.raises(ValueError, match="EVAR's split of Own is not known"):
        build_table(own, copy.folder, split="evar")


def test_the_command_reads_a_published_list_and_names_the_split(copy_of, tmp_path, capsys):
    copy, lists, out = copy_of("surge"), tmp_path / "surge_split.csv", tmp_path / "surge.csv"
    lists.write_text("tone,split\nLead 0,train\nLead 1,valid\nLead 2,test\n")
    command = ["tasks", "make", "surge", str(copy.folder), "--split", "evar", "--lists", str(lists), "--out", str(out)]
    main.main([*command, "--allow-missing"])
    assert "split: EVAR split (surge_split.csv)" in capsys.readouterr().out
    assert json.loads(out.with_suffix(".task.json").read_text())["split"] == "EVAR split (surge_split.csv)"
