"""Patches: their order, the way back, odd shapes, picking and placing, validity, and positions against plain loops."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from melmask.masking import STRATEGIES, draw
from melmask.patches import (
    _warn_of_rest,
    grid_of,
    patchify,
    place,
    sincos_positions,
    take,
    unpatchify,
    valid_patches,
    whole_patches,
)
from melmask.train.recipe import RECIPES
from melmask.types import PatchGrid

sides = st.integers(1, 5)


@pytest.fixture(autouse=True)
def unwarned():
    """As in a new process: no rest has been warned of yet."""
    _warn_of_rest.cache_clear()


@settings(max_examples=30, deadline=None)
@given(freq=sides, time=sides, patch_freq=sides, patch_time=sides, mel_rest=st.integers(0, 4), rest=st.integers(0, 4))
def test_patches_lie_in_the_order_of_the_grid(freq, time, patch_freq, patch_time, mel_rest, rest):
    mel = freq * patch_freq + min(mel_rest, patch_freq - 1)
    frame = time * patch_time + min(rest, patch_time - 1)
    log_mel = torch.arange(2.0 * mel * frame).view(2, mel, frame)
    assert grid_of(log_mel, (patch_freq, patch_time)) == PatchGrid(freq, time, (patch_freq, patch_time))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patches = patchify(log_mel, (patch_freq, patch_time))
    assert torch.equal(patchify(whole_patches(log_mel, (patch_freq, patch_time)), (patch_freq, patch_time)), patches)
    assert patches.shape == (2, freq * time, patch_freq * patch_time)
    for f in range(freq):
        for t in range(time):
            rows = slice(f * patch_freq, (f + 1) * patch_freq)
            columns = slice(t * patch_time, (t + 1) * patch_time)
            assert torch.equal(patches[:, f * time + t], log_mel[:, rows, columns].flatten(1))
    whole = log_mel[:, : freq * patch_freq, : time * patch_time]
    assert torch.equal(unpatchify(patches, PatchGrid(freq, time, (patch_freq, patch_time))), whole)


def test_the_usual_input_has_the_usual_grid():
    assert grid_of(torch.zeros(80, 608), (16, 16)) == PatchGrid(5, 38)
    assert grid_of(torch.zeros(3, 80, 623), (16, 16)) == PatchGrid(5, 38)


@pytest.mark.parametrize(("mel", "frame"), [(15, 100), (80, 15), (0, 16)])
def test_input_under_one_patch_is_refused(mel, frame):
    with pytest.raises(ValueError, match=f"{mel} x {frame} .* smaller than one patch of 16 x 16"):
        grid_of(torch.zeros(1, mel, frame), (16, 16))
    with pytest.raises(ValueError, match="smaller than one patch"):
        patchify(torch.zeros(1, mel, frame), (16, 16))


def test_a_rest_is_warned_of_once_for_each_size():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for frame in (608, 623, 623, 610, 623):
            patchify(torch.zeros(1, 90, frame), (16, 16))
    assert [str(warning.message) for warning in caught] == [
        "90 mel bands are no multiple of a patch's 16: mel bands 80 to 89 (counted from 0) are left out",
        "623 frames are no multiple of a patch's 16: frames 608 to 622 (counted from 0) are left out",
        "610 frames are no multiple of a patch's 16: frames 608 to 609 (counted from 0) are left out",
    ]


def test_a_warning_that_is_an_error_stays_one():
    for _ in range(2):
        with pytest.raises(UserWarning, match="frames 608 to 622"):
            patchify(torch.zeros(1, 80, 623), (16, 16))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_no_recipe_loses_a_band_or_frame(recipe):
    # A warning would be an error here.
    patches = patchify(torch.zeros(1, 80, recipe.crop_frames), recipe.patch_shape)
    assert patches[0].numel() == 80 * recipe.crop_frames


@pytest.mark.parametrize(
    ("patch_shape", "grid"),
    [
        ((80, 2), PatchGrid(1, 104, (80, 2))),
        ((16, 4), PatchGrid(5, 52, (16, 4))),
        ((16, 208), PatchGrid(5, 1, (16, 208))),
        ((4, 16), PatchGrid(20, 13, (4, 16))),
    ],
)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_odd_patches_are_masked_where_there_is_sound(strategy, patch_shape, grid):
    log_mel = torch.randn(3, 80, 208, generator=torch.Generator().manual_seed(1))
    num_valid_frames = torch.tensor([208, 120, 9])
    patches = patchify(log_mel, patch_shape)
    assert grid_of(log_mel, patch_shape) == grid and patches.shape == (3, grid.num_patches, math.prod(patch_shape))
    valid = valid_patches(num_valid_frames, grid)
    num_columns = [math.ceil(frames / patch_shape[1]) for frames in num_valid_frames.tolist()]
    assert valid.sum(dim=1).tolist() == [grid.freq * columns for columns in num_columns]
    guides = {
        "nothing": None, "patches": patches, "features": patches, "attention": patches.softmax(dim=1),
        "loss": patches.square().mean(dim=2, keepdim=True),
    }  # fmt: skip
    mask = draw(
        strategy, grid=grid, batch_size=3, mask_ratio=0.6, rng=torch.Generator().manual_seed(2), valid=valid,
        guide=guides[STRATEGIES[strategy]().needs.guide], hint_ratio=0.3,
    )  # fmt: skip
    num_visible = mask.visible.shape[1]
    assert num_visible == math.floor(grid.num_patches * 0.4 + 1e-9)
    together = torch.cat([mask.visible, mask.masked], dim=1).sort(dim=1).values
    assert torch.equal(together, torch.arange(grid.num_patches).expand(3, -1))
    expected = valid.sum(dim=1) * num_visible // grid.num_patches
    assert torch.equal(valid.gather(1, mask.visible).sum(dim=1), expected)


@pytest.mark.parametrize(("freq", "time"), [(0, 3), (3, 0), (-1, 2)])
def test_a_grid_without_patches_is_refused(freq, time):
    with pytest.raises(ValueError, match="at least one patch a side"):
        PatchGrid(freq, time)


@settings(max_examples=20, deadline=None)
@given(orders=st.lists(st.permutations(range(7)), min_size=1, max_size=3), count=st.integers(0, 7))
def test_what_is_placed_is_what_is_taken(orders, count):
    index = torch.tensor(orders)[:, :count]
    tokens = torch.arange(len(orders) * 7 * 2.0).view(len(orders), 7, 2)
    new = -1 - torch.arange(len(orders) * count * 2.0).view(len(orders), count, 2)
    before = tokens.clone()
    placed, taken = place(tokens, index, new), take(tokens, index)
    assert torch.equal(tokens, before)
    assert torch.equal(take(placed, index), new)
    for sample, order in enumerate(orders):
        assert torch.equal(taken[sample], tokens[sample, order[:count]])
        assert torch.equal(placed[sample, order[count:]], tokens[sample, order[count:]])


@settings(max_examples=20, deadline=None)
@given(freq=sides, time=sides, patch_time=sides, num_valid_frames=st.lists(st.integers(0, 25), min_size=1, max_size=4))
def test_a_patch_is_valid_while_one_of_its_frames_is(freq, time, patch_time, num_valid_frames):
    frame = torch.arange(time * patch_time)
    held = (frame < torch.tensor(num_valid_frames)[:, None]).float()[:, None].expand(-1, freq * 2, -1)
    expected = patchify(held, (2, patch_time)).amax(dim=2) > 0
    assert torch.equal(valid_patches(torch.tensor(num_valid_frames), PatchGrid(freq, time, (2, patch_time))), expected)


@pytest.mark.parametrize(("freq", "time", "dim"), [(5, 38, 32), (1, 7, 4), (3, 101, 12)])
def test_positions_are_the_sines_and_cosines_of_a_plain_loop(freq, time, dim):
    grid, quarter = PatchGrid(freq, time), dim // 4
    positions = sincos_positions(grid, dim)
    assert positions.shape == (freq * time, dim) and positions.dtype == torch.float32
    for f in range(freq):
        for t in range(time):
            rates = [10000 ** (-k / quarter) for k in range(quarter)]
            expected = [wave(place * rate) for place in (f, t) for wave in (math.sin, math.cos) for rate in rates]
            assert torch.allclose(positions[f * time + t], torch.tensor(expected), atol=1e-6)


def test_longer_input_only_adds_positions():
    short, long = sincos_positions(PatchGrid(5, 13), 16), sincos_positions(PatchGrid(5, 101), 16)
    assert torch.equal(short.view(5, 13, 16), long.view(5, 101, 16)[:, :13])
    assert len(long.unique(dim=0)) == 5 * 101


@pytest.mark.parametrize("dim", [2, 6, 30])
def test_a_width_that_is_no_multiple_of_4_is_refused(dim):
    with pytest.raises(ValueError, match=f"multiple of 4, got {dim}"):
        sincos_positions(PatchGrid(2, 2), dim)
