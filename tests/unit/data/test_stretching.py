"""Stretched crops: where their values come from, how long they are, and that no share changes nothing."""

import numpy as np
import pytest
import torch

from melmask.data.loader import Loader
from melmask.data.stretching import MAX_SCALE, MAX_SHIFT, MAX_SPEED, Stretching


def make(store, **changes):
    return Loader(store, **{"crop_frames": 300, "batch_size": 16, "seed": 3, "column_frames": 16, **changes})


def one(speed: float = 1.0, scale: float = 1.0, shift: float = 0.0) -> Stretching:
    return Stretching(np.array([True]), np.array([speed]), np.array([scale]), np.array([shift]))


def test_a_faster_crop_takes_more_frames_and_a_short_recording_is_read_whole():
    assert one(1.5).frames_to_read(0, 200, 1000) == 300
    assert one(0.6).frames_to_read(0, 200, 1000) == 120
    assert one(1.5).frames_to_read(0, 200, 250) == 250
    assert one(0.6).frames_to_read(0, 1, 1) == 1
    assert Stretching.none(1).frames_to_read(0, 200, 1000) == 200


def test_a_ramp_over_time_keeps_its_ends_and_changes_its_slope():
    ramp = np.arange(30.0)[:, None] + np.zeros(5)
    stretched = one(1.5).stretch(0, ramp, 20)
    assert stretched.shape == (20, 5) and stretched.dtype == np.float32
    assert stretched[:, 2] == pytest.approx(np.linspace(0, 29, 20), abs=1e-5)
    assert one().stretch(0, ramp[:1], 20) == pytest.approx(np.zeros((20, 5)))


def test_a_line_of_the_spectrum_moves_by_the_shift_and_with_the_scale():
    spectrum = np.zeros((4, 41))
    spectrum[:, 30] = 1.0
    assert one(shift=5.0).stretch(0, spectrum, 4).argmax(axis=1).tolist() == [25] * 4
    assert one(scale=2.0).stretch(0, spectrum, 4).argmax(axis=1).tolist() == [25] * 4  # 20 + (30 - 20) / 2
    assert one(shift=0.5).stretch(0, spectrum, 4)[0, 29:31] == pytest.approx([0.5, 0.5])


def test_bands_beyond_the_lowest_and_highest_repeat_these():
    bands = np.arange(10.0)[None].repeat(3, axis=0)
    assert one(shift=6.0).stretch(0, bands, 3)[0].tolist() == [6, 7, 8, 9, 9, 9, 9, 9, 9, 9]
    assert one(shift=-6.0).stretch(0, bands, 3)[0].tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 2, 3]


def test_draws_are_shares_octaves_and_bands_in_range():
    drawn = Stretching.draw(np.random.default_rng(0), 4000, 0.3)
    assert abs(drawn.chosen.mean() - 0.3) < 0.03
    for values, most in (
        (np.log2(drawn.speed), MAX_SPEED),
        (np.log2(drawn.scale), MAX_SCALE),
        (drawn.shift, MAX_SHIFT),
    ):
        assert -most <= values.min() < -0.98 * most and 0.98 * most < values.max() <= most
        assert abs(values.mean()) < 0.05 * most


def test_without_a_share_batches_are_what_they_were_and_with_one_some_crops_differ(store):
    plain, none = make(store).part(2), make(store, stretched_share=0.0).part(2)
    some = make(store, stretched_share=0.5).part(2)
    assert torch.equal(plain.log_mel, none.log_mel) and torch.equal(plain.clip, some.clip)
    assert torch.equal(plain.num_valid_frames, some.num_valid_frames), "a crop keeps its length"
    assert torch.equal(make(store, stretched_share=0.5).part(2).log_mel, some.log_mel)
    silence = (store.spec.silence - store.mean) / store.std
    differs = ~(plain.log_mel == some.log_mel).flatten(1).all(1)
    assert int(differs.sum()) > 0
    for crop, length in zip(some.log_mel, some.num_valid_frames.tolist(), strict=True):
        assert torch.all(crop[:, length:] == silence)
    assert torch.isfinite(some.log_mel).all()


def test_the_sample_of_the_whitening_is_not_stretched(store):
    assert torch.equal(make(store, stretched_share=1.0).sample(8).log_mel, make(store).sample(8).log_mel)
