"""Clips of one length, the same for every encoder, and the length that a task's record asks for."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from bounds import assert_features_close
from melmask.audio import read_audio
from melmask.data.store import Store
from melmask.encoders.baselines import logmel_statistics
from melmask.encoders.cache import cached_embed, cached_time_steps
from melmask.encoders.fixed_length import FixedLength, fixed_length, waveform
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.encoders.registry import LogMelStatistics, NamedEncoder, as_encoder
from melmask.encoders.waveform import wrap
from melmask.evaluation.run import EvaluationSettings, evaluate_stores
from melmask.nn.vit import SIZES

CLIP_S = 1.6  # of clips that last 0.4 to 3 s


class Samples:
    """What it was given, as its vector."""

    def encode(self, batch: np.ndarray, _sample_rate: int) -> np.ndarray:
        return batch


@pytest.fixture(scope="module")
def encoder() -> PretrainedEncoder:
    with torch.random.fork_rng(devices=[]):
        return as_encoder("untrained:micro")


@pytest.fixture(scope="module")
def cut(store: Store) -> Store:
    return fixed_length(store, CLIP_S)


def test_longer_clips_are_cut_to_their_middle_and_shorter_ones_zero_padded_on_both_sides(store, cut):
    silence, num_longer = np.float16(store.spec.silence), 0
    for row, stored in enumerate(store.clips):
        found, whole = cut.log_mel(row), store.log_mel(row)
        assert found.shape == (160, 80) and cut.clips[row].num_frames == 160
        if stored.num_frames >= 160:
            first, num_longer = (stored.num_frames - 160) // 2, num_longer + 1
            assert np.array_equal(found, whole[first : first + 160])
        else:
            before = (160 - stored.num_frames) // 2
            assert np.array_equal(found[before : before + stored.num_frames], whole)
            assert (found[:before] == silence).all() and (found[before + stored.num_frames :] == silence).all()
        assert np.array_equal(cut.log_mel(row, 20, 50), found[20:50])
    assert 0 < num_longer < len(store)
    with pytest.raises(IndexError, match="161"):
        cut.log_mel(0, 0, 161)


def test_padding_has_the_value_of_silence_after_normalisation_and_is_pooled(store, cut, encoder):
    """Neither at the mean, where zeros before normalisation do not lie, nor left out of the embedding."""
    row = min(range(len(store)), key=lambda row: store.clips[row].num_frames)
    padded = np.full((160, 80), np.float16(store.spec.silence), np.float32)  # as a store rounds silence
    before = (160 - store.clips[row].num_frames) // 2
    padded[before : before + store.clips[row].num_frames] = store.log_mel(row)
    expected = encoder.frames(padded)[0].mean(axis=0)
    [found], [whole] = encoder.embed_store(cut, [row]), encoder.embed_store(store, [row])
    assert_features_close(found, expected, SIZES["micro"], num_patches=5 * 10)
    assert np.abs(found - whole).max() > 0.1


def test_a_cut_clip_embeds_the_same_alone_and_batched(cut, encoder):
    together = encoder.embed_store(cut)
    for row in (0, 5, 11):
        assert_features_close(encoder.embed_store(cut, [row])[0], together[row], SIZES["micro"], num_patches=5 * 10)


def test_every_encoder_is_given_the_same_clips(store, cut):
    statistics = LogMelStatistics().embed_store(cut)
    waves = wrap(Samples(), 8_000).embed_store(cut)
    assert waves.shape == (len(store), 12_800)
    for row, stored in enumerate(store.clips):
        assert np.array_equal(statistics[row], logmel_statistics(cut.log_mel(row)))
        wave = read_audio(stored.clip.path, 8_000)
        assert np.array_equal(waveform(store, row, 8_000), wave)
        if len(wave) >= 12_800:
            first = (len(wave) - 12_800) // 2
            assert np.array_equal(waves[row], wave[first : first + 12_800])
        else:
            before = (12_800 - len(wave)) // 2
            assert np.array_equal(waves[row, before : before + len(wave)], wave)
            assert np.count_nonzero(waves[row]) == np.count_nonzero(wave)


def test_the_cache_tells_lengths_apart(store, cut, encoder, tmp_path):
    lengths = [store, cut, fixed_length(store, 1.7), cut]
    kept = [cached_embed(encoder, one, tmp_path) for one in lengths]
    assert len(list(tmp_path.glob("*-clips.npy"))) == 3 and np.array_equal(kept[1], kept[3])
    steps = cached_time_steps(encoder, cut, folder=tmp_path)
    assert set(steps.length) == {10} and len(steps.steps) == 10 * len(store)
    np.testing.assert_allclose(steps.clip(3).mean(axis=0), kept[1][3], atol=4e-3)


def test_a_pickled_view_is_the_same(cut):
    copy = pickle.loads(pickle.dumps(cut))
    assert isinstance(copy, FixedLength) and copy.fingerprint == cut.fingerprint
    assert np.array_equal(copy.log_mel(7), cut.log_mel(7))


def test_no_length_is_the_store_itself_and_no_other_is_out_of_range(store):
    assert fixed_length(store, 0.0) is store
    for wrong in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"got {wrong}"):
            fixed_length(store, wrong)


def test_a_task_has_the_clip_length_of_its_record_unless_another_is_asked_for(recordings, store, tmp_path, monkeypatch):
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path))
    header, *rows = recordings.read_text().splitlines()
    (tmp_path / "chirps.csv").write_text("\n".join([header, *(f"{recordings.parent}/{row}" for row in rows)]) + "\n")
    entrants, table = [NamedEncoder(LogMelStatistics(), "statistics", "statistics")], tmp_path / "chirps.csv"

    def evaluated(**clip_length):
        [one] = evaluate_stores(entrants, table, [store], EvaluationSettings(["ridge"], **clip_length))
        assert one.result.notes == one.found.notes
        return one.result, one.found.predictions

    plain, of_whole = evaluated()
    (tmp_path / "chirps.task.json").write_text(json.dumps({"task": "chirps", "clip_s": CLIP_S}))
    as_recorded, of_cut = evaluated()
    assert (plain.clip_s, as_recorded.clip_s) == (0, CLIP_S)
    assert not any("zero-padded" in note for note in plain.notes)
    assert as_recorded.notes[0] == "clips of 1.6 s: the middle of longer ones; shorter ones zero-padded on both sides"
    assert not np.array_equal(of_whole, of_cut)
    for clip_s, expected in ((0.0, of_whole), (CLIP_S, of_cut)):
        line, predictions = evaluated(clip_length=clip_s)
        assert line.clip_s == clip_s and np.array_equal(predictions, expected)
    assert evaluated(clip_length=0.5)[0].clip_s == 0.5


@pytest.mark.parametrize("record", ["{", "[]", '{"clip_s": "long"}', '{"clip_s": -2}', '{"clip_s": null}'])
def test_a_record_that_is_none_is_named_with_the_remedy(record: str, store, tmp_path: Path):
    (tmp_path / "chirps.task.json").write_text(record)
    entrants = [NamedEncoder(LogMelStatistics(), "statistics", "statistics")]
    with pytest.raises(ValueError, match=r"chirps\.task\.json is no record of a task: .*; make the task again"):
        list(evaluate_stores(entrants, tmp_path / "chirps.csv", [store]))


@pytest.mark.parametrize("part_of", ["head", "random"])
def test_other_parts_of_longer_clips_are_padded_at_the_tail(store, part_of):
    cut, starts, num_longer = fixed_length(store, CLIP_S, part_of), set(), 0
    waves = wrap(Samples(), 8_000).embed_store(cut)
    for row, stored in enumerate(store.clips):
        found, whole = cut.log_mel(row), store.log_mel(row)
        if stored.num_frames >= 160:
            places = range(len(whole) - 159)
            starts.add(next(first for first in places if np.array_equal(found, whole[first : first + 160])))
            num_longer += len(whole) > 161
        else:
            assert np.array_equal(found[: len(whole)], whole)
            assert (found[len(whole) :] == np.float16(store.spec.silence)).all()
        wave = read_audio(stored.clip.path, 8_000)
        if len(wave) < 12_800:
            assert np.array_equal(waves[row, : len(wave)], wave) and not waves[row, len(wave) :].any()
        elif part_of == "head":
            assert np.array_equal(waves[row], wave[:12_800])
    assert starts == {0} if part_of == "head" else len(starts) > num_longer // 2
    again = pickle.loads(pickle.dumps(cut))
    assert again.fingerprint == cut.fingerprint and np.array_equal(again.log_mel(7), cut.log_mel(7))
    assert cut.fingerprint not in {store.fingerprint, fixed_length(store, CLIP_S).fingerprint}


def test_a_random_part_depends_on_the_recording_alone_and_reaches_both_ends():
    from melmask.encoders.fixed_length import _place_of, part

    places = [_place_of(Path(f"/some/where/set/speaker/{i}.wav")) for i in range(500)]
    assert places == [_place_of(Path(f"/else/set/speaker/{i}.wav")) for i in range(500)]
    starts = [int(part(np.arange(12), 10, 0.0, place)[0]) for place in places]
    assert {start: starts.count(start) > 120 for start in starts} == {0: True, 1: True, 2: True}


@pytest.mark.parametrize("clip_s", [-1.0, 1e9, float("nan"), float("inf")])
def test_a_clip_length_has_a_range(clip_s: float, store) -> None:
    with pytest.raises(ValueError, match=r"clip_s is a length of at most 10,800 s, or 0 for whole clips: got"):
        fixed_length(store, clip_s)
