"""Probes over the splits of a task, and evaluation from Python: encoders and tables in, results out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labelled import clusters, same
from melmask.encoders.features import FeatureSettings
from melmask.encoders.registry import load, specs_of, with_baselines
from melmask.evaluation import run
from melmask.evaluation.compare import compare
from melmask.evaluation.prepared import prepare_task, task_store_folder
from melmask.evaluation.run import EvaluationSettings, evaluate, evaluate_stores, evaluate_table, run_probe
from melmask.logmel import LogMelSpec
from melmask.probes.knn import KnnProbe
from melmask.probes.linear import LinearProbe


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_one_call_prepares_embeds_and_scores(recordings: Path, cache: Path) -> None:
    shown: list[tuple[str, int, int]] = []
    results = evaluate(
        ["untrained:micro", "logmel-stats"], str(recordings), probes=["ridge", KnnProbe(num_neighbours=3)],
        test_folds=["1"], clip_length=0.8, num_workers=0, progress=lambda *state: shown.append(state),
    )  # fmt: skip
    names = ["micro untrained"] * 2 + ["log-mel statistics"] * 2
    assert [result.encoder for result in results] == names
    assert [result.probe for result in results] == ["ridge", "knn:num_neighbours=3"] * 2
    assert {(result.clip_s, result.test_folds, result.num_clips) for result in results} == {(0.8, ("1",), 8)}
    assert {result.command for result in results} == {""} and {result.task for result in results} == {"chirps"}
    assert {what.split(",")[0] for what, _, _ in shown} >= {
        "preparing", "micro untrained: embedding", "micro untrained: ridge", "log-mel statistics: ridge",
    }  # fmt: skip
    assert sorted(path.name.split("-")[0] for path in (cache / "tasks").iterdir()) == ["chirps"]


def test_it_gives_what_its_parts_give(recordings: Path) -> None:
    named = with_baselines(["untrained:micro"], FeatureSettings("all", "mean+std"))
    settings = EvaluationSettings(["logistic"], num_seeds=1)
    stores = [prepare_task(recordings, spec, num_workers=0) for spec in specs_of(named)]
    by_parts = [one.result for one in evaluate_stores(named, recordings, stores, settings)]
    by_table = [one.result for one in evaluate_table(named, recordings, settings, num_workers=0)]
    at_once = evaluate(
        "untrained:micro", [recordings, recordings], num_seeds=1, layers="all", pooling="mean+std", num_workers=0
    )
    assert by_parts == by_table and at_once == 2 * by_parts


def test_without_baselines_stand_the_encoders_alone(recordings: Path) -> None:
    [result] = evaluate(["untrained:micro"], recordings, probes="knn", baselines=False, num_workers=0)
    assert (result.encoder, result.probe) == ("micro untrained", "knn")


def test_wrong_names_are_found_before_anything_is_prepared(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "prepare_task", lambda *args, **options: pytest.fail("prepared"))
    with pytest.raises(ValueError, match="no probe 'svm'"):
        evaluate(["untrained:micro"], recordings, probes=["knn", "svm"])
    with pytest.raises(ValueError, match="no encoder 'nowhere'"):
        evaluate(["nowhere"], recordings)


def test_a_task_is_prepared_once_for_each_front_end(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare_task(recordings, LogMelSpec(), num_workers=0)
    narrow = prepare_task(recordings, LogMelSpec(num_mels=40), num_workers=0)
    assert first.folder == task_store_folder(recordings, LogMelSpec()) != narrow.folder
    (recordings.parent / "00.wav").rename(recordings.parent / "moved.wav")
    try:
        shown: list[str] = []
        prepare_task(recordings, LogMelSpec(num_mels=20), num_workers=0, progress=lambda what, *_: shown.append(what))
        assert "h of audio, 1 rejected" in shown[-1]
    finally:
        (recordings.parent / "moved.wav").rename(recordings.parent / "00.wav")
    assert prepare_task(recordings, LogMelSpec(), num_workers=0).fingerprint == first.fingerprint


def test_two_encoders_are_compared_by_one_call(recordings: Path) -> None:
    found = compare("untrained:micro", "logmel-stats", recordings, probes=["ridge", "knn"], num_workers=0)
    results = evaluate(["untrained:micro", "logmel-stats"], recordings, probes=["ridge", "knn"], num_workers=0)
    assert [(one.probe, one.name_a, one.name_b) for one in found] == [
        (probe, "micro untrained", "log-mel statistics") for probe in ("ridge", "knn")
    ]
    for one, a, b in zip(found, results[:2], results[2:], strict=True):
        assert (one.a.value, one.b.value) == (a.score, b.score)
        assert one.difference.value == pytest.approx(a.score - b.score)


class Crossings:
    """Zero crossings of ten parts of a waveform: enough to tell rising from falling chirps."""

    sample_rate_hz = 16_000

    def encode(self, batch: np.ndarray, sample_rate: int) -> np.ndarray:
        parts = np.array_split(np.diff(np.signbit(batch), axis=1), 10, axis=1)
        return np.stack([part.mean(axis=1) for part in parts], axis=1)


def test_python_objects_and_loaded_encoders_stand_beside_names(recordings: Path) -> None:
    encoders = [Crossings(), load("untrained:micro"), "logmel-stats"]
    results = evaluate(encoders, recordings, baselines=False, num_workers=0)
    assert [result.encoder for result in results] == ["Crossings", "micro untrained", "log-mel statistics"]
    assert results[0].score > 0.8 and results[0].num_dims == 10
    [comparison] = compare(*encoders[:2], recordings, num_workers=0)
    assert comparison.a.value == results[0].score and comparison.b.value == results[1].score


def test_seeds_differ_and_are_averaged() -> None:
    features, task = clusters(spread=3)
    probe = LinearProbe(batch_size=16)
    both, first, second = (
        run_probe(probe, features, task, test_folds=["1"], num_seeds=num_seeds, seed=seed)
        for num_seeds, seed in ((2, 7), (1, 7), (1, 8))
    )
    assert not same(first.predictions, second.predictions)
    tested = task.folds == "1"
    assert np.abs(both.predictions - first.predictions)[tested].max() > 1e-4
    assert both.score.num_seeds == 2


def test_features_may_be_of_any_float_type() -> None:
    features, task = clusters(spread=0.3)
    for dtype in (np.float16, np.float64):
        assert run_probe("logistic", (features / 100).astype(dtype), task).score.value > 0.97


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused_by_clip(bad: float) -> None:
    features, task = clusters(spread=2)
    features[[17, 30], 3] = bad
    with pytest.raises(ValueError, match=r"clip 17 \(.*17\.wav\).*1 more.*leave the clip out"):
        run_probe("knn", features, task)


def test_arguments_are_checked() -> None:
    features, task = clusters(spread=2)
    with pytest.raises(ValueError, match="no probe 'svm'; there are: linear, logistic, ridge, knn"):
        run_probe("svm", features, task)
    with pytest.raises(ValueError, match="0 seeds"):
        run_probe("linear", features, task, num_seeds=0)
    with pytest.raises(ValueError, match="239 rows of features, 240 clips"):
        run_probe("linear", features[:-1], task)
    with pytest.raises(ValueError, match="no test fold"):
        run_probe("linear", features, task, test_folds=["9"])


def test_group_on_both_sides_is_refused_by_name() -> None:
    features, task = clusters(spread=2)
    groups = task.groups.astype(object)
    groups[[0, 1]] = "speaker 7"
    with pytest.raises(ValueError, match="'speaker 7'"):
        run_probe("knn", features, replace(task, groups=groups))


def test_few_groups_and_random_folds_are_noted() -> None:
    features, task = clusters(spread=2)
    by_fold = replace(task, groups=task.folds)
    assert "the interval rests on 3 groups only" in run_probe("knn", features, by_fold).notes
    assert "all test clips are of one group" in run_probe("knn", features, by_fold, test_folds=["1"]).notes[-1]
    assert run_probe("knn", features, replace(task, folds=None)).notes == (
        "no folds given: split into 5 with seed 0, groups kept whole",
    )


def test_probe_with_settings_of_its_own() -> None:
    result = run_probe(KnnProbe(num_neighbours=1000), *clusters(spread=0.3))
    assert result.probe == "knn:num_neighbours=1000"
    assert result.score.value > 0.9  # k is cut to the clips there are
