"""The table of evaluations: what may stand in one column, and which rows there are."""

from dataclasses import replace
from pathlib import Path

from evaluations import result, run_with
from melmask.encoders.features import FeatureSettings
from melmask.evaluation.results import append_results, read_results
from melmask.study.table import score_curves, tabulate


def test_only_scores_on_the_same_test_clips_share_a_column() -> None:
    one = run_with("one", result("encoder", 0.5, test_folds=("5",)), result("encoder", 0.4, probe="knn"))
    two = run_with("two", result("encoder", 0.6), result("encoder", 0.45, probe="knn"))
    table = tabulate([one, two])
    assert [(column.probe, column.test_folds) for column in table.columns] == [
        ("knn", ()), ("logistic", ()), ("logistic", ("5",)),
    ]  # fmt: skip
    assert [len([row for row in table.rows if column in row.cells]) for column in table.columns] == [2, 1, 1]


def test_scores_on_clips_of_other_lengths_share_no_column() -> None:
    one = run_with("one", result("encoder", 0.5), result("encoder", 0.4, clip_s=2.5))
    table = tabulate([one, run_with("two", result("encoder", 0.6), result("encoder", 0.3, clip_s=2.5))])
    assert [column.clip_s for column in table.columns] == [0, 2.5] and "clips of 2.5 s," in table.columns[1].note
    assert [[row.cells[column].score for row in table.rows] for column in table.columns] == [[0.5, 0.6], [0.4, 0.3]]


def test_encoders_kept_along_a_run_are_a_curve_and_no_row(tmp_path: Path) -> None:
    lines = [result("encoder", 0.3, step=200), result("encoder", 0.2, step=100), result("encoder", 0.1, step=100)]
    append_results(tmp_path, [*lines, result("encoder", 0.5), result("encoder", 0.4, probe="knn")])
    run = replace(run_with("a", *read_results(tmp_path)), log=[{"step": 300, "num_steps": 300}])
    table = tabulate([run])
    assert [[cell.score for cell in row.cells.values()] for row in table.rows] == [[0.5, 0.4]]
    ((column, (curve,)),) = score_curves([run, run_with("b", result("encoder", 0.6))]).items()
    assert column.probe == "logistic" and (curve.run, curve.label) == ("a", "a")
    assert {step: one.score for step, one in curve.results.items()} == {100: 0.1, 200: 0.3, 300: 0.5}
    assert list(curve.results) == [100, 200, 300]


def test_baselines_with_other_scores_are_rows_of_their_own() -> None:
    lines = [[result("encoder", 0.7), result("untrained", score)] for score in (0.3, 0.3, 0.4)]
    table = tabulate([run_with(name, *own) for name, own in zip("abc", lines, strict=True)])
    assert [row.label for row in table.rows] == ["a", "b", "c", "untrained encoder (a, b)", "untrained encoder (c)"]
    (column,) = table.columns
    assert [row.label for row in table.baselines(table.rows[0], column)] == ["untrained encoder (a, b)"]


def test_features_of_other_layers_are_rows_of_their_own(tmp_path: Path) -> None:
    default, other = {"settings": "last layer, mean"}, {"settings": "all layers, mean+max"}
    untrained = [result("untrained", 0.3, **default), result("untrained", 0.2, **other)]
    lines = [result("encoder", 0.55), result("encoder", 0.6, **default), result("encoder", 0.8, **other), *untrained]
    append_results(tmp_path, [*lines, result("log-mel statistics", 0.5)])
    table = tabulate([run_with("a", *read_results(tmp_path))])
    (column,), label = table.columns, "all layers, mean+max"
    names = ["a", f"a ({label})", "untrained encoder", f"untrained encoder ({label})", "log-mel statistics"]
    assert [row.label for row in table.rows] == names
    assert [row.cells[column].score for row in table.rows] == [0.6, 0.8, 0.3, 0.2, 0.5]
    baselines = [row.label for row in table.baselines(table.rows[1], column)]
    assert baselines == [f"untrained encoder ({label})", "log-mel statistics"]


def test_tasks_of_one_name_are_told_apart_by_content_and_named_by_folder() -> None:
    a = result("encoder", 0.9, content="1", task_path="a/labels.csv", task="labels")
    b = result("encoder", 0.35, content="2", task_path="b/labels.csv", task="labels")
    table = tabulate([run_with("r1", a), run_with("r2", b)])
    assert [column.task for column in table.columns] == ["a/labels", "b/labels"]
    assert [[row.label for row in table.rows if column in row.cells] for column in table.columns] == [["r1"], ["r2"]]
    both = tabulate([run_with("r1", a, b)])
    assert [both.rows[0].cells[column].score for column in both.columns] == [0.9, 0.35]


def test_one_table_with_other_labels_is_numbered_and_one_content_under_two_names_is_one_column() -> None:
    a = result("encoder", 0.9, content="1", task="labels", task_path="a/labels.csv")
    relabelled = result("encoder", 0.5, content="2", task="labels", task_path="a/labels.csv")
    moved = result("encoder", 0.7, content="1", task="b/labels", task_path="b/labels.csv")
    table = tabulate([run_with("r1", a, relabelled), run_with("r2", moved)])
    assert [column.task for column in table.columns] == ["a/labels (1)", "a/labels (2)"]
    assert [[row.cells[column].score for row in table.rows if column in row.cells] for column in table.columns] == [
        [0.9, 0.7], [0.5],
    ]  # fmt: skip


def test_lines_of_earlier_versions_are_of_the_one_task_of_their_name() -> None:
    old, new = result("encoder", 0.5), result("encoder", 0.6, content="1")
    [column] = tabulate([run_with("r1", old), run_with("r2", new)]).columns
    assert column.task == "chirps"
    other = result("encoder", 0.7, content="2", task_path="b/chirps.csv")
    names = {
        column.task for column in tabulate([run_with("r1", old), run_with("r2", new), run_with("r3", other)]).columns
    }
    assert len(names) == 3 and "chirps (earlier version)" in names


def test_the_untrained_baseline_of_whitened_features_is_read_without_a_whitening() -> None:
    settings = str(FeatureSettings("last", "mean+std", "bf16", "yes"))
    plain = str(FeatureSettings("last", "mean+std", "bf16", "no"))
    table = tabulate(
        [run_with("a", result("encoder", 0.5, settings=settings), result("untrained", 0.6, settings=plain))]
    )
    (column,) = table.columns
    assert [row.settings for row in table.baselines(table.rows[0], column)] == [plain]
    # What all share is told once, and not in every label.
    assert [row.label for row in table.rows] == ["a", "untrained encoder"] and table.settings == settings
    other = run_with("b", result("encoder", 0.5, settings="all layers, mean"))
    mixed = tabulate([run_with("a", result("encoder", 0.5, settings=settings)), other])
    assert [row.label for row in mixed.rows] == [f"a ({settings})", "b (all layers, mean)"] and mixed.settings == ""
