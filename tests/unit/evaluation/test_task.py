"""Tables are parsed as written, and no split leaks a group, a clip or a test label."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelled import task_of
from melmask.evaluation.splits import splits_of
from melmask.evaluation.task import group_numbers, read_task


def _write(folder: Path, text: str) -> Path:
    table = folder / "birds.csv"
    table.write_text(text, encoding="utf-8")
    return table


def test_reads_one_label_a_clip(tmp_path: Path) -> None:
    table = _write(tmp_path, "path,label,fold,group\nx/1.wav,wren,1,a\nx/2.wav, owl ,2,b\nx/3.wav,wren,2,\n")
    task = read_task(table)
    assert (task.name, task.classes, task.metric) == ("birds", ("owl", "wren"), "accuracy")
    assert task.targets.tolist() == [1, 0, 1]
    assert task.paths[1] == tmp_path / "x/2.wav"
    assert task.folds.tolist() == ["1", "2", "2"]
    assert group_numbers(task).tolist() == [0, 2, 1]  # a clip without a group stands for itself
    assert task.flags.tolist() == [[False, True], [True, False], [False, True]]


def test_reads_several_labels_a_clip(tmp_path: Path) -> None:
    task = read_task(_write(tmp_path, "path,label,split\n1.wav,wren;owl,train\n2.wav,owl,test\n3.wav,,train\n"))
    assert task.is_multilabel and task.metric == "mAP"
    assert task.targets.tolist() == [[True, True], [True, False], [False, False]]
    assert task.folds.tolist() == ["train", "test", "train"]
    assert task.groups is None and group_numbers(task).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\n1.wav,a\n1.wav,b\n", "twice"),
        ("path,label\n1.wav,a\n2.wav,\n3.wav,b\n", r"2\.wav.*no label"),
        ("path,label\n1.wav,a\n2.wav,a\n", "at least two"),
        ("path\n1.wav\n2.wav\n", "at least two"),
        ("path,label,fold\n1.wav,a,1\n2.wav,b,\n", r"2\.wav.*no fold"),
        ("path,label,fold,split\n1.wav,a,1,train\n2.wav,b,2,test\n", "both a fold and a split"),
        ("label\na\n", "path"),
    ],
)
def test_faults_in_a_table_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_task(_write(tmp_path, text))


def test_folds_are_left_out_one_by_one() -> None:
    folds = [str(fold) for fold in range(1, 12) for _ in range(8)]
    task = task_of(["a", "b"] * 44, folds)
    splits = splits_of(task)
    assert [split.name for split in splits] == [str(fold) for fold in range(1, 12)]  # 10 after 9
    for split in splits:
        assert set(task.folds[split.test]) == {split.name}
        assert split.name not in task.folds[np.concatenate([split.train, split.valid])]
    again = splits_of(task, test_folds=("5",))
    assert len(again) == 1
    assert np.array_equal(again[0].train, splits[4].train) and np.array_equal(again[0].valid, splits[4].valid)


@pytest.mark.parametrize("valid_name", ["val", "valid", "Validation", "dev"])
def test_official_split(valid_name: str) -> None:
    [split] = splits_of(task_of(list("abcabc"), ["train", "train", valid_name, "Test", "test", "train"]))
    assert split.name == "test"
    assert (split.train.tolist(), split.valid.tolist(), split.test.tolist()) == ([0, 1, 5], [2], [3, 4])
    assert split.parts == (), "its own validation clips choose settings, and no others"


def test_official_split_without_validation_sets_a_tenth_of_the_training_clips_aside() -> None:
    task = task_of(["a", "b"] * 100 + ["a"] * 20, ["train"] * 200 + ["test"] * 20)
    [split] = splits_of(task)
    assert np.bincount(task.targets[split.valid]).tolist() == [10, 10]
    assert split.test.tolist() == list(range(200, 220))


def test_validation_clips_hold_every_class_and_no_training_group() -> None:
    """30 speakers in 3 folds, who all say all 4 words: of a fold's 20 training speakers 2 make a tenth."""
    speakers = np.repeat(np.arange(30), 4)
    task = task_of(list("abcd") * 30, [str(s % 3) for s in speakers], [f"speaker {s}" for s in speakers])
    for split in splits_of(task):
        assert np.bincount(task.targets[split.valid]).tolist() == [2, 2, 2, 2]
        assert not set(task.groups[split.valid]) & set(task.groups[split.train])
    other = splits_of(task, seed=1)
    assert any(not np.array_equal(a.valid, b.valid) for a, b in zip(splits_of(task), other, strict=True))


def test_validation_does_not_take_the_only_group_of_a_class() -> None:
    groups = ["only a", "only b"] * 2 + [f"c {i}" for i in range(16)]
    task = task_of(["a", "b"] * 2 + ["c"] * 16 + ["a", "b", "c"], ["1"] * 20 + ["2"] * 3, [*groups, "x", "y", "z"])
    for seed in range(20):
        [split] = splits_of(task, test_folds=["2"], seed=seed)
        assert set(task.targets[split.train]) == {0, 1, 2}
        assert len(split.valid) == 2


def test_a_single_training_group_is_shared_and_noted() -> None:
    task = task_of(["a", "b"] * 20, ["train"] * 30 + ["test"] * 10, ["one"] * 30 + ["other"] * 10)
    [split] = splits_of(task)
    assert len(split.valid) == 3
    assert split.notes == ("fold test: training and validation share 1 groups",)


def test_group_on_both_sides_is_refused_by_name() -> None:
    groups = ["ann", "bob", "ann", "cat"]
    with pytest.raises(ValueError, match="'ann'"):
        splits_of(task_of(list("abab"), ["1", "1", "2", "2"], groups))
    with pytest.raises(ValueError, match="'ann'"):  # a validation clip is outside the test as well
        splits_of(task_of(list("abab"), ["train", "train", "val", "test"], ["bob", "dan", "ann", "ann"]))
    marked = ["ann@1", "bob", "ann@2", "cat"]
    assert len(splits_of(task_of(list("abab"), ["1", "1", "2", "2"], marked))) == 2


@pytest.mark.parametrize(
    ("folds", "test_folds", "message"),
    [
        (["train", "test", "extra", "train"], (), "need train and test"),
        (["train", "train", "val", "val"], (), "need train and test"),
        (["1", "1", "1", "1"], (), "only the fold"),
        (["1", "2", "1", "2"], ["3"], r"no test fold \['3'\].*'1', '2'"),
        (["train", "test", "train", "test"], ["1"], "no test fold"),
        (["1", "2", "2", "2"], ["2"], "1 training clips"),
    ],
)
def test_folds_that_cannot_be_tested_on_are_refused(folds, test_folds, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        splits_of(task_of(list("abab"), folds), test_folds=test_folds)


def test_without_folds_five_are_drawn_with_balanced_classes_and_noted() -> None:
    task = task_of(["a"] * 50 + ["b"] * 26 + ["c"] * 3)
    splits = splits_of(task)
    assert sorted(np.concatenate([split.test for split in splits]).tolist()) == list(range(79))
    counts = np.array([np.bincount(task.targets[split.test], minlength=3) for split in splits])
    assert (np.ptp(counts, axis=0) <= 1).all()
    assert splits[0].notes == ("no folds given: split into 5 with seed 0",)
    assert [s.test.tolist() for s in splits_of(task)] == [s.test.tolist() for s in splits]
    assert [s.test.tolist() for s in splits_of(task, seed=1)] != [s.test.tolist() for s in splits]


def test_a_single_group_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="single group"):
        splits_of(task_of(list("abab"), None, ["x"] * 4))


@given(
    labels=st.lists(st.sampled_from(["a", "b", "c", "a;b", ""]), min_size=40, max_size=60),
    num_groups=st.integers(12, 60),
    has_folds=st.booleans(),
    seed=st.integers(0, 5),
)
def test_every_split_is_a_partition_that_keeps_groups_whole(labels, num_groups, has_folds, seed) -> None:
    labels[:2] = ["a;b", "c"]
    groups = [str(i % num_groups) for i in range(len(labels))]
    folds = [str(int(group) % 4) for group in groups] if has_folds else None
    task = task_of(labels, folds, groups)
    splits = splits_of(task, seed=seed)
    assert len(splits) == (4 if has_folds else 5)
    for split in splits:
        parts = [split.train, split.valid, split.test]
        assert all(len(part) for part in parts)
        assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
        assert sum(len(set(task.groups[part])) for part in parts) == len(set(groups))
        known = [task.groups[part] for part in split.parts]
        assert len(known) == 5
        assert sorted(np.concatenate(split.parts)) == sorted(np.concatenate(parts[:2]))
        assert sum(len(set(own)) for own in known) == len(set(np.concatenate(known)))
