"""Augmentation, against exact expectations."""

import numpy as np
import pytest
import torch

from bounds import gamma
from melmask.finetune import augment
from melmask.finetune.augment import draw_lines, hide_stripes, mix, mixup, num_lines, resized_crop
from melmask.types import PatchGrid

SILENCE = -15.9


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_mixture_has_the_power_of_its_parts():
    a, b = torch.randn(2, 30, 8, generator=torch.Generator().manual_seed(0))
    a, b = a.double(), b.double()
    torch.testing.assert_close(mix(a, b, 0.7).exp(), 0.7 * a.exp() + 0.3 * b.exp())
    assert mix(a, b, 1.0) is a


def test_labels_are_mixed_by_the_shares_of_power():
    power = torch.arange(1.0, 33.0)
    clips = [torch.full((20, 4), float(p.log())) for p in power]
    mixed, flags = mixup(clips, torch.eye(32), alpha=0.5, silence=SILENCE, rng=rng())
    # A logarithm up to 3.5 is off by that times u, which its exponential shows; and so are a share and a sum.
    for clip, expected in zip(mixed, flags @ power, strict=True):
        torch.testing.assert_close(clip.exp(), expected.expand(20, 4), rtol=gamma(32), atol=0)
    torch.testing.assert_close(flags.sum(dim=1), torch.ones(32))
    own = flags.diagonal()
    assert (own >= 0.5).all() and (own < 0.9).sum() > 3, "some clips must be mixed substantially"


def test_a_clip_keeps_its_length_and_silence_adds_nothing():
    clips = [torch.zeros(40, 4), torch.zeros(10, 4)]
    for seed in range(10):
        (long, short), flags = mixup(clips, torch.eye(2), alpha=1.0, silence=-1000.0, rng=rng(seed))
        assert len(long) == 40 and len(short) == 10
        torch.testing.assert_close(short, torch.zeros(10, 4))  # the same sound in both, so the power stays 1
        share = float(flags[0, 0])
        alone = torch.isclose(long[:, 0].exp(), torch.tensor(share))
        if share < 0.999:
            assert alone.sum() == 30, "outside the short clip, the long one has only its own share"
            return
    raise AssertionError("no draw mixed the two clips")


def test_a_crop_of_the_whole_is_the_whole(monkeypatch):
    monkeypatch.setattr(augment, "RESIZED_SCALE", (1.0, 1.0))
    monkeypatch.setattr(augment, "VIRTUAL_WIDTH", 1.0)
    log_mel = torch.randn(3, 80, 48, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(resized_crop(log_mel, silence=SILENCE, rng=rng()), log_mel, atol=1e-3, rtol=0)


def test_a_crop_of_full_size_is_moved_in_time_only(monkeypatch):
    monkeypatch.setattr(augment, "RESIZED_SCALE", (1.0, 1.0))
    bands = torch.randn(80, generator=torch.Generator().manual_seed(0))
    moved = resized_crop(bands[None, :, None].expand(64, 80, 48), silence=SILENCE, rng=rng())
    torch.testing.assert_close(moved[:, :, 20:28], bands[None, :, None].expand(64, 80, 8), atol=1e-3, rtol=0)
    silent = torch.isclose(moved, torch.tensor(SILENCE)).all(dim=1)
    assert silent[:, 0].any() and silent[:, -1].any(), "some crops begin before the sound and some end after it"
    assert silent.sum(dim=1).max() <= 48 // 4 + 1


@pytest.mark.parametrize("num_frames", [1, 5, 96])
def test_a_resized_crop_keeps_the_shape_and_differs_between_samples(num_frames):
    log_mel = torch.randn(1, 80, num_frames, generator=torch.Generator().manual_seed(0)).expand(8, -1, -1)
    first, again = (resized_crop(log_mel, silence=SILENCE, rng=rng()) for _ in range(2))
    assert first.shape == log_mel.shape and torch.equal(first, again) and first.isfinite().all()
    assert not torch.isclose(first[0], first[1]).all()


def test_hidden_stripes_are_one_band_and_one_time_range():
    hidden = hide_stripes(torch.ones(500, 20, 30), max_bands=6, max_frames=40, rng=rng()) == 0
    bands, frames = hidden.all(dim=2), hidden.all(dim=1)
    assert torch.equal(hidden, bands[:, :, None] | frames[:, None, :])
    for lines, widest in ((bands, 6), (frames, 15)):  # 40 frames would be all: half at most
        width = lines.sum(dim=1)
        assert set(width.tolist()) == set(range(widest + 1))
        edges = (lines[:, 1:] != lines[:, :-1]).sum(dim=1) + lines[:, 0].int() + lines[:, -1].int()
        assert torch.equal(edges, 2 * (width > 0).int()), "a stripe has one beginning and one end"
        assert lines.any(dim=0).all(), "the first and the last line can be hidden as well"
    assert (~hidden).float().mean(dim=(1, 2)).min() > 0.25


def test_no_stripes_change_nothing():
    log_mel = torch.ones(4, 20, 30)
    assert torch.equal(hide_stripes(log_mel, max_bands=0, max_frames=0, rng=rng()), log_mel)


@pytest.mark.parametrize("grid", [PatchGrid(5, 38), PatchGrid(10, 3), PatchGrid(1, 7), PatchGrid(5, 1)])
@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 0.9])
def test_the_number_of_visible_lines(grid, ratio):
    num_rows, num_columns = num_lines(grid, ratio)
    lines = draw_lines(200, grid, ratio, rng())
    for drawn, count, size in ((lines.rows, num_rows, grid.freq), (lines.columns, num_columns, grid.time)):
        assert drawn.shape == (200, count) and 1 <= count <= size
        assert (drawn.diff(dim=1) > 0).all(), "sorted, and none twice"
        assert set(drawn.flatten().tolist()) == set(range(size)), "every line can be visible"
    expected = [[f * grid.time + t for f in rows for t in columns] for rows, columns in
                zip(lines.rows.tolist(), lines.columns.tolist(), strict=True)]  # fmt: skip
    assert lines.index(grid).tolist() == expected
    if 1 < num_columns < grid.time:
        assert abs(num_rows * num_columns - grid.num_patches * (1 - ratio)) <= num_rows / 2
