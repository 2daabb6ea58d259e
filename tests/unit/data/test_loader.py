"""Batches: deterministic in (seed, step, part), every recording used in proportion, padding marked."""

import numpy as np
import pytest
import soundfile
import torch

from melmask.data.loader import Loader, trainable_rows
from melmask.data.prepare import prepare
from melmask.patches import valid_patches
from melmask.types import PatchGrid


def make(store, **changes):
    return Loader(store, **{"crop_frames": 96, "batch_size": 8, "seed": 3, **changes})


def test_a_batch_depends_on_seed_step_and_part_alone(store):
    fresh, used = make(store), make(store)
    for step in range(5):
        used.part(step)
    again, first = used.part(7), fresh.part(7)
    assert torch.equal(first.log_mel, again.log_mel) and torch.equal(first.clip, again.clip)
    assert not torch.equal(first.log_mel, fresh.part(8).log_mel)
    assert not torch.equal(first.log_mel, make(store, seed=4).part(7).log_mel)


def test_parts_divide_the_batch_by_length(store):
    loader = make(store, crop_frames=320)
    parts = [loader.part(2, part, 4).clip for part in range(4)]
    assert torch.equal(torch.cat(parts), loader.part(2).clip)
    lengths = [min(store.clips[int(clip)].num_frames, 320) for clip in torch.cat(parts)]
    assert lengths == sorted(lengths) and len(set(lengths)) > 2


def test_a_part_is_as_long_as_its_longest_crop_and_is_weighted_by_its_patches(store):
    loader = make(store, crop_frames=300, column_frames=16)
    shapes = set()
    for step in range(6):
        parts = [loader.part(step, part, 4) for part in range(4)]
        assert sum(part.weight for part in parts) == pytest.approx(1.0)
        columns = [(-(-part.num_valid_frames // 16)).sum() for part in parts]
        for part, held in zip(parts, columns, strict=True):
            num_frames = part.log_mel.shape[2]
            longest = int(part.num_valid_frames.max())
            assert num_frames == 300 or (num_frames % 16 == 0 and num_frames - 16 < longest <= num_frames)
            assert part.weight == pytest.approx(float(held / sum(columns)))
            shapes.add(num_frames)
    assert len(shapes) > 4 and loader.part(0).weight == 1.0


def test_no_part_is_shorter_than_the_minimum(store):
    def shortest(min_columns: int) -> int:
        loader = make(store, crop_frames=320, column_frames=16, min_columns=min_columns)
        return min(loader.part(step, 0, 8).log_mel.shape[2] for step in range(9))

    assert shortest(10) == 160 and shortest(1) < 160


def test_in_parts_short_recordings_cost_no_padding(store):
    """Frames computed on, as a multiple of the frames that hold sound."""

    def overhead(num_parts: int) -> float:
        loader = make(store, crop_frames=320, column_frames=16, batch_size=16)
        parts = [loader.part(step, part, num_parts) for step in range(9) for part in range(num_parts)]
        return sum(p.log_mel[:, 0].numel() for p in parts) / sum(int(p.num_valid_frames.sum()) for p in parts)

    assert overhead(1) > 1.5 and overhead(4) < 1.2


def test_an_epoch_visits_every_recording_in_proportion_to_its_length(store):
    loader = make(store, batch_size=1)
    visits = np.bincount([int(loader.part(step).clip) for step in range(loader.crops_per_epoch)], minlength=len(store))
    expected = [max(1, round(stored.num_frames / 96)) for stored in store.clips]
    assert visits.tolist() == expected


@pytest.mark.parametrize("crops_per_clip", [1, 2])
def test_an_epoch_can_visit_every_recording_equally_often_in_whole_batches(crops_per_clip, store):
    loader = make(store, batch_size=7, crops_per_clip=crops_per_clip)
    num_crops = crops_per_clip * len(store)
    assert num_crops % 7 and loader.crops_per_epoch == num_crops // 7 * 7
    missed = []
    for epoch in range(3):
        num_steps = loader.crops_per_epoch // 7
        rows = torch.cat([loader.part(epoch * num_steps + i).clip for i in range(num_steps)])
        visits = np.bincount(rows, minlength=len(store))
        assert visits.max() == crops_per_clip and visits.sum() == loader.crops_per_epoch
        missed.append(tuple(np.flatnonzero(visits < crops_per_clip)))
    assert len(set(missed)) > 1  # the clips that are left out are others in every epoch
    whole = make(store, batch_size=num_crops + 1, crops_per_clip=crops_per_clip)
    assert whole.crops_per_epoch == num_crops


def test_crops_reach_both_ends_of_a_recording(store):
    loader = make(store, batch_size=64)
    longest = max(range(len(store)), key=lambda row: store.clips[row].num_frames)
    whole = (np.asarray(store.log_mel(longest), dtype=np.float32) - store.mean) / store.std
    starts = set()
    for step in range(60):
        batch = loader.part(step)
        for i in (batch.clip == longest).nonzero().flatten().tolist():
            start = int(batch.start_frame[i])
            np.testing.assert_allclose(whole[start : start + 96], batch.log_mel[i].T.numpy(), atol=1e-5)
            starts.add(start)
    assert min(starts) < 0.2 * len(whole) and max(starts) + 96 > 0.8 * len(whole)


def test_padding_has_the_value_of_silence_and_is_marked(store):
    loader = make(store, crop_frames=320)
    batch = loader.part(0)
    silence = (store.spec.silence - store.mean) / store.std
    assert (batch.num_valid_frames < 320).any()
    for log_mel, num_valid, clip in zip(batch.log_mel, batch.num_valid_frames, batch.clip, strict=True):
        assert int(num_valid) == min(320, store.clips[int(clip)].num_frames)
        assert torch.allclose(log_mel[:, int(num_valid) :], torch.tensor(silence, dtype=torch.float32))
    assert batch.log_mel[:, :, 0].mean() > silence  # silence lies below the mean, not above it as zeros would


def test_a_sample_is_fixed_and_of_the_training_data_in_proportion(store):
    loader = make(store, exclude=("chirps:2",))
    sample, again = loader.sample(10), make(store, batch_size=2, exclude=("chirps:2",)).sample(10)
    assert sample.log_mel.shape == (10, 80, 96)
    assert torch.equal(sample.log_mel, again.log_mel) and torch.equal(sample.start_frame, again.start_frame)
    assert not torch.equal(sample.clip, loader.part(0).clip[:10])
    whole = loader.sample(10**6)
    assert len(whole.clip) == loader.crops_per_epoch
    times = np.bincount(whole.clip, minlength=len(store))
    for row, stored in enumerate(store.clips):
        assert times[row] == (0 if stored.clip.fold == "2" else max(1, round(stored.num_frames / 96)))


def test_prefetch_gives_the_same_batches_in_order_and_ends_early(store):
    loader = make(store)
    keys = [(step, 0, 1) for step in range(9)]
    for key, batch in zip(keys, loader.prefetch(iter(keys)), strict=True):
        assert torch.equal(batch.log_mel, loader.part(*key).log_mel)
    endless = loader.prefetch((step, 0, 1) for step in range(10**9))
    next(endless)
    endless.close()


def test_excluded_listings_are_never_drawn(store):
    loader = make(store, exclude=("chirps:2",))
    drawn = {int(clip) for step in range(30) for clip in loader.part(step).clip}
    assert {store.clips[row].clip.fold for row in drawn} == {"1", "3"}


def test_an_exclusion_that_matches_nothing_is_an_error(store):
    with pytest.raises(ValueError, match=r"chirps:9.*chirps:1"):
        trainable_rows(store, ("chirps:9",))
    with pytest.raises(ValueError, match="nothing to train on"):
        trainable_rows(store, ("chirps",))


def test_a_batch_that_does_not_divide_is_an_error(store):
    with pytest.raises(ValueError, match="does not divide into 3"):
        make(store).part(0, 0, 3)


def test_recordings_shorter_than_a_patch_are_padded_and_marked(tmp_path):
    rng = np.random.default_rng(0)
    for number, num_samples in enumerate((2, 100, 201, 800, 1600, 2399)):
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * rng.standard_normal(num_samples), 16_000)
    short = prepare([tmp_path], tmp_path / "store", num_workers=0)
    batch = make(short, crop_frames=96, column_frames=16).part(0)
    assert batch.log_mel.shape == (8, 80, 16)
    assert set(batch.num_valid_frames.tolist()) <= {2, 3, 6, 11, 15}
    silence = (short.spec.silence - short.mean) / short.std
    for crop, length in zip(batch.log_mel, batch.num_valid_frames.tolist(), strict=True):
        assert torch.allclose(crop[:, length:], torch.tensor(silence))
    assert valid_patches(batch.num_valid_frames, PatchGrid(5, 1)).all()


def test_copies_of_what_is_excluded_are_excluded(recordings, tmp_path):
    samples, rate_hz = soundfile.read(recordings.parent / "00.wav", dtype="int16")
    soundfile.write(tmp_path / "samples.flac", samples, rate_hz)
    (tmp_path / "bytes.wav").write_bytes((recordings.parent / "01.wav").read_bytes())
    soundfile.write(tmp_path / "other.wav", samples[::-1], rate_hz)
    both = prepare([recordings, tmp_path], tmp_path / "store", num_workers=0)
    assert len(trainable_rows(both, ())) == 27
    kept = [both.clips[row].clip.path.name for row in trainable_rows(both, ("chirps",))]
    assert kept == ["other.wav"]
