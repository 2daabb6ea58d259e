"""What a run remembers: the right patch of the right recording, smoothed, and equal however a batch is cut up."""

import dataclasses

import pytest
import torch

from melmask.data.loader import Loader
from melmask.masking.bands import band_profile
from melmask.patches import patchify, valid_patches
from melmask.train.distributed import ALONE
from melmask.train.mask_state import PROFILE_DECAY, LossMemory, ProfileMemory, memory_for
from melmask.train.recipe import RECIPES
from melmask.types import Batch, Mask, PatchGrid

GRID = PatchGrid(5, 6)  # 80 mels x 96 frames in patches of 16 x 16


def recipe(strategy="hard", **options):
    return dataclasses.replace(RECIPES["micro-m2d"], strategy=strategy, strategy_options=options)


def loader_of(store, **changes):
    return Loader(store, **{"crop_frames": 96, "batch_size": 8, "seed": 3, **changes})


@pytest.fixture
def memory(store) -> LossMemory:
    made = memory_for(recipe(smoothing=0.75), loader_of(store))
    assert isinstance(made, LossMemory)
    return made


def longest(store) -> int:
    return max(range(len(store)), key=lambda row: store.clips[row].num_frames)


def crops(row: int, *starts: int) -> Batch:
    """Crops of one recording."""
    size = len(starts)
    whole = torch.full((size,), 96)
    return Batch(torch.zeros(size, 80, 96), whole, torch.full((size,), row), torch.tensor(starts))


def everything_masked_but_one(size: int) -> Mask:
    order = torch.arange(30).expand(size, -1)
    return Mask(visible=order[:, 29:], masked=order[:, :29])


def met(
    memory: LossMemory | ProfileMemory, batch: Batch, loss: torch.Tensor, valid: torch.Tensor | None = None
) -> None:
    """Hand in losses of all patches but each crop's last."""
    memory.note(batch, patchify(batch.log_mel, (16, 16)), everything_masked_but_one(len(loss)), loss, valid)


def read(memory: LossMemory, row: int, start: int) -> torch.Tensor:
    return memory.read(torch.tensor([row]), torch.tensor([start]), PatchGrid(5, 6))[0, :, 0]


def test_cells_of_all_recordings_are_apart_and_within_the_memory(memory, store):
    seen: dict[int, int] = {}
    for row, stored in enumerate(store.clips):
        for start in range(max(stored.num_frames - 96, 0) + 1):
            cells = memory.cells(torch.tensor([row]), torch.tensor([start]), PatchGrid(5, 6))[0]
            assert len(cells.unique()) == 30
            assert all(seen.setdefault(cell, row) == row for cell in cells.tolist())
    assert min(seen) == 0 and max(seen) == len(memory.loss) - 1 and len(seen) == len(memory.loss)


def test_a_shorter_crop_has_the_cells_of_the_first_columns(memory, store):
    row, start = torch.tensor([longest(store)]), torch.tensor([16])
    long, short = (memory.cells(row, start, PatchGrid(5, time))[0].reshape(5, time) for time in (6, 2))
    assert torch.equal(short, long[:, :2])


@pytest.mark.parametrize(("start", "column"), [(0, 0), (7, 0), (8, 1), (16, 1), (23, 1), (24, 2), (40, 3)])
def test_a_crop_stands_at_the_nearest_column(start, column, memory, store):
    row = longest(store)
    met(memory, crops(row, 16 * column), torch.arange(29.0)[None])
    memory.after_step(ALONE)
    assert torch.equal(read(memory, row, start)[:29], torch.arange(29.0))


def test_rows_and_columns_are_kept_apart(memory, store):
    row, loss = longest(store), torch.arange(29.0)
    met(memory, crops(row, 0), loss[None])
    memory.after_step(ALONE)
    later = read(memory, row, 32).view(5, 6)  # two columns on: what was at t + 2 is now at t
    expected = torch.arange(30.0).view(5, 6)[:, 2:]
    assert torch.equal(later[:4, :4], expected[:4]) and torch.equal(later[4, :3], expected[4, :3])


def test_what_was_never_masked_is_the_mean_of_what_was_and_one_before_all(memory, store):
    row = longest(store)
    assert (read(memory, row, 0) == 1).all()
    met(memory, crops(row, 0), torch.arange(29.0)[None])
    memory.after_step(ALONE)
    assert float(read(memory, row, 0)[29]) == pytest.approx(14.0)  # the mean of 0 to 28
    assert (read(memory, (row + 1) % len(store), 0) == 1).all()


def test_a_new_loss_moves_the_memory_by_its_share(memory, store):
    row = longest(store)
    for loss in (4.0, 8.0, 0.0):
        met(memory, crops(row, 0), torch.full((1, 29), loss))
        memory.after_step(ALONE)
    assert torch.allclose(read(memory, row, 0), torch.tensor((4.0 * 0.75 + 8.0 * 0.25) * 0.75))


def test_a_patch_met_twice_in_a_step_counts_once_with_its_mean(memory, store):
    row = longest(store)
    met(memory, crops(row, 0, 3), torch.tensor([1.0, 4.0])[:, None].expand(-1, 29))
    met(memory, crops(row, 2), torch.full((1, 29), 10.0))
    memory.after_step(ALONE)
    assert torch.allclose(read(memory, row, 0), torch.tensor(5.0))


def test_padding_and_losses_that_are_not_finite_are_not_remembered(memory, store):
    row, loss = longest(store), torch.full((1, 29), 2.0)
    valid = (torch.arange(6) < 4).repeat(5)[None]
    loss[0, ~valid[0, :29]] = 50.0
    loss[0, 7] = torch.nan
    met(memory, crops(row, 0), loss, valid)
    memory.after_step(ALONE)
    assert (read(memory, row, 0) == 2.0).all()
    assert int(memory.loss.isfinite().sum()) == int(valid[0, :29].sum()) - 1


def test_the_state_gives_the_memory_back(memory, store):
    met(memory, crops(longest(store), 0), torch.rand(1, 29))
    memory.after_step(ALONE)
    other = memory_for(recipe(), loader_of(store))
    other.restore(memory.state())
    assert torch.equal(read(other, longest(store), 5), read(memory, longest(store), 5))


def profile_of(batch: Batch, **options) -> torch.Tensor:
    return band_profile(
        patchify(batch.log_mel, (16, 16)), GRID, valid=valid_patches(batch.num_valid_frames, GRID, (16, 16)), **options
    )


def test_a_fixed_profile_is_the_samples_and_stays(store):
    loader = loader_of(store)
    memory, batch = memory_for(recipe("freq_profile"), loader), loader.part(0)
    expected = profile_of(loader.sample(1024))
    assert torch.equal(memory.profile, expected)
    met(memory, batch, torch.zeros(8, 29))
    memory.after_step(ALONE)
    assert torch.equal(memory.profile, expected)


def test_a_running_profile_follows_the_mean_of_the_parts(store):
    loader = loader_of(store)
    memory = memory_for(recipe("dwm_band", statistic="variance"), loader)
    expected = profile_of(loader.sample(1024), statistic="variance")
    assert torch.equal(memory.profile, expected)
    parts = [loader.part(0, part, 2) for part in range(2)]
    for batch in parts:
        valid = valid_patches(batch.num_valid_frames, GRID, (16, 16))
        met(memory, batch, torch.zeros(4, 29), valid)
    memory.after_step(ALONE)
    moved = torch.stack([profile_of(batch, statistic="variance") for batch in parts]).mean(dim=0)
    assert torch.allclose(memory.profile, PROFILE_DECAY * expected + (1 - PROFILE_DECAY) * moved)
    assert not torch.equal(memory.profile, expected)


@pytest.mark.parametrize(
    "settings", [{"strategy": "random"}, {"strategy": "sgim"}, {"strategy": "dwm_band", "bands": "batch"}]
)
def test_others_remember_nothing(settings, store):
    assert memory_for(recipe(**settings), loader_of(store)) is None
