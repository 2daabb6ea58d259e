"""Patches: their order, the way back, picking and placing, validity, and positions against plain loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from melmask.patches import grid_of, patchify, place, sincos_positions, take, unpatchify, valid_patches
from melmask.types import PatchGrid

sides = st.integers(1, 5)


@settings(max_examples=30, deadline=None)
@given(freq=sides, time=sides, patch_freq=sides, patch_time=sides, mel_rest=st.integers(0, 4), rest=st.integers(0, 4))
def test_patches_lie_in_the_order_of_the_grid(freq, time, patch_freq, patch_time, mel_rest, rest):
    mel = freq * patch_freq + min(mel_rest, patch_freq - 1)
    frame = time * patch_time + min(rest, patch_time - 1)
    log_mel = torch.arange(2.0 * mel * frame).view(2, mel, frame)
    assert grid_of(log_mel, (patch_freq, patch_time)) == PatchGrid(freq, time)
    patches = patchify(log_mel, (patch_freq, patch_time))
    assert patches.shape == (2, freq * time, patch_freq * patch_time)
    for f in range(freq):
        for t in range(time):
            rows = slice(f * patch_freq, (f + 1) * patch_freq)
            columns = slice(t * patch_time, (t + 1) * patch_time)
            assert torch.equal(patches[:, f * time + t], log_mel[:, rows, columns].flatten(1))
    whole = log_mel[:, : freq * patch_freq, : time * patch_time]
    assert torch.equal(unpatchify(patches, PatchGrid(freq, time), (patch_freq, patch_time)), whole)


def test_the_usual_input_has_the_usual_grid():
    assert grid_of(torch.zeros(80, 608), (16, 16)) == PatchGrid(5, 38)
    assert grid_of(torch.zeros(3, 80, 623), (16, 16)) == PatchGrid(5, 38)


@pytest.mark.parametrize(("mel", "frame"), [(15, 100), (80, 15), (0, 16)])
def test_input_under_one_patch_is_refused(mel, frame):
    with pytest.raises(ValueError, match=f"{mel} x {frame} .* smaller than one patch of 16 x 16"):
        grid_of(torch.zeros(1, mel, frame), (16, 16))
    with pytest.raises(ValueError, match="smaller than one patch"):
        patchify(torch.zeros(1, mel, frame), (16, 16))


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
    assert torch.equal(valid_patches(torch.tensor(num_valid_frames), PatchGrid(freq, time), (2, patch_time)), expected)


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
