"""Evaluation from Python: encoders and tables in, results out, with everything in between done by the call."""

from pathlib import Path

import numpy as np
import pytest

from melmask.encoders.features import FeatureSettings
from melmask.encoders.registry import load, specs_of, with_baselines
from melmask.evaluation import run
from melmask.evaluation.compare import compare
from melmask.evaluation.prepared import prepare_task, task_store_folder
from melmask.evaluation.run import EvaluationSettings, evaluate, evaluate_stores, evaluate_table
from melmask.logmel import LogMelSpec
from melmask.probes.knn import KnnProbe


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
