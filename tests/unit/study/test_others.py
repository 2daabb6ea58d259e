"""Encoders that are no runs: read from files of results, with their own baselines and under their own names."""

from dataclasses import replace
from pathlib import Path

import pytest

from evaluations import result, run_with
from melmask.evaluation.results import append_results
from melmask.study.others import read_others
from melmask.study.table import tabulate

SETTINGS = "last layer, mean+std"


def test_an_encoder_has_its_baselines_and_no_others(tmp_path: Path) -> None:
    lines = [
        result("encoder", 0.8, encoder=f"tiny ({SETTINGS})", settings=SETTINGS, identity="t"),
        result("untrained", 0.5, encoder=f"tiny ({SETTINGS}) untrained", settings=SETTINGS),
        result("onnx", 0.7, encoder="birdnet"),
        result("log-mel statistics", 0.6, encoder="log-mel statistics"),
        result("encoder", 0.9, encoder="run", identity="r"),
    ]
    append_results(tmp_path / "results.jsonl", lines)
    run = run_with("run", result("encoder", 0.9, encoder="run", identity="r"))
    tiny, birdnet = read_others([tmp_path / "results.jsonl"], [run])
    assert (tiny.name, birdnet.name) == ("tiny", "birdnet")
    assert [(one.features, one.score) for one in tiny.results] == [
        ("encoder", 0.8), ("untrained", 0.5), ("log-mel statistics", 0.6),
    ]  # fmt: skip
    assert [(one.features, one.score) for one in birdnet.results] == [("encoder", 0.7), ("log-mel statistics", 0.6)]
    table = tabulate([tiny, birdnet, run])
    assert [row.label for row in table.rows] == [
        f"tiny ({SETTINGS})", "birdnet", "run", f"untrained encoder ({SETTINGS})", "log-mel statistics",
    ]  # fmt: skip
    (column,) = table.columns
    assert [row.label for row in table.baselines(table.rows[1], column)] == ["log-mel statistics"]


def test_the_untrained_form_of_whitened_features_is_its_encoder_s(tmp_path: Path) -> None:
    lines = [
        result("encoder", 0.8, encoder=f"tiny ({SETTINGS}, whitened)", settings=f"{SETTINGS}, whitened", identity="t"),
        result("untrained", 0.5, encoder=f"tiny ({SETTINGS}, whitened) untrained", settings=SETTINGS),
    ]
    append_results(tmp_path / "results.jsonl", lines)
    [tiny] = read_others([tmp_path / "results.jsonl"], [])
    assert (tiny.name, [one.features for one in tiny.results]) == ("tiny", ["encoder", "untrained"])


def test_encoders_of_one_form_share_their_untrained_form(tmp_path: Path) -> None:
    lines = [
        result("encoder", 0.8, encoder="first", identity="1"),
        result("encoder", 0.7, encoder="second", identity="2"),
        result("onnx", 0.6, encoder="of another make"),
        result("untrained", 0.5, encoder="first untrained", baseline_of=("first", "second")),
    ]
    append_results(tmp_path / "results.jsonl", lines)
    first, second, other = read_others([tmp_path / "results.jsonl"])
    assert [one.score for one in first.results] == [0.8, 0.5] and [one.score for one in second.results] == [0.7, 0.5]
    assert [one.score for one in other.results] == [0.6]


def test_an_encoder_of_a_runs_name_is_told_apart(tmp_path: Path) -> None:
    append_results(tmp_path / "results.jsonl", [result("encoder", 0.8, encoder="run", identity="other")])
    (other,) = read_others([tmp_path / "results.jsonl"], [replace(run_with("run"), results=[])])
    assert other.name == "run (no run)"


def test_a_missing_file_is_named_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no results at .*gone\.jsonl.*melmask evaluate"):
        read_others([tmp_path / "gone.jsonl"])
