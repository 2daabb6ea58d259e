"""What a strategy is given to look at, and what comes of it in a run's masks."""

import dataclasses

import pytest
import torch

from melmask.data.loader import Loader
from melmask.masking import make_strategy
from melmask.masking.bands import PROFILE_CROPS, PROFILE_DECAY, band_profile
from melmask.patches import patchify, valid_patches
from melmask.train.distributed import ALONE
from melmask.train.masker import Masker, guide_of
from melmask.train.recipe import RECIPES
from melmask.train.timer import Timer
from melmask.types import Batch, Mask, PatchGrid

pytestmark = pytest.mark.numerical

GRID = PatchGrid(5, 6)


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = RECIPES["micro-m2d"].make_model()
    with torch.no_grad():
        made.target.blocks[1].attn.qkv.weight.mul_(3.0)  # so that the two encoders see differently
    return made


@pytest.mark.parametrize("encoder", ["online", "ema"])
def test_features_and_attention_are_of_the_encoder_that_is_asked_for(encoder, model):
    model.double()
    patches, seen_by = torch.randn(3, 30, 256).double(), model.encoder if encoder == "online" else model.target
    features = guide_of(make_strategy("sgim", {"encoder": encoder}).needs, model.encoders(), patches, GRID)
    attention = guide_of(make_strategy("attention", {"encoder": encoder}).needs, model.encoders(), patches, GRID)
    assert torch.allclose(features, seen_by(patches, GRID)[:, 1:]) and not features.requires_grad
    assert torch.allclose(attention, seen_by.class_attention(patches, GRID)) and attention.shape == (3, 30, 2)
    other = model.target if encoder == "online" else model.encoder
    assert not torch.allclose(attention, other.class_attention(patches, GRID))


def test_what_is_missing_is_named():
    patches = torch.zeros(1, 30, 256)
    assert guide_of(make_strategy("random").needs, {}, patches, GRID) is None
    assert guide_of(make_strategy("dwm").needs, {}, patches, GRID) is patches
    for name, words in (("sgim", "encoder's features"), ("attention", "encoder's attention"), ("hard", "past losses")):
        with pytest.raises(ValueError, match=words):
            guide_of(make_strategy(name).needs, {}, patches, GRID)


def masker_of(store, **changes) -> tuple[Masker, Loader]:
    recipe = dataclasses.replace(RECIPES["micro-m2d"], batch_size=8, hint_constant=0.0, **changes)
    loader = Loader(store, crop_frames=96, batch_size=8, seed=0)
    return Masker(recipe, loader, ALONE), loader


def test_patches_that_were_hard_are_masked_the_next_time(store, model):
    masker, loader = masker_of(store, strategy="hard", strategy_options={"exponent": 50.0})
    # Crops of one recording overlap and teach each other, so every recording once.
    batch = next(batch for batch in map(loader.part, range(1000)) if len(batch.clip.unique()) == 8)
    patches = patchify(batch.log_mel, (16, 16))
    mask = masker.draw((0, 0), 0.0, model.encoders(), batch, patches, None)
    loss = torch.full(mask.masked.shape, 0.1)
    loss[:, ::2] = 1.0  # 11 of the 21 masked patches of each crop
    masker.note(batch, patches, mask, loss, None)
    masker.after_step()
    again = masker.draw((1, 0), 0.0, model.encoders(), batch, patches, None)
    for sample in range(8):
        assert set(mask.masked[sample, ::2].tolist()) <= set(again.masked[sample].tolist())


def test_the_exponent_rises_from_random_masking(store):
    masker, _ = masker_of(store, strategy="hard", strategy_options={"exponent": 3.0}, exponent_power=2.0)
    assert [masker.strategy(progress).exponent for progress in (0.0, 0.5, 1.0)] == [0.0, 0.75, 3.0]
    assert masker.settings(0.5) == (0.0, 1.0, 0.75)


def test_masks_are_a_function_of_seed_step_and_part_alone(store, model):
    masker, loader = masker_of(store, strategy="attention")
    batch = loader.part(0)
    arguments = (0.5, model.encoders(), batch, patchify(batch.log_mel, (16, 16)), None)
    one, again = (masker_of(store, strategy="random")[0].draw((3, 1), *arguments) for _ in range(2))
    assert torch.equal(one.masked, again.masked)
    for key in ((3, 0), (4, 1)):
        assert not torch.equal(masker_of(store, strategy="random")[0].draw(key, *arguments).masked, one.masked)
    masker.draw((3, 1), *arguments)
    assert masker.timer.take() > 0 and masker.timer.take() == 0


def test_a_timer_counts_only_what_it_is_asked_to(monkeypatch):
    times = iter([1.0, 3.0, 10.0, 10.5])
    monkeypatch.setattr("melmask.train.timer.time.perf_counter", lambda: next(times))
    timer = Timer(torch.device("cpu"))
    for _ in range(2):
        with timer:
            pass
    assert timer.take() == 2.5 and timer.take() == 0.0


def profile_of(batch: Batch, **options) -> torch.Tensor:
    patches, valid = patchify(batch.log_mel, (16, 16)), valid_patches(batch.num_valid_frames, GRID)
    return band_profile(patches, GRID, valid=valid, **options)


def note_parts(masker: Masker, parts: list[Batch]) -> None:
    """One step of these parts, with every patch but the last masked at a loss of zero."""
    for batch in parts:
        order = torch.arange(30).expand(len(batch.clip), -1)
        valid = valid_patches(batch.num_valid_frames, GRID)
        mask = Mask(visible=order[:, 29:], masked=order[:, :29])
        masker.note(batch, patchify(batch.log_mel, (16, 16)), mask, torch.zeros(len(order), 29), valid)
    masker.after_step()


def test_a_fixed_profile_is_the_samples_and_stays(store):
    masker, loader = masker_of(store, strategy="freq_profile")
    expected = profile_of(loader.sample(PROFILE_CROPS))
    assert masker.strategy(0.0).profile == tuple(expected.tolist())
    note_parts(masker, [loader.part(0)])
    assert masker.strategy(0.0).profile == tuple(expected.tolist())


def test_a_running_profile_follows_the_mean_of_the_parts(store):
    masker, loader = masker_of(store, strategy="dwm_band", strategy_options={"statistic": "variance"})
    expected = profile_of(loader.sample(PROFILE_CROPS), statistic="variance")
    assert masker.strategy(0.0).profile == tuple(expected.tolist())
    parts = [loader.part(0, part, 2) for part in range(2)]
    note_parts(masker, parts)
    moved = torch.stack([profile_of(batch, statistic="variance") for batch in parts]).mean(dim=0)
    learnt = PROFILE_DECAY * expected + (1 - PROFILE_DECAY) * moved
    assert torch.allclose(torch.tensor(masker.strategy(0.0).profile), learnt)
    assert masker.strategy(0.0).profile != tuple(expected.tolist())
    assert torch.equal(masker.state()["profile"], torch.tensor(masker.strategy(0.0).profile))


@pytest.mark.parametrize(
    "settings",
    [{"strategy": "random"}, {"strategy": "sgim"}, {"strategy": "dwm_band", "strategy_options": {"bands": "batch"}}],
)
def test_other_strategies_learn_nothing(settings, store):
    masker, loader = masker_of(store, **settings)
    before = masker.strategy(0.0)
    note_parts(masker, [loader.part(0)])
    assert masker.history is None and masker.state() == {} and masker.strategy(0.0) == before


@pytest.mark.parametrize("strategy", ["hard", "freq_profile", "dwm_band"])
def test_a_restored_masker_is_the_one_that_was_saved(strategy, store, monkeypatch):
    masker, loader = masker_of(store, strategy=strategy)
    note_parts(masker, [loader.part(0)])
    other, others_loader = masker_of(store, strategy=strategy)
    monkeypatch.setattr(others_loader, "sample", lambda num_crops: pytest.fail("a resumed run needs no sample"))
    other.restore(masker.state())
    assert other.strategy(0.0) == masker.strategy(0.0)
    assert other.state().keys() == masker.state().keys()
    for name, value in masker.state().items():
        torch.testing.assert_close(other.state()[name], value, rtol=0, atol=0, equal_nan=True)
