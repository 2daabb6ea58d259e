"""Attentive pooling: it starts as the mean, ignores padding, and finds a step that the mean hides."""

import numpy as np
import pytest
import torch

from melmask.encoders import timesteps
from melmask.encoders.baselines import logmel_steps
from melmask.encoders.pretrained import FeatureSettings, PretrainedEncoder
from melmask.encoders.registry import with_baselines
from melmask.encoders.timesteps import TimeSteps, one_step_each, standardise
from melmask.evaluation.metrics import accuracy, score_of
from melmask.evaluation.run import EvaluationSettings, evaluate_stores, run_probe
from melmask.evaluation.task import make_task
from melmask.nn.encoder_file import ENCODER, EncoderFile, FrontEnd
from melmask.nn.vit import SIZES, Encoder
from melmask.probes.attentive import AttentiveProbe, attend
from melmask.probes.fit import AdamSettings, fit
from melmask.probes.linear import LinearProbe


def needles(num_clips: int = 400, num_dims: int = 16, seed: int = 0) -> tuple[TimeSteps, np.ndarray]:
    """Clips of 5 to 40 steps of noise; in one step of each, dimension 0 is high and dimension 1 tells the class."""
    rng = np.random.default_rng(seed)
    length, y = rng.integers(5, 41, num_clips), rng.integers(2, size=num_clips)
    steps = rng.standard_normal((length.sum(), num_dims)).astype(np.float16)
    start = np.cumsum(length) - length
    steps[start + rng.integers(length), :2] = np.stack([np.full(num_clips, 8), 4 * y - 2], axis=1)
    return TimeSteps(steps, start, length), y


@pytest.mark.numerical
def test_a_query_of_zero_is_the_mean_of_what_is_valid():
    clips, _ = needles(6)
    features, valid = (torch.from_numpy(array) for array in clips.padded())
    pooled = attend(features.double(), valid, torch.zeros(16, dtype=torch.float64))
    expected = [clips.clip(number).mean(axis=0, dtype=np.float64) for number in range(6)]
    np.testing.assert_allclose(pooled, expected, rtol=1e-9)


@pytest.mark.numerical
def test_padding_has_no_weight():
    clips, _ = needles(6)
    query = torch.linspace(-1, 1, 16, dtype=torch.float64)
    features, valid = (torch.from_numpy(array) for array in clips.padded())
    together = attend(features.double().masked_fill(~valid[:, :, None], 1e4), valid, query)
    for number in range(6):
        alone, valid = (torch.from_numpy(array) for array in clips[[number]].padded())
        torch.testing.assert_close(attend(alone.double(), valid, query)[0], together[number])


def test_it_finds_the_step_that_tells_where_the_mean_hides_it():
    clips, y = needles()
    train, valid, test = (np.arange(200), np.arange(200, 300), np.arange(300, 400))
    parts = standardise(*(clips[part] for part in (train, valid, test)))
    keywords = {"num_classes": 2, "multilabel": False, "seed": 0, "score": score_of}
    arguments = (parts[0], y[train], parts[1], y[valid], parts[2])
    found = AttentiveProbe(learning_rate=0.05).fit_predict(*arguments, **keywords)
    assert found.sum(axis=1) == pytest.approx(np.ones(100), abs=1e-5)
    assert accuracy(y[test], found) > 0.95
    means = [np.stack([part.clip(i).mean(axis=0) for i in range(len(part))]) for part in parts]
    linear = LinearProbe(learning_rate=0.05).fit_predict(means[0], y[train], means[1], y[valid], means[2], **keywords)
    assert accuracy(y[test], linear) < 0.85
    flags = np.stack([y == 0, y == 1], axis=1)
    several = AttentiveProbe(learning_rate=0.05).fit_predict(
        parts[0], flags[train], parts[1], flags[valid], parts[2], num_classes=2, multilabel=True, seed=0, score=score_of
    )
    assert accuracy(y[test], several) > 0.95


def test_it_uses_no_test_clip_and_is_deterministic(monkeypatch):
    monkeypatch.setattr(timesteps, "MAX_STEPS", 100)  # several batches of several sizes
    clips, y = needles(90)
    labels = [("a", "b")[label] for label in y]
    task = make_task("toy", _rows(labels, [str(i % 3) for i in range(90)]))
    probe = AttentiveProbe(max_epochs=3)
    first = run_probe(probe, clips, task, test_folds=["1"], num_seeds=2)
    again = run_probe(probe, clips, task, test_folds=["1"], num_seeds=2)
    assert np.array_equal(first.per_training, again.per_training, equal_nan=True)
    assert not np.array_equal(first.per_training[0], first.per_training[1], equal_nan=True)
    changed = clips.steps.copy()
    changed[clips.start[1] : clips.start[1] + clips.length[1]] = 1000
    other = run_probe(probe, TimeSteps(changed, clips.start, clips.length), task, test_folds=["1"], num_seeds=2)
    tested = np.arange(90) % 3 == 1
    assert not np.array_equal(other.predictions[1], first.predictions[1])
    assert np.array_equal(other.predictions[tested][1:], first.predictions[tested][1:])
    with pytest.raises(ValueError, match="probe knn reads one vector a clip, not time steps"):
        run_probe("knn", clips, task)
    with pytest.raises(ValueError, match="89 rows of features, 90 clips"):
        run_probe(probe, clips[range(89)], task)


def _rows(labels, folds):
    from pathlib import Path

    from melmask.data.manifest import Clip

    pairs = zip(labels, folds, strict=True)
    return [Clip(Path(f"/{i}.wav"), label, fold, None, "toy") for i, (label, fold) in enumerate(pairs)]


def test_the_weights_of_the_best_epoch_are_kept():
    weight, scores = torch.zeros(1, requires_grad=True), iter([0.2, 0.7, 0.7, 0.1, 0.3, 0.9])
    seen = []

    def score() -> float:
        seen.append(weight.item())
        return next(scores)

    adam = AdamSettings(learning_rate=0.5).optimiser([weight], 1)
    fit(adam, [weight], lambda: [weight.sum()], score, max_epochs=10, patience=3)
    assert len(seen) == 5  # three epochs after the second, none of them better: the sixth is never seen
    assert weight.item() == seen[1] and seen[1] != seen[2]


def test_steps_are_standardised_on_training_clips_alone():
    clips, _ = needles(40)
    clips.steps[:, 3] = 0.1
    train, other = standardise(clips[range(20)], clips[range(20, 40)])
    flat = np.concatenate([train.clip(number) for number in range(20)])
    assert np.abs(np.delete(flat, 3, axis=1).mean(axis=0)).max() < 1e-3
    assert np.abs(np.delete(flat, 3, axis=1).std(axis=0) - 1).max() < 1e-3
    assert (flat[:, 3] == 0).all() and (other.clip(0)[:, 3] == 0).all()
    raw = clips.clip(25)
    assert np.allclose(other.clip(5), (raw - train.centre) * train.scale)


def test_batches_and_pieces_hold_every_step_once(monkeypatch):
    monkeypatch.setattr(timesteps, "MAX_STEPS", 100)
    clips, _ = needles(50)
    order = np.random.default_rng(0).permutation(50)
    batches = list(clips.batches(order, 8))
    assert np.array_equal(np.concatenate(batches), order)
    assert all(len(batch) <= 8 and len(batch) * clips.length[batch].max() <= 100 for batch in batches)
    monkeypatch.setattr(timesteps, "MAX_STEPS", 1)
    assert [len(batch) for batch in clips.batches(order, 8)] == [1] * 50  # what does not fit stands alone
    pieces = clips[order].cut(7)
    assert pieces.length.max() == 7 and pieces.length.min() >= 1
    joined = np.concatenate([pieces.clip(number) for number in range(len(pieces))])
    assert np.array_equal(joined, np.concatenate([clips.clip(number) for number in order.tolist()]))


def test_embeddings_are_clips_of_one_step():
    features = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    clips = one_step_each(features)
    assert np.array_equal(clips.padded()[0][:, 0], features) and clips.padded()[1].all()


def test_log_mel_steps_are_what_they_say(store):
    clips = logmel_steps(store, [3, 0], 16)
    log_mel = store.log_mel(0).astype(np.float64)
    assert clips.length[1] == -(-len(log_mel) // 16) and clips.num_dims == 160
    last = log_mel[(len(log_mel) - 1) // 16 * 16 :]
    assert np.allclose(clips.clip(1)[-1], np.concatenate([last.mean(axis=0), last.std(axis=0)]), atol=1e-2)
    assert np.allclose(clips.clip(1)[1, :80], log_mel[16:32].mean(axis=0), atol=1e-2)


def test_evaluate_gives_it_time_steps_where_there_are_any(recordings, store, tmp_path, monkeypatch):
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path))
    encoder = Encoder(SIZES["micro"], (16, 16))
    (tmp_path / "run").mkdir()
    EncoderFile(encoder, FrontEnd(store.spec, store.mean, store.std), 208).save(tmp_path / "run" / ENCODER)
    encoders = with_baselines([str(tmp_path / "run")], FeatureSettings("all", "mean+std"))
    settings = EvaluationSettings(["attentive:max_epochs=2", "knn"], num_seeds=1)
    results = [one.result for one in evaluate_stores(encoders, recordings, [store], settings)]
    step_dims, logmel_dims = 2 * 5 * 32, 560
    dims = [(result.probe, result.num_dims) for result in results]
    of_encoder = [("attentive:max_epochs=2", step_dims), ("knn", 2 * step_dims)]
    assert dims == 2 * of_encoder + [("attentive:max_epochs=2", logmel_dims), ("knn", logmel_dims)]
    assert isinstance(encoders[0].encoder, PretrainedEncoder)
    assert len(list((tmp_path / "features").glob("*-steps-*.npy"))) == 2
