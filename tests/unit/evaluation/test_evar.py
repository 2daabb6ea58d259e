"""EVAR's protocol and its nine tasks in one call."""

import json
from pathlib import Path

import numpy as np
import pytest

from evaluations import result
from labelled import clusters
from melmask.cli.main import main
from melmask.encoders.baselines import LogMelStatistics
from melmask.encoders.fixed_length import fixed_length
from melmask.encoders.registry import NamedEncoder, as_encoder
from melmask.evaluation.evar import EVAR_TASKS, PUBLISHED, TaskFolder, average, evaluate_nine, find_tables
from melmask.evaluation.protocol import default_probes
from melmask.evaluation.results import read_results
from melmask.evaluation.run import EvaluationSettings, evaluate_stores, run_probe
from melmask.evaluation.task import make_task
from melmask.probes import label_of
from melmask.study.table import Column


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(recordings: Path, tmp_path: Path) -> Path:
    """Tables of three of the nine tasks, known by name or record, one of them broken, and one of another task."""
    tables = tmp_path / "tables"
    tables.mkdir()
    header, *rows = recordings.read_text().splitlines()
    lines = "\n".join([header, *(f"{recordings.parent / row}" for row in rows)]) + "\n"
    for name in ("US8K", "mine", "other"):
        (tables / f"{name}.csv").write_text(lines)
    record = {"task": "crema_d", "clip_s": 0.8, "split": "melmask split"}
    (tables / "mine.task.json").write_text(json.dumps(record))
    (tables / "gtzan.csv").write_text("path,label\n")
    return tables


def test_tables_are_known_by_record_or_name_and_stand_in_evar_s_order(folder: Path) -> None:
    found = find_tables(folder)
    assert {task: path.name for task, path in found.tables.items()} == {
        "urbansound8k": "US8K.csv", "crema_d": "mine.csv", "gtzan": "gtzan.csv",
    }  # fmt: skip
    assert list(found.tables) == ["urbansound8k", "crema_d", "gtzan"]
    assert found.missing == ("esc50", "speech_commands", "voxceleb1", "voxforge", "nsynth", "surge")
    assert [path.name for path in found.others] == ["other.csv"]
    (folder / "urbansound8k.csv").write_text("path,label\n")
    with pytest.raises(ValueError, match=r"US8K\.csv and .*urbansound8k\.csv are both of urbansound8k"):
        find_tables(folder)
    with pytest.raises(ValueError, match="has no table of esc50"):
        find_tables(folder.parent)
    with pytest.raises(ValueError, match="is no folder"):
        find_tables(folder / "nowhere")


def test_a_task_that_fails_stops_nothing_and_the_average_is_over_nine() -> None:
    tables = {task: Path(f"{task}.csv") for task in EVAR_TASKS}

    def evaluate(table: Path):
        if table.stem == failing:
            raise ValueError("no rows below the header")
        yield result("encoder", list(EVAR_TASKS).index(table.stem) / 10, encoder="mine")

    failing = ""
    nine = evaluate_nine(TaskFolder(tables, (), ()), evaluate)
    [scores] = nine.rows.values()
    assert average(scores) == pytest.approx(40.0) and not nine.faults
    failing = "gtzan"
    nine = evaluate_nine(TaskFolder(tables, (), ()), evaluate)
    [scores] = nine.rows.values()
    assert len(scores) == 8 and average(scores) is None and nine.faults == {"gtzan": "no rows below the header"}


def test_published_averages_are_those_of_their_figures() -> None:
    whole = [row for row in PUBLISHED if len(row.scores) == 9]
    assert whole and all(average(row.scores) == pytest.approx(row.average, abs=0.05) for row in whole)
    assert all("arXiv" in row.source for row in PUBLISHED)


def test_the_rate_of_evar_is_that_of_melmask_encoders_alone() -> None:
    encoders = [as_encoder("untrained:micro"), LogMelStatistics()]
    [[ours], [other]] = (default_probes("evar", NamedEncoder(one, one.name, one.name)) for one in encoders)
    assert label_of(ours) == "linear:learning_rate=3e-05,ties_are_better=True"
    assert label_of(other) == "linear:ties_are_better=True"


def test_clips_are_trained_on_at_random_and_tested_at_their_head(store, recordings: Path) -> None:
    encoder = NamedEncoder(LogMelStatistics(), "statistics", "statistics")
    settings = EvaluationSettings(["ridge"], clip_length=0.8, protocol="evar")
    [found] = evaluate_stores([encoder], recordings, [store], settings)
    task = make_task("chirps", [stored.clip for stored in store.clips])
    training, head, middle = (
        LogMelStatistics().embed_store(fixed_length(store, 0.8, cut)) for cut in ("random", "head", "middle")
    )
    expected = run_probe("ridge", training, task, test_features=head)
    assert np.array_equal(found.found.predictions, expected.predictions)
    assert not np.array_equal(expected.predictions, run_probe("ridge", middle, task).predictions)
    assert found.result.protocol == "evar" and found.result.notes[0].startswith(
        "EVAR protocol, clips of 0.8 s: a random"
    )
    assert found.result.split == "split of the table"


def test_test_features_are_read_for_test_clips_only() -> None:
    features, task = clusters(0.5)
    other = features.copy()
    other[task.folds == "0"] += 1e6  # as tested in fold 0 only
    plain = run_probe("ridge", features, task, test_folds=("1",))
    same = run_probe("ridge", features, task, test_features=other, test_folds=("1",))
    assert np.array_equal(plain.predictions, same.predictions, equal_nan=True)
    with pytest.raises(ValueError, match="are not finite"):
        run_probe("ridge", features, task, test_features=np.full_like(features, np.nan))


def test_scores_of_another_protocol_or_split_stand_in_another_column(tmp_path: Path) -> None:
    lines = [
        result("encoder", 0.5),
        result("encoder", 0.6, protocol="evar"),
        result("encoder", 0.7, split="EVAR split"),
    ]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(vars(line)) + "\n" for line in lines))
    assert [line.score for line in read_results(tmp_path)] == [0.5, 0.6, 0.7]
    notes = {Column("t", "p", "accuracy", (), 9, 2, 0.0, line.split, line.protocol).note for line in lines}
    assert len(notes) == 3 and "9 test clips, 2 classes; EVAR split" in notes


def test_the_command_evaluates_what_is_there_and_names_what_is_not(folder: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out.jsonl"
    command = ["evaluate", "untrained:micro", "--no-baselines", "--protocol", "evar", "--tasks", str(folder)]
    main([*command, "--seeds", "1", "--workers", "0", "--out", str(out)])
    printed = " ".join(capsys.readouterr().out.split())
    assert "crema_d failed" not in printed and "gtzan failed:" in printed
    assert "GTZAN (gtzan) has no score:" in printed and "ESC-50 (esc50) has no score: no table" in printed
    assert "published rows are on EVAR's split of crema_d" in printed and "other.csv is none of EVAR's" in printed
    assert "mine: melmask split, protocol evar" in printed and "80.2" in printed and "arXiv 2404.06095" in printed
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(line["task"], line["protocol"], line["clip_s"]) for line in lines] == [
        ("US8K", "evar", 0.0), ("mine", "evar", 0.8),
    ]  # fmt: skip
    assert {line["probe"] for line in lines} == {"linear:learning_rate=3e-05,ties_are_better=True"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no task is given"),
        (["--task", "a.csv", "--tasks", "folder"], "leave one out"),
        (["--tasks", "folder", "--probe", "knn", "ridge"], "name one"),
    ],
)
def test_options_that_exclude_each_other_are_refused(options, message, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "untrained:micro", "--no-baselines", *options])
    assert message in capsys.readouterr().err
