"""Labels and names of splits as people write them are understood, or named with the remedy."""

from pathlib import Path

import numpy as np
import pytest

from labelled import task_of
from melmask.evaluation.labels import split_labels
from melmask.evaluation.splits import splits_of
from melmask.evaluation.task import read_task


@pytest.mark.parametrize(
    ("labels", "read"),
    [
        (["a;b", "a", " b ; a "], [["a", "b"], ["a"], ["b", "a"]]),
        (["a|b", "a", ""], [["a", "b"], ["a"], []]),
        (["['a', 'b']", '["b"]', "[]"], [["a", "b"], ["b"], []]),
        (["[a, b]", "[a]", ""], [["a", "b"], ["a"], []]),
        (["['a' 'b']", "{'a'}", "('b',)"], [["a", "b"], ["a"], ["b"]]),
        (['["a, or b", "c"]', '["c"]'], [["a, or b", "c"], ["c"]]),
        (["Speech;Male speech, man speaking", "Speech"], [["Speech", "Male speech, man speaking"], ["Speech"]]),
        (["[laughter] x", "speech"], [["[laughter] x"], ["speech"]]),
        (["AC/DC", "rock'n'roll"], [["AC/DC"], ["rock'n'roll"]]),
    ],
)
def test_several_labels_of_a_clip(labels: list[str], read: list[list[str]]) -> None:
    assert split_labels(labels, "toy")[0] == read


@pytest.mark.parametrize(
    ("labels", "named"),
    [(["tone,loud", "tone", "hum"], "'tone,loud', and 'tone'"), (["a,b", "b,c", "c,a"], "'a,b', and 'b,c'")],
)
def test_commas_that_join_labels_are_an_error(labels: list[str], named: str) -> None:
    with pytest.raises(ValueError, match=rf"task toy has the label {named} is .*label.*join several labels .* by ';'"):
        task_of(labels)


@pytest.mark.parametrize("name", ["Inside, small room", "dog/cat", "dog+cat", "dog & cat"])
def test_labels_that_may_be_several_are_noted_as_one_class(name: str) -> None:
    task = task_of([name, "dog", "cat"] * 10, [str(i % 2) for i in range(30)])
    assert len(task.classes) == 3
    [note] = splits_of(task)[0].notes
    assert f"label {name!r} is one class" in note


def test_separators_that_were_recognised_are_noted() -> None:
    task = task_of(["dog|cat", "dog", "cat"] * 10, [str(i % 2) for i in range(30)])
    assert task.is_multilabel and task.classes == ("cat", "dog")
    assert splits_of(task)[0].notes == ("labels such as dog|cat are split at '|'",)


@pytest.mark.parametrize(
    ("train", "valid", "test"),
    [
        ("training", None, "testing"),
        ("development", None, "evaluation"),
        ("Development", None, "test"),
        ("trn", None, "tst"),
        ("TRAIN ", "dev", "eval"),
        ("train", "development", "test"),
        ("training", "validation", "testing"),
        ("dev", "val", "eval"),
    ],
)
@pytest.mark.parametrize("column", ["split", "fold"])
def test_the_usual_names_of_splits(tmp_path: Path, column: str, train: str, valid: str | None, test: str) -> None:
    names = [train, test, valid or train] * 10
    rows = "".join(f"{i}.wav,{'ab'[i // 3 % 2]},{name}\n" for i, name in enumerate(names))
    (tmp_path / "set.csv").write_text(f"path,label,{column}\n{rows}")
    [split] = splits_of(read_task(tmp_path / "set.csv"))
    assert split.name == "test" and np.array_equal(split.test, np.arange(1, 30, 3))
    if valid:
        assert np.array_equal(split.valid, np.arange(2, 30, 3))


@pytest.mark.parametrize("names", [("seen", "unseen"), ("train", "other"), ("A", "B"), ("train", "trainval")])
def test_a_split_of_any_other_name_is_an_error_that_lists_what_is_known(tmp_path: Path, names: tuple[str, str]) -> None:
    rows = "".join(f"{i}.wav,{'ab'[i // 2 % 2]},{names[i % 2]}\n" for i in range(12))
    (tmp_path / "set.csv").write_text(f"path,label,split\n{rows}")
    with pytest.raises(ValueError, match=r"train, training, trn.*development.*testing, tst.*call the column fold"):
        read_task(tmp_path / "set.csv")


def test_numbers_are_folds_in_either_column_and_sites_in_a_fold_column(tmp_path: Path) -> None:
    for column, names in (("split", "12"), ("fold", ("north", "south"))):
        rows = "".join(f"{i}.wav,{'ab'[i // 2 % 2]},{names[i % 2]}\n" for i in range(12))
        (tmp_path / "set.csv").write_text(f"path,label,{column},site\n{rows.replace(chr(10), ',x' + chr(10))}")
        task = read_task(tmp_path / "set.csv")
        assert [split.name for split in splits_of(task)] == list(names)
        assert task.notes == ("columns of the table that are not read: site",)
