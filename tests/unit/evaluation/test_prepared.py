"""Tasks as their recordings are: what is lost is said by class, copies are known, and content tells tasks apart."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melmask.data.prepare import prepare
from melmask.encoders.features import FeatureSettings
from melmask.encoders.registry import with_baselines
from melmask.evaluation.prepared import task_in_store
from melmask.evaluation.run import EvaluationSettings, evaluate, evaluate_stores
from melmask.evaluation.splits import splits_of
from melmask.evaluation.task import Task, group_numbers

RATE_HZ = 16_000


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path / "cache"))


def noises(folder: Path, num: int, num_samples: int = 4_000) -> list[str]:
    """So many different noises, as n00.wav and so on."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(3)
    for i in range(num):
        samples = np.round(0.1 * rng.standard_normal(num_samples).clip(-5, 5) * 2**15).astype(np.int16)
        soundfile.write(folder / f"n{i:02}.wav", samples, RATE_HZ)
    return [f"n{i:02}.wav" for i in range(num)]


def write_table(folder: Path, rows: list[tuple[str, str, str]], name: str = "set.csv", header: str = "path,label,fold"):
    (folder / name).write_text(header + "\n" + "".join(",".join(row) + "\n" for row in rows))
    return folder / name


def read(table: Path, **options: bool) -> Task:
    store = prepare([table], table.parent / f"store-{table.stem}", num_workers=0)
    return task_in_store(table, store, **options)


def test_a_class_of_short_clips_stays(tmp_path: Path) -> None:
    names = noises(tmp_path, 24, num_samples=1600)
    short = noises(tmp_path / "short", 12, num_samples=160)
    rows = [(name, "ab"[i % 2], str(i // 2 % 3)) for i, name in enumerate(names)]
    rows += [(f"short/{name}", "gunshot", str(i % 3)) for i, name in enumerate(short)]
    results = evaluate(["logmel-stats", "untrained:micro"], write_table(tmp_path, rows), probes="knn", num_workers=0)
    assert {(result.num_clips, result.num_classes, result.rejected) for result in results} == {(36, 3, 0)}


def test_test_clips_that_were_lost_are_counted_by_class(tmp_path: Path) -> None:
    names = noises(tmp_path, 24)
    for number in (0, 3, 6, 7):
        (tmp_path / names[number]).write_text("no audio")
    rows = [(name, "abc"[i % 3], str(i // 3 % 2 + 1)) for i, name in enumerate(names)]
    table = write_table(tmp_path, rows)
    lost = f"listed in {tmp_path / 'store-set' / 'rejected.csv'}"
    for folds, note in (
        ((), f"4 of 24 test clips could not be used: a 3, b 1; {lost}"),
        (("1",), f"3 of 12 test clips could not be used: a 2, b 1; {lost}"),
        (("2",), f"1 of 12 test clips could not be used: a 1; {lost}"),
    ):
        assert splits_of(read(table), test_folds=folds)[0].notes == (note,)
    [result] = evaluate(["logmel-stats"], table, probes="knn", num_workers=0)
    assert result.rejected == 4 and "4 of 24 test clips could not be used: a 3, b 1; listed in" in result.notes[0]


def test_training_clips_that_were_lost_are_no_lost_test_clips(tmp_path: Path) -> None:
    names = noises(tmp_path, 24)
    (tmp_path / names[0]).write_text("no audio")
    rows = [(name, "ab"[i % 2], "training" if i < 12 else "testing") for i, name in enumerate(names)]
    [split] = splits_of(read(write_table(tmp_path, rows, header="path,label,split")))
    assert split.notes == ()


@pytest.mark.parametrize(("column", "named"), [(1, "class 'b'"), (2, "fold '2'")])
def test_a_class_or_a_fold_that_rejections_empty_is_an_error_that_names_it(tmp_path, column, named) -> None:
    names = noises(tmp_path, 24)
    rows = [(name, "abc"[i % 3], str(i // 3 % 3)) for i, name in enumerate(names)]
    for row in rows:
        if row[column] == named[-2]:
            (tmp_path / row[0]).write_text("no audio")
    with pytest.raises(ValueError, match=rf"{named} of task set has no clip that can be used: all \d were rejected"):
        read(write_table(tmp_path, rows))


def duplicate(folder: Path, name: str, how: str) -> str:
    """One more name for a recording."""
    if how == "copy":
        shutil.copy(folder / name, folder / f"copy_{name}")
        return f"copy_{name}"
    if how == "symlink":
        (folder / f"link_{name}").symlink_to(name)
        return f"link_{name}"
    if how == "hard link":
        (folder / f"hard_{name}").hardlink_to(folder / name)
        return f"hard_{name}"
    if how == "path":
        return f"../{folder.name}/{name}"
    samples, rate_hz = soundfile.read(folder / name, dtype="int16")
    if how == "stereo":
        samples = np.stack([samples, samples], axis=1)
    other = f"{how}_{name}".replace(".wav", ".flac" if how == "flac" else ".wav")
    soundfile.write(folder / other, samples, rate_hz, subtype="PCM_24" if how == "24 bit" else None)
    return other


@pytest.mark.parametrize("how", ["copy", "symlink", "hard link", "path", "flac", "24 bit", "stereo"])
def test_one_recording_in_training_and_test_is_an_error_unless_allowed(tmp_path: Path, how: str) -> None:
    folder, rng = tmp_path / "noises", np.random.default_rng(0)
    rows = []
    for name in noises(folder, 16):
        label = "ab"[rng.integers(2)]
        rows += [(name, label, "1"), (duplicate(folder, name, how), label, "2")]
    table = write_table(folder, rows)
    assert len(set(group_numbers(read(table)))) == 16
    with pytest.raises(ValueError, match=r"fold '1' .* outside it are one recording \(16 such\).*--allow-duplicates"):
        splits_of(read(table))
    for split in splits_of(read(table, allow_duplicates=True)):
        assert "the recordings of 16 of 16 test clips are in training too" in split.notes[0]
    with pytest.raises(ValueError, match="one recording"):
        evaluate(["logmel-stats"], table, probes="knn", num_workers=0)
    [result] = evaluate(["logmel-stats"], table, probes="knn:num_neighbours=1", num_workers=0, allow_duplicates=True)
    assert result.score > 0.8 and "test clips are in training too" in result.notes[0]


def test_copies_stay_together_where_folds_and_validation_clips_are_drawn(tmp_path: Path) -> None:
    rows = []
    for i, name in enumerate(noises(tmp_path, 30)):
        rows += [(name, "ab"[i % 2]), (duplicate(tmp_path, name, "copy"), "ab"[i % 2])]
    task = read(write_table(tmp_path, rows, header="path,label"))  # type: ignore[arg-type]
    for split in splits_of(task):
        parts = [set(task.recordings[part]) for part in (split.train, split.valid, split.test)]
        assert sum(map(len, parts)) == 30


def test_recordings_without_copies_change_nothing(recordings: Path, store) -> None:
    task = task_in_store(recordings, store)
    bare = Task(task.name, task.paths, task.classes, task.targets, task.folds, task.groups)
    assert np.array_equal(group_numbers(task), group_numbers(bare))
    for split, other in zip(splits_of(task), splits_of(bare), strict=True):
        assert split.notes == other.notes
        for part in ("train", "valid", "test"):
            assert np.array_equal(getattr(split, part), getattr(other, part))


def test_the_content_of_a_task_depends_on_recordings_labels_folds_and_groups_alone(tmp_path: Path) -> None:
    names = noises(tmp_path / "one", 12)
    rows = [(name, "ab"[i % 2], str(i // 2 % 3)) for i, name in enumerate(names)]
    first = read(write_table(tmp_path / "one", rows)).content
    shutil.copytree(tmp_path / "one", tmp_path / "two", ignore=shutil.ignore_patterns("store*"))
    assert read(tmp_path / "two" / "set.csv").content == first
    assert read(write_table(tmp_path / "two", rows, "renamed.csv")).content == first
    relabelled = [(name, "ba"[i % 2], fold) for i, (name, _, fold) in enumerate(rows)]
    refolded = [(name, label, str(i % 3)) for i, (name, label, _) in enumerate(rows)]
    grouped = [(*row, "g" + row[2]) for row in rows]
    others = [
        read(write_table(tmp_path / "two", relabelled, "a.csv")).content,
        read(write_table(tmp_path / "two", refolded, "b.csv")).content,
        read(write_table(tmp_path / "two", grouped, "c.csv", "path,label,fold,group")).content,  # type: ignore[arg-type]
        read(write_table(tmp_path / "two", rows[:-2], "d.csv")).content,
    ]
    assert len({first, *others}) == 5


def test_two_tables_of_one_name_are_two_tasks(tmp_path: Path) -> None:
    for number, folder in enumerate((tmp_path / "a", tmp_path / "b")):
        names = noises(folder, 12)
        write_table(folder, [(name, "xy"[(i + number * i // 2) % 2], str(i // 2 % 3)) for i, name in enumerate(names)])
    tables = [tmp_path / "a" / "set.csv", tmp_path / "b" / "set.csv"]
    results = evaluate(["logmel-stats"], tables, probes="knn", num_workers=0)
    assert [result.task for result in results] == ["a/set", "b/set"]
    assert results[0].content != results[1].content
    [alone] = evaluate(["logmel-stats"], tables[0], probes="knn", num_workers=0)
    assert (alone.task, alone.content) == ("set", results[0].content)


def test_a_store_of_another_table_is_refused(recordings: Path, store, tmp_path: Path) -> None:
    lines = recordings.read_text().splitlines()
    (tmp_path / "fewer.csv").write_text("\n".join([lines[0], *(f"{recordings.parent}/{line}" for line in lines[5:])]))
    encoders = with_baselines(["logmel-stats"], FeatureSettings())
    with pytest.raises(ValueError, match=r"00\.wav in .* is not in .*fewer\.csv: .*prepare it again"):
        list(evaluate_stores(encoders, tmp_path / "fewer.csv", [store], EvaluationSettings(["knn"])))
