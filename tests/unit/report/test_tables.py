"""The sentences of a report about its table of evaluations."""

from evaluations import result, run_with
from melmask.report import tables
from melmask.study.table import tabulate


def test_a_sentence_names_the_baselines_of_its_run() -> None:
    lines = [[result("encoder", 0.7), result("untrained", score)] for score in (0.3, 0.3, 0.4)]
    table = tabulate([run_with(name, *own) for name, own in zip("abc", lines, strict=True)])
    assert "40.0 points above the untrained encoder (a, b) (30.0 %)" in tables.sentence(table, table.columns[0])


def test_a_sentence_compares_features_with_the_baselines_of_the_same_settings() -> None:
    default, other = {"settings": "last layer, mean"}, {"settings": "all layers, mean+max"}
    untrained = [result("untrained", 0.3, **default), result("untrained", 0.2, **other)]
    encoder = [result("encoder", 0.6, **default), result("encoder", 0.8, **other)]
    table = tabulate([run_with("a", *encoder, *untrained, result("log-mel statistics", 0.5))])
    sentence = tables.sentence(table, table.columns[0])
    assert "60.0 points above the untrained encoder (all layers, mean+max)" in sentence
    assert "30.0 points above the log-mel" in sentence
    assert "the untrained encoder (30.0" not in sentence


def test_overlapping_intervals_are_said_to_overlap() -> None:
    table = tabulate([run_with("a", result("encoder", 0.70)), run_with("b", result("encoder", 0.61))])
    assert "a reaches 70.0 %" in tables.sentence(table, table.columns[0])
    assert "9.0 points ahead of b, but the intervals overlap" in tables.sentence(table, table.columns[0])
    assert tables.verdict(table) == (
        "a scores highest in 1 of 1 evaluation, in none of them with an interval above every other run's."
    )
    below = tabulate([run_with("a", result("encoder", 0.40), result("untrained", 0.60))])
    assert "20.0 points below the untrained encoder" in tables.sentence(below, below.columns[0])
    assert tables.verdict(below) == "a has an interval above those of its baselines in 0 of 1 evaluation."
