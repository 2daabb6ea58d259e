"""Lines of results.jsonl: what is appended is read again, and so are the lines of all earlier versions."""

import dataclasses
import json
from pathlib import Path

import pytest

from melmask.encoders.baselines import LogMelStatistics
from melmask.encoders.registry import NamedEncoder
from melmask.evaluation.metrics import Score
from melmask.evaluation.results import RESULTS, Result, append_results, keep_results, read_results, result_of

# What each version wrote, from the first on.
FIRST = {
    "task": "birds", "task_path": "birds.csv", "probe": "logistic", "features": "encoder", "metric": "accuracy",
    "score": 0.8, "low": 0.7, "high": 0.9, "num_seeds": 1, "num_clips": 100, "num_classes": 4, "num_dims": 960,
    "rejected": 2, "test_folds": ["1"], "command": "melmask evaluate runs/mine", "version": "0.1.0",
}  # fmt: skip
WITH_NOTES = {**FIRST, "notes": ["the interval rests on 6 groups only"]}
WITH_ENCODER = {**WITH_NOTES, "encoder": "mine", "identity": "abc", "settings": "last layer, mean"}
WITH_UNIT = {**WITH_ENCODER, "unit_s": 2.5}


def _result(**changes: object) -> Result:
    given = {"task": "birds", "task_path": "birds.csv", "probe": "knn", "features": "encoder", "metric": "accuracy",
             "num_classes": 4, "num_dims": 960, "rejected": 0, "test_folds": (), "command": ""}  # fmt: skip
    return dataclasses.replace(result_of(Score(0.5, 0.4, 0.6, 1, 100), **given), **changes)


def _write(folder: Path, *lines: object) -> Path:
    path = folder / RESULTS
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def test_what_is_appended_is_read_again(tmp_path: Path) -> None:
    results = [
        _result(notes=("a", "b"), test_folds=("1", "2"), clip_s=1.5),
        _result(probe="b", score=float("nan")),
    ]
    assert append_results(tmp_path, results) == tmp_path / RESULTS
    found = read_results(tmp_path)
    assert found[0] == results[0] and str(found[1]) == str(results[1])
    assert read_results(tmp_path / RESULTS)[0] == results[0]
    assert read_results(tmp_path / "nowhere") == [] and read_results(tmp_path / "nowhere" / RESULTS) == []


@pytest.mark.parametrize("line", [FIRST, WITH_NOTES, WITH_ENCODER, WITH_UNIT], ids=["bare", "notes", "encoder", "unit"])
def test_lines_of_earlier_versions_are_read(line: dict, tmp_path: Path) -> None:
    _write(tmp_path, line)
    [found] = read_results(tmp_path)
    assert found.clip_s == line.get("unit_s", 0) and found.settings == line.get("settings", "")
    assert found.test_folds == ("1",) and found.notes == tuple(line.get("notes", ()))
    assert (found.task, found.score, found.low, found.num_dims) == ("birds", 0.8, 0.7, 960)


def test_a_field_that_is_not_known_is_left_out(tmp_path: Path) -> None:
    _write(tmp_path, {**WITH_UNIT, "clip_s": 1.0, "colour": "red"})
    assert [found.clip_s for found in read_results(tmp_path)] == [1.0]


def test_the_newest_of_each_kind_is_kept(tmp_path: Path) -> None:
    changes = [{}, {"score": 0.9}, {"unit_s": 1.0}, {"probe": "knn"}, {"settings": "all layers, mean"}, {"task": "b"}]
    changes += [{"features": "untrained", "encoder": "mine untrained"}, {"encoder": "the same, moved", "score": 0.7}]
    path = _write(tmp_path, *({**WITH_UNIT, **change} for change in changes))
    assert [found.score for found in read_results(tmp_path)] == [0.7, 0.8, 0.8, 0.8, 0.8, 0.8]
    # A file that is of no run holds several encoders, and then the name tells them apart.
    assert [found.score for found in read_results(path)] == [0.9, 0.8, 0.8, 0.8, 0.8, 0.8, 0.7]


def test_damaged_lines_are_skipped_named_and_kept(tmp_path: Path) -> None:
    without = {key: value for key, value in FIRST.items() if key != "low"}
    path = _write(tmp_path, json.dumps(WITH_UNIT)[:50] + "\n", FIRST, without, [1, 2], {**FIRST, "score": "high"})
    before = path.read_text()
    with pytest.warns(UserWarning, match=r"results\.jsonl: lines 1, 3, 4, 5 are damaged and were skipped; they stay"):
        assert [found.score for found in read_results(tmp_path)] == [FIRST["score"]]
    assert path.read_text() == before
    _write(tmp_path, [1, 2])
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=r"results\.jsonl holds no results: name a file"):
        read_results(path)


def test_a_result_is_appended_behind_a_torn_line(tmp_path: Path) -> None:
    path = _write(tmp_path, FIRST, json.dumps(FIRST)[:50])
    append_results(path, [_result(task="new")])
    with pytest.warns(UserWarning, match="line 2 is damaged"):
        assert [found.task for found in read_results(path)] == [FIRST["task"], "new"]


def test_results_go_to_their_runs_and_all_of_them_to_the_file(tmp_path: Path) -> None:
    runs = (tmp_path / "one", tmp_path / "two")
    for run in runs:
        run.mkdir()
    encoders = [
        NamedEncoder(LogMelStatistics(), name, features, of_runs)
        for name, features, of_runs in (("one", "encoder", runs[:1]), ("two", "encoder", runs[1:]), ("s", "s", runs))
    ] + [NamedEncoder(LogMelStatistics(), "other", "other")]
    results = [_result(encoder=encoder.name) for encoder in encoders]
    assert keep_results(encoders, results, tmp_path / "new" / "all.jsonl") == [
        runs[0] / RESULTS, runs[1] / RESULTS, tmp_path / "new" / "all.jsonl",
    ]  # fmt: skip
    kept = [[json.loads(line)["encoder"] for line in (run / RESULTS).read_text().splitlines()] for run in runs]
    assert kept == [["one", "s"], ["two", "s"]]
    assert [found.encoder for found in read_results(tmp_path / "new" / "all.jsonl")] == ["one", "two", "s", "other"]


def test_tasks_of_one_name_and_other_content_do_not_replace_each_other(tmp_path: Path) -> None:
    one, relabelled = _result(content="1", score=0.9), _result(content="2", score=0.4)
    append_results(tmp_path, [_result(score=0.1), one, relabelled])
    assert read_results(tmp_path) == [one, relabelled]  # the first line is of an earlier version
    again = _result(content="1", score=0.8, task="b/birds")
    append_results(tmp_path, [again])
    assert sorted(found.score for found in read_results(tmp_path)) == [0.4, 0.8]
