"""Mixed crops: powers add up, lengths and weights are those of the longer recording, and no share changes nothing."""

import math

import numpy as np
import pytest
import torch

from melmask.data.loader import Loader
from melmask.data.mixing import LEVELS_DB, MAX_CORRECTION, Mixing


def make(store, **changes):
    return Loader(store, **{"crop_frames": 300, "batch_size": 16, "seed": 3, "column_frames": 16, **changes})


def swapped(level_db: float, *, chosen: bool = True) -> Mixing:
    """A batch of two, the first of which is mixed with the second."""
    return Mixing(np.array([chosen, False]), np.array([1, 0]), np.array([level_db, 0.0]))


def constant(*powers: float) -> torch.Tensor:
    return torch.tensor(powers).log()[:, None, None].expand(-1, 4, 6).contiguous()


@pytest.mark.parametrize("level_db", [-20.0, 0.0, 6.0])
def test_the_other_is_added_at_its_level_over_the_first(level_db):
    mixed = swapped(level_db).mix(constant(2.0, 5.0))
    assert torch.allclose(mixed, constant(2.0 + 2.0 * 10 ** (level_db / 10), 5.0))


@pytest.mark.parametrize(("first", "second"), [(1.0, 1e-9), (1e-9, 1.0)])
def test_a_silent_one_is_not_raised_to_the_level_of_a_sound(first, second):
    mixed = swapped(0.0).mix(constant(first, second))
    correction = math.copysign(MAX_CORRECTION, math.log(first / second))
    assert torch.allclose(mixed, constant(first + second * math.exp(correction), second), atol=1e-6)


def test_what_is_not_chosen_stays_to_the_bit():
    log_mel = torch.randn(2, 4, 6)
    assert torch.equal(swapped(0.0, chosen=False).mix(log_mel), log_mel)
    assert torch.equal(Mixing.none(2).mix(log_mel), log_mel)


def test_a_mixed_crop_is_as_long_as_the_longer_of_its_two():
    lengths = np.array([3, 8])
    assert swapped(0.0).lengths(lengths).tolist() == [8, 8]
    assert swapped(0.0, chosen=False).lengths(lengths).tolist() == Mixing.none(2).lengths(lengths).tolist() == [3, 8]


def test_draws_are_shares_permutations_and_levels_in_range():
    drawn = Mixing.draw(np.random.default_rng(0), 4000, 0.3)
    assert abs(drawn.chosen.mean() - 0.3) < 0.03
    assert sorted(drawn.other.tolist()) == list(range(4000))
    assert LEVELS_DB[0] <= drawn.level_db.min() < -19 and 5 < drawn.level_db.max() <= LEVELS_DB[1]


def test_without_a_share_batches_are_what_they_were_and_with_one_some_crops_differ(store):
    plain, none, half = make(store).part(2), make(store, mixed_share=0.0).part(2), make(store, mixed_share=0.5).part(2)
    assert torch.equal(plain.log_mel, none.log_mel) and torch.equal(plain.clip, half.clip)
    same = (plain.log_mel == half.log_mel).all(1).all(1)
    assert 0 < int(same.sum()) < len(same)
    assert (half.log_mel >= plain.log_mel - 1e-4)[~same].all(), "mixing never takes power away"
    assert torch.equal(make(store, mixed_share=0.5).part(2).log_mel, half.log_mel)


def test_padding_and_weights_are_those_of_the_mixed_lengths(store):
    loader, silence = make(store, mixed_share=0.5), (store.spec.silence - store.mean) / store.std
    longer = 0
    for step in range(6):
        parts = [loader.part(step, part, 4) for part in range(4)]
        assert sum(part.weight for part in parts) == pytest.approx(1.0)
        columns = [(-(-part.num_valid_frames // 16)).sum() for part in parts]
        for part, held in zip(parts, columns, strict=True):
            assert part.weight == pytest.approx(float(held / sum(columns)))
            for crop, clip, length in zip(
                part.log_mel, part.clip.tolist(), part.num_valid_frames.tolist(), strict=True
            ):
                assert torch.all(crop[:, length:] == silence)
                longer += length > min(store.clips[clip].num_frames, 300)
    assert longer, "no mixed crop was longer than its own recording"


def test_the_sample_of_the_whitening_is_not_mixed(store):
    assert torch.equal(make(store, mixed_share=1.0).sample(8).log_mel, make(store).sample(8).log_mel)
