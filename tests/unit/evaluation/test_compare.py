"""Two encoders on the same clips: the difference is paired, its interval covers the truth, and the verdict agrees."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from melmask.cli.main import main
from melmask.data.manifest import Clip
from melmask.encoders.baselines import LogMelStatistics
from melmask.encoders.features import FeatureSettings
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.encoders.registry import as_encoder, name_encoders
from melmask.evaluation.compare import compare_evaluations, compare_results, mcnemar, paired
from melmask.evaluation.metrics import mean_average_precision
from melmask.evaluation.run import EvaluationSettings, ProbeResult, evaluate_stores, run_probe
from melmask.evaluation.task import make_task

NAMES = ("new", "old")


def _task(num_clips: int, num_groups: int = 0, several: bool = False):
    labels = ["a;b" if several and i % 5 == 0 else "ab"[i % 2] for i in range(num_clips)]
    groups = [str(i % num_groups) if num_groups else None for i in range(num_clips)]
    return make_task(
        "toy", [Clip(Path(f"/{i}.wav"), labels[i], str(i % 2), groups[i], "toy") for i in range(num_clips)]
    )


def _result(task, is_right: np.ndarray) -> ProbeResult:
    """A result with the given correctness [seed clip]."""
    score = run_probe("knn", np.zeros((len(task.paths), 1)), task).score
    truth = np.eye(2, dtype=np.float32)[task.targets]
    scores = np.where(is_right[:, :, None], truth, 1 - truth).astype(np.float32)
    score = replace(score, value=float(is_right.mean()))
    return ProbeResult("knn", "toy", "accuracy", score, {}, scores, np.zeros(len(task.paths), int), ())


def test_mcnemar_equals_scipy_and_the_definition() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.random((2, 60)) < rng.random((2, 1))
        found = mcnemar(a.astype(float), b.astype(float))
        only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
        assert (found.num_only_a, found.num_only_b) == (only_a, only_b)
        assert found.p_value == pytest.approx(binomtest(only_b, only_a + only_b).pvalue)
    assert mcnemar(np.ones(5), np.ones(5)).p_value == 1
    assert mcnemar(np.array([1.0, 2 / 3]), np.array([1 / 3, 2 / 3])).num_only_a == 1


def test_an_encoder_is_as_good_as_itself() -> None:
    task = _task(100)
    result = _result(task, np.random.default_rng(0).random((3, 100)) < 0.7)
    found = compare_results(result, result, task, NAMES)
    assert found.difference.value == 0 and -found.difference.low == found.difference.high == pytest.approx(
        0.037, abs=1e-4
    )
    assert found.superiority == 0.5
    just_below = replace(found, difference=replace(found.difference, value=-1e-4)).verdict
    assert "+0.0 points" in just_below and "-0.0" not in just_below
    assert found.mcnemar.p_value == 1
    assert found.verdict.startswith("new and old cannot be told apart on toy with knn: +0.0 points")


def test_pairing_finds_what_two_intervals_do_not() -> None:
    """B fails where A fails and on every twentieth clip: their intervals overlap, that of the difference is clear."""
    task = _task(400)
    right = np.random.default_rng(0).random((1, 400)) < 0.6
    a, b = _result(task, right), _result(task, right & (np.arange(400) % 20 > 0))
    found = compare_results(a, b, task, NAMES)
    assert found.difference.value == pytest.approx(a.score.value - b.score.value)
    assert 0 < found.difference.low < found.difference.value < found.difference.high < 0.06
    assert found.superiority > 0.99
    assert found.mcnemar.num_only_b == 0
    assert found.verdict.startswith("new is better than old on toy with knn: +")
    back = compare_results(b, a, task, NAMES)
    assert back.difference.value == pytest.approx(-found.difference.value)
    assert (back.difference.low, back.difference.high) == pytest.approx((-found.difference.high, -found.difference.low))
    assert back.superiority == pytest.approx(1 - found.superiority)
    assert back.verdict.startswith("old is better than new")


def test_the_difference_equals_scoring_every_resample_of_groups() -> None:
    task = _task(60, num_groups=12)
    rng = np.random.default_rng(0)
    a, b = (_result(task, rng.random((1, 60)) < share) for share in (0.7, 0.6))
    found = compare_results(a, b, task, NAMES, seed=5)
    gap = (a.per_training.argmax(axis=2) == task.targets)[0] * 1.0 - (b.per_training.argmax(axis=2) == task.targets)[0]
    numbers = np.unique(task.groups, return_inverse=True)[1]
    values = []
    for drawn in np.random.default_rng(5).integers(12, size=(2000, 12)):
        values.append(np.concatenate([gap[numbers == group] for group in drawn]).mean())
    expected = np.quantile(values, [0.025, 0.975])
    assert (found.difference.low, found.difference.high) == pytest.approx(tuple(expected), abs=1e-6)
    superiority = np.mean(np.array(values) > 1e-9) + np.mean(np.abs(values) <= 1e-9) / 2
    assert found.superiority == pytest.approx(superiority, abs=1e-3)


def test_the_interval_of_the_difference_covers_the_truth() -> None:
    """Speakers on whom A is better and others on whom B is; the truth is a gap of 5 points."""
    rng, covered, covered_by_clips = np.random.default_rng(1), 0, 0
    num_trials, task, alone = 80, _task(200, num_groups=40), _task(200)
    base = _result(task, np.ones((1, 200), bool))
    numbers = np.arange(200) % 40
    truth = np.eye(2, dtype=np.float32)[task.targets]
    for _ in range(num_trials):
        lead = (0.05 + 0.2 * rng.standard_normal(40))[numbers]
        chance = np.stack([0.5 + lead / 2, 0.5 - lead / 2])
        right = rng.random((2, 200)) < chance
        a, b = (
            replace(base, per_training=np.where(one[None, :, None], truth, 1 - truth).astype(np.float32))
            for one in right
        )
        found, by_clips = compare_results(a, b, task, NAMES).difference, compare_results(a, b, alone, NAMES).difference
        covered += found.low <= 0.05 <= found.high
        covered_by_clips += by_clips.low <= 0.05 <= by_clips.high
    assert 0.88 <= covered / num_trials <= 0.99
    assert covered_by_clips < covered


def test_several_labels_are_compared_by_their_map() -> None:
    task = _task(80, several=True)
    rng = np.random.default_rng(0)
    noise = [rng.random((1, 80, 2)).astype(np.float32) for _ in range(2)]
    base = run_probe("knn", np.zeros((80, 1)), task)
    better, worse = (
        replace(base, per_training=task.flags * np.float32(weight) + part, fold_of=np.zeros(80, int))
        for weight, part in zip((0.9, 0.1), noise, strict=True)
    )
    found = compare_results(better, worse, task, NAMES)
    maps = [mean_average_precision(task.targets, one.per_training[0]) for one in (better, worse)]
    assert found.difference.value == pytest.approx(maps[0] - maps[1])
    assert found.mcnemar is None
    assert found.difference.low > 0
    assert found.metric == "mAP"


def test_the_verdict_names_few_groups() -> None:
    right = np.random.default_rng(0).random((1, 60)) < 0.5
    for num_groups, words in ((6, "rests on 6 groups only"), (1, "this says nothing of other groups"), (20, "")):
        task = _task(60, num_groups=num_groups)
        if num_groups == 1:
            task = replace(task, groups=np.array(["one"] * 60))
        base = _result(_task(60), right)
        verdict = compare_results(base, base, task, NAMES).verdict
        assert words in verdict
        assert num_groups != 20 or "group" not in verdict


def test_results_that_do_not_belong_together_are_refused() -> None:
    task = _task(40)
    one, three = (_result(task, np.ones((n, 40), bool)) for n in (1, 3))
    for other in (three, replace(one, probe="ridge"), replace(one, fold_of=np.ones(40, int)), replace(one, task="b")):
        with pytest.raises(ValueError, match="not the same probe, clips and seeds"):
            compare_results(one, other, task, NAMES)


def test_words_for_encoders(tmp_path) -> None:
    settings = FeatureSettings("last", "mean+max", whitened="no")
    form = as_encoder("untrained:micro", settings)
    assert isinstance(form, PretrainedEncoder)
    assert form.settings == settings
    assert isinstance(as_encoder("logmel-stats", settings), LogMelStatistics)
    words = ["untrained:micro", "logmel-stats"]
    assert [one.name for one in name_encoders(words, settings)] == [form.name, LogMelStatistics.name]
    with pytest.raises(ValueError, match="compared with itself"):
        name_encoders(["untrained:micro"] * 2, settings)
    with pytest.raises(ValueError, match="nowhere"):
        as_encoder(f"untrained-of:{tmp_path / 'nowhere'}", settings)


def test_both_are_evaluated_alike(recordings, store, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path))
    encoders = name_encoders(["untrained:micro", "logmel-stats"], FeatureSettings())
    probes = ["knn", "fewshot:num_per_class=2,num_draws=3"]
    settings = EvaluationSettings(probes, test_folds=["1"])
    pairs = paired(evaluate_stores(encoders, recordings, [store], settings))
    assert [one.found.probe for one, _ in pairs] == probes
    for one, other in pairs:
        found = compare_evaluations(one, other)
        assert (found.name_a, found.name_b) == (encoders[0].name, encoders[1].name)
        assert found.difference.value == pytest.approx(one.result.score - other.result.score)
        assert found.difference.num_seeds == len(one.found.per_training)
    again = paired(evaluate_stores(encoders, recordings, [store], settings))
    assert all(
        np.array_equal(one[0].found.per_training, two[0].found.per_training, equal_nan=True)
        for one, two in zip(pairs, again, strict=True)
    )


def test_the_command_prints_and_writes_what_it_found(recordings, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "160")
    words = ["compare", "logmel-stats", "untrained:micro", "--task", str(recordings), "--probe", "ridge"]
    main([*words, "--workers", "0", "--out", str(tmp_path / "out")])
    shown = " ".join(capsys.readouterr().out.split())
    assert "chirps: A = log-mel statistics, B = micro untrained" in shown
    assert "on chirps with ridge: " in shown
    assert "It rests on 6 groups only" in shown
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["chirps-ridge-a", "chirps-ridge-b"]
    assert (tmp_path / "out" / "chirps-ridge-a" / "confusion.png").exists()


def test_of_several_probes_one_sentence_at_the_end_says_what_is_sure(recordings, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    main(["compare", "logmel-stats", "untrained:micro", "--task", str(recordings), "--probe", "ridge", "knn"])
    after = capsys.readouterr().out.partition("accuracy in %")[2]
    assert after.count("log-mel statistics and micro untrained: ") == 1
    assert "95 % interval " not in after and "note: the interval rests on 6 groups only" in after


def test_what_was_compared_before_a_task_that_fails_is_answered_and_its_file_named(
    recordings, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path / "cache"))
    run = tmp_path / "run"
    run.mkdir()
    kept = [run / "results.jsonl"]
    monkeypatch.setattr("melmask.evaluation.results.keep_results", lambda *given: kept)
    tables = [str(recordings), str(tmp_path / "none.csv")]
    words = ["compare", "logmel-stats", "untrained:micro", "--probe", "knn", "--json", "--task", *tables]
    with pytest.raises(SystemExit):
        main(words)
    printed = capsys.readouterr()
    answered = json.loads(printed.out)
    assert len(answered["comparisons"]) == 1 and "none.csv" in answered["error"]
    assert answered["written"] == [str(kept[0])] and printed.err.count("appended to") == 1
