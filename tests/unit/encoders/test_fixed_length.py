"""Every clip heard for the same time, by every encoder alike, and what a task's record has to do with it."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from melmask.audio import read_audio
from melmask.data.store import Store
from melmask.encoders.baselines import logmel_statistics
from melmask.encoders.cache import cached_embed, cached_time_steps
from melmask.encoders.fixed_length import Excerpts, excerpts, waveform
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.encoders.registry import LogMelStatistics, NamedEncoder, make_encoder
from melmask.encoders.waveform import wrap
from melmask.evaluate.run import evaluate

UNIT_S = 1.6  # of clips that last 0.4 to 3 s


class Samples:
    """What it was given, as its vector."""

    def encode(self, batch: np.ndarray, _sample_rate: int) -> np.ndarray:
        return batch


@pytest.fixture(scope="module")
def encoder() -> PretrainedEncoder:
    with torch.random.fork_rng(devices=[]):
        return make_encoder("untrained:micro")


@pytest.fixture(scope="module")
def heard(store: Store) -> Store:
    return excerpts(store, UNIT_S)


def test_longer_clips_are_heard_in_their_middle_and_shorter_ones_amid_silence(store, heard):
    silence, num_longer = np.float16(store.spec.silence), 0
    for row, stored in enumerate(store.clips):
        found, whole = heard.log_mel(row), store.log_mel(row)
        assert found.shape == (160, 80) and heard.clips[row].num_frames == 160
        if stored.num_frames >= 160:
            first, num_longer = (stored.num_frames - 160) // 2, num_longer + 1
            assert np.array_equal(found, whole[first : first + 160])
        else:
            before = (160 - stored.num_frames) // 2
            assert np.array_equal(found[before : before + stored.num_frames], whole)
            assert (found[:before] == silence).all() and (found[before + stored.num_frames :] == silence).all()
        assert np.array_equal(heard.log_mel(row, 20, 50), found[20:50])
    assert 0 < num_longer < len(store)
    with pytest.raises(IndexError, match="161"):
        heard.log_mel(0, 0, 161)


def test_silence_is_put_in_as_what_it_is_after_normalisation_and_is_heard(store, heard, encoder):
    """Neither at the mean, where zeros before normalisation do not lie, nor left out of the embedding."""
    row = min(range(len(store)), key=lambda row: store.clips[row].num_frames)
    padded = np.full((160, 80), np.float16(store.spec.silence), np.float32)  # as a store rounds silence
    before = (160 - store.clips[row].num_frames) // 2
    padded[before : before + store.clips[row].num_frames] = store.log_mel(row)
    expected = encoder.frames(padded)[0].mean(axis=0)
    [found], [whole] = encoder.embed(heard, [row]), encoder.embed(store, [row])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - whole).max() > 0.1


def test_an_excerpt_embeds_the_same_alone_and_batched(heard, encoder):
    together = encoder.embed(heard)
    for row in (0, 5, 11):
        assert np.abs(encoder.embed(heard, [row])[0] - together[row]).max() < 1e-5


def test_every_encoder_hears_the_same(store, heard):
    statistics = LogMelStatistics().embed(heard)
    waves = wrap(Samples(), 8_000).embed(heard)
    assert waves.shape == (len(store), 12_800)
    for row, stored in enumerate(store.clips):
        assert np.array_equal(statistics[row], logmel_statistics(heard.log_mel(row)))
        wave = read_audio(stored.clip.path, 8_000)
        assert np.array_equal(waveform(store, row, 8_000), wave)
        if len(wave) >= 12_800:
            first = (len(wave) - 12_800) // 2
            assert np.array_equal(waves[row], wave[first : first + 12_800])
        else:
            before = (12_800 - len(wave)) // 2
            assert np.array_equal(waves[row, before : before + len(wave)], wave)
            assert np.count_nonzero(waves[row]) == np.count_nonzero(wave)


def test_the_cache_tells_lengths_apart(store, heard, encoder, tmp_path):
    lengths = [store, heard, excerpts(store, 1.7), heard]
    kept = [cached_embed(encoder, one, tmp_path) for one in lengths]
    assert len(list(tmp_path.glob("*-clips.npy"))) == 3 and np.array_equal(kept[1], kept[3])
    steps = cached_time_steps(encoder, heard, folder=tmp_path)
    assert set(steps.length) == {10} and len(steps.steps) == 10 * len(store)
    np.testing.assert_allclose(steps.clip(3).mean(axis=0), kept[1][3], atol=4e-3)


def test_pickled_excerpts_are_the_same(heard):
    copy = pickle.loads(pickle.dumps(heard))
    assert isinstance(copy, Excerpts) and copy.fingerprint == heard.fingerprint
    assert np.array_equal(copy.log_mel(7), heard.log_mel(7))


def test_no_length_is_the_store_itself_and_no_other_is_out_of_range(store):
    assert excerpts(store, 0.0) is store
    for wrong in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"got {wrong}"):
            excerpts(store, wrong)


def test_a_task_is_heard_as_its_record_says_unless_one_says_otherwise(store, tmp_path, monkeypatch):
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path))
    entrants, table = [NamedEncoder(LogMelStatistics(), "statistics", "statistics")], tmp_path / "chirps.csv"

    def judged(**unit):
        noticed = []
        [line] = evaluate(
            entrants, table, [store], probes=["ridge"], found_one=lambda *found: noticed.append(found[2]), **unit
        )
        assert line.notes == noticed[0].notes
        return line, noticed[0].predictions

    plain, of_whole = judged()
    (tmp_path / "chirps.task.json").write_text(json.dumps({"task": "chirps", "clip_s": UNIT_S}))
    as_recorded, of_unit = judged()
    assert (plain.clip_s, as_recorded.clip_s) == (0, UNIT_S)
    assert not any("heard" in note for note in plain.notes)
    assert as_recorded.notes[0] == "each clip is heard for 1.6 s: the middle of longer ones, shorter ones amid silence"
    assert not np.array_equal(of_whole, of_unit)
    for unit, expected in ((0.0, of_whole), (UNIT_S, of_unit)):
        line, predictions = judged(unit=unit)
        assert line.clip_s == unit and np.array_equal(predictions, expected)
    assert judged(unit=0.5)[0].clip_s == 0.5


@pytest.mark.parametrize("record", ["{", "[]", '{"clip_s": "long"}', '{"clip_s": -2}', '{"clip_s": null}'])
def test_a_record_that_is_none_is_named_with_the_remedy(record: str, store, tmp_path: Path):
    (tmp_path / "chirps.task.json").write_text(record)
    entrants = [NamedEncoder(LogMelStatistics(), "statistics", "statistics")]
    with pytest.raises(ValueError, match=r"chirps\.task\.json is no record of a task .*make the task again"):
        evaluate(entrants, tmp_path / "chirps.csv", [store])
