"""The sentences of a report about its table of evaluations."""

import re

from evaluations import result, run_with
from melmask.evaluation.compare import Comparison
from melmask.evaluation.metrics import Score
from melmask.report.tables import as_csv, as_html, as_markdown
from melmask.report.verdicts import Evidence, sentence, verdict
from melmask.study.table import tabulate


def test_a_sentence_names_the_baselines_of_its_run() -> None:
    lines = [[result("encoder", 0.7), result("untrained", score)] for score in (0.3, 0.3, 0.4)]
    table = tabulate([run_with(name, *own) for name, own in zip("abc", lines, strict=True)])
    assert "40.0 points above the untrained encoder (a, b) (30.0 %;" in sentence(table, table.columns[0], Evidence())


def test_a_sentence_compares_features_with_the_baselines_of_the_same_settings() -> None:
    default, other = {"settings": "last layer, mean"}, {"settings": "all layers, mean+max"}
    untrained = [result("untrained", 0.3, **default), result("untrained", 0.2, **other)]
    encoder = [result("encoder", 0.6, **default), result("encoder", 0.8, **other)]
    table = tabulate([run_with("a", *encoder, *untrained, result("log-mel statistics", 0.5))])
    said = sentence(table, table.columns[0], Evidence())
    assert "60.0 points above the untrained encoder (all layers, mean+max)" in said
    assert "30.0 points above the log-mel" in said
    assert "the untrained encoder (30.0" not in said


def compared(a: str, b: str, score_a: float, score_b: float, half: float) -> Comparison:
    """What `melmask compare` kept of two encoders on the task of `result`."""
    scores = [Score(value, value - 0.05, value + 0.05, 1, 24) for value in (score_a, score_b)]
    gap = Score(score_a - score_b, score_a - score_b - half, score_a - score_b + half, 1, 24)
    return Comparison("chirps", "logistic", "accuracy", a, b, *scores, gap, 0.9, None, 0, ())


def test_which_is_better_is_said_by_the_paired_test_alone() -> None:
    table = tabulate([run_with("a", result("encoder", 0.70)), run_with("x/b", result("encoder", 0.61))])
    (column,) = table.columns
    untested, undecided, sure = (
        Evidence(found)
        for found in ((), [compared("a", "b", 0.70, 0.61, 0.10)], [compared("b", "a", 0.61, 0.70, 0.02)])
    )
    assert verdict(table, untested) == "Of 1 evaluation: not compared yet in 1 (melmask compare tests this)."
    assert verdict(table, undecided) == "Of 1 evaluation: no sure difference in 1."
    assert verdict(table, sure) == "Of 1 evaluation: a is better than every other run in 1."
    assert "9.0 points above x/b (61.0 %; not compared by a paired test)" in sentence(table, column, untested)
    assert "interval -1.0 to +19.0: they cannot be told apart)" in sentence(table, column, undecided)
    assert "9.0 points above x/b (61.0 %; paired 95 % interval +7.0 to +11.0)" in sentence(table, column, sure)
    old = Evidence([compared("a", "b", 0.90, 0.10, 0.02)])  # of scores that were replaced since
    assert verdict(table, old) == verdict(table, untested)
    assert "overlap" not in sentence(table, column, untested) + verdict(table, untested)


def test_a_tie_crowns_nobody_and_what_is_below_a_floor_is_said_first() -> None:
    lines = [[result("encoder", 0.40), result("untrained", 0.60)]] * 2
    for names in ("ab", "ba"):
        table = tabulate([run_with(name, *own) for name, own in zip(names, lines, strict=True)])
        said = verdict(table, Evidence())
        below = f"Below a floor: {names[0]} (40.0 %) is below the untrained encoder (60.0 %) on chirps, logistic; "
        assert said.startswith(below)
        assert said.endswith("Of 1 evaluation: the highest scores are equal in 1.") and "better" not in said
        one = sentence(table, table.columns[0], Evidence())
        assert one.startswith("Below a floor: ") and f"{names[0]} and {names[1]} have equal scores, 40.0 %" in one
        assert "It is 20.0 points below the untrained encoder" in one
        html = as_html(table, {"a": "#000000", "b": "#000000"}, Evidence())
        assert re.findall(r'class="(\w+)"><th>', html) == ["run", "run", "baseline"]
        assert html.count("entry best") == 1 and html.count("below the untrained encoder") == 2
    alone = tabulate([run_with("a", *lines[0])])
    assert verdict(alone, Evidence()).endswith("a beside untrained encoder: below in 1 of 1.")
    chance, sure = (Evidence([compared("a", "a untrained", 0.40, 0.60, width)]) for width in (0.3, 0.1))
    assert "below the untrained encoder (60.0 %; they cannot be told apart) on chirps" in verdict(alone, chance)
    assert "below the untrained encoder (60.0 %) on chirps" in verdict(alone, sure)
    equal = tabulate([run_with(name, result("encoder", 0.5)) for name in "ab"])
    assert as_html(equal, {"a": "#000000", "b": "#000000"}, Evidence()).count("entry best") == 2
    assert as_markdown(equal).count("**50.0**") == 2


def test_a_run_has_one_row_whatever_layers_were_read() -> None:
    own = [
        result("encoder", score, settings=name)
        for score, name in ((0.6, "last layer, mean"), (0.8, "all layers, mean"))
    ]
    table = tabulate([run_with("a", *own), run_with("b", own[0])])
    html = as_html(table, {"a": "#000000", "b": "#000000"}, Evidence())
    assert html.count("<tr class=") == 2 and "<b>60.0</b>" in html and "; all layers, mean</small>" in html
    assert as_markdown(table).count("\n") == 4 and "(all layers, mean)" in as_markdown(table)


def test_names_in_a_csv_table_are_joined() -> None:
    lines = as_csv([run_with("a", result("untrained", 0.5, baseline_of=("a", "b")))]).splitlines()
    assert lines[0].endswith(",content,baseline_of") and lines[1].endswith(",a; b")
