"""Coloured noise: fields that never change, colours that add up to white, and crops that wrap and flip."""

import pytest
import torch

from melmask.masking import draw, noise
from melmask.masking.noise import ColouredNoise, noise_field
from melmask.types import PatchGrid

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_field_is_made_once_and_is_the_same_when_made_again():
    field = noise_field("green", 64, 128, CPU)
    assert noise_field("green", 64, 128, CPU) is field
    noise_field.cache_clear()
    torch.manual_seed(5)
    again = noise_field("green", 64, 128, CPU)
    assert again is not field and torch.equal(again, field)


def test_the_colours_add_up_to_the_white_noise_they_are_filtered_from():
    white = torch.randn(64, 128, dtype=torch.float64, generator=seeded(noise.SEED))
    total = sum(noise_field(colour, 64, 128, CPU) for colour in ("red", "green", "blue"))
    assert torch.allclose(total, white.float(), atol=1e-5)


def test_red_is_a_gaussian_blur():
    # A plain circular convolution in one row of the field, with the kernel's other axis summed first.
    white = torch.randn(64, 64, dtype=torch.float64, generator=seeded(noise.SEED))
    offset = torch.arange(-12, 13)
    kernel = torch.exp(-0.5 * (offset / noise.COARSE) ** 2).double()
    kernel /= kernel.sum()
    blurred = sum(k * white.roll(int(o), dims=0) for o, k in zip(offset, kernel, strict=True))
    blurred = sum(k * blurred.roll(int(o), dims=1) for o, k in zip(offset, kernel, strict=True))
    assert torch.allclose(noise_field("red", 64, 64, CPU), blurred.float(), atol=1e-4)


@pytest.mark.parametrize(("freq", "time"), [(5, 38), (1, 50), (3, 300)])
def test_crops_are_contiguous_wrap_around_and_turn_either_way(freq, time, monkeypatch):
    # A field that holds its own coordinates shows where each patch comes from.
    sides = []

    def coordinates(colour: str, rows: int, columns: int, device: torch.device) -> torch.Tensor:
        sides.append((rows, columns))
        return torch.arange(rows * columns, dtype=torch.float64).view(rows, columns)

    monkeypatch.setattr(noise, "noise_field", coordinates)
    priority = ColouredNoise().priority(4000, PatchGrid(freq, time), 10, seeded(1), None).view(4000, freq, time)
    rows, columns = sides[0]
    assert rows >= 2 * freq and columns >= 2 * time
    row, column = priority.div(columns, rounding_mode="floor"), priority % columns
    assert (row == row[:, :, :1]).all() and (column == column[:, :1, :]).all()
    for place, around in ((column[:, 0, :], columns), (row[:, :, 0], rows)):
        step = place.diff(dim=1) % around
        assert ((step == 1) | (step == around - 1)).all() and (step == step[:, :1]).all()
        if place.shape[1] > 1:
            assert 1700 < int((step[:, 0] == 1).sum()) < 2300  # half, within 9 standard deviations
            assert (place.amax(dim=1) - place.amin(dim=1) > place.shape[1]).any()  # some wrap around
        # Every quarter of the torus is met as often: 1000 of 4000 within 9 standard deviations.
        quarter = (place[:, 0] * 4 / around).long().bincount(minlength=4)
        assert quarter.min() > 750 and quarter.max() < 1250


def test_the_highest_are_masked():
    grid = PatchGrid(5, 38)
    strategy = ColouredNoise(colour="red")
    priority = strategy.priority(20, grid, 133, seeded(2), None)
    mask = draw(strategy, grid=grid, batch_size=20, mask_ratio=0.7, rng=seeded(2))
    assert (priority.gather(1, mask.masked).amin(dim=1) > priority.gather(1, mask.visible).amax(dim=1)).all()


def test_an_unknown_colour_is_refused(as_for_users):
    with pytest.raises(ValueError, match='colours "green", "blue" and "red", got \'pink\''):
        ColouredNoise(colour="pink")
