"""What a run remembers: the right patch of the right recording, smoothed, and equal however a batch is cut up."""

import pytest
import torch

from melmask.data.loader import Loader
from melmask.train.distributed import ALONE
from melmask.train.mask_state import LossHistory
from melmask.types import Batch, Mask, PatchGrid

GRID = PatchGrid(5, 6)  # 80 mels x 96 frames in patches of 16 x 16


def loader_of(store, **changes):
    return Loader(store, **{"crop_frames": 96, "batch_size": 8, "seed": 3, **changes})


@pytest.fixture
def history(store) -> LossHistory:
    return LossHistory(loader_of(store), GRID, smoothing=0.75)


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


def met(history: LossHistory, batch: Batch, loss: torch.Tensor, valid: torch.Tensor | None = None) -> None:
    """Record losses of all patches but each crop's last."""
    history.note(batch, everything_masked_but_one(len(loss)), loss, valid)


def read(history: LossHistory, row: int, start: int) -> torch.Tensor:
    return history.read(torch.tensor([row]), torch.tensor([start]), PatchGrid(5, 6))[0, :, 0]


def test_cells_of_all_recordings_are_apart_and_within_the_history(history, store):
    seen: dict[int, int] = {}
    for row, stored in enumerate(store.clips):
        for start in range(max(stored.num_frames - 96, 0) + 1):
            cells = history.cells(torch.tensor([row]), torch.tensor([start]), PatchGrid(5, 6))[0]
            assert len(cells.unique()) == 30
            assert all(seen.setdefault(cell, row) == row for cell in cells.tolist())
    assert min(seen) == 0 and max(seen) == len(history.loss) - 1 and len(seen) == len(history.loss)


def test_a_shorter_crop_has_the_cells_of_the_first_columns(history, store):
    row, start = torch.tensor([longest(store)]), torch.tensor([16])
    long, short = (history.cells(row, start, PatchGrid(5, time))[0].reshape(5, time) for time in (6, 2))
    assert torch.equal(short, long[:, :2])


@pytest.mark.parametrize(("start", "column"), [(0, 0), (7, 0), (8, 1), (16, 1), (23, 1), (24, 2), (40, 3)])
def test_a_crop_stands_at_the_nearest_column(start, column, history, store):
    row = longest(store)
    met(history, crops(row, 16 * column), torch.arange(29.0)[None])
    history.after_step(ALONE)
    assert torch.equal(read(history, row, start)[:29], torch.arange(29.0))


def test_rows_and_columns_are_kept_apart(history, store):
    row, loss = longest(store), torch.arange(29.0)
    met(history, crops(row, 0), loss[None])
    history.after_step(ALONE)
    later = read(history, row, 32).view(5, 6)  # two columns on: what was at t + 2 is now at t
    expected = torch.arange(30.0).view(5, 6)[:, 2:]
    assert torch.equal(later[:4, :4], expected[:4]) and torch.equal(later[4, :3], expected[4, :3])


def test_what_was_never_masked_is_the_mean_of_what_was_and_one_before_all(history, store):
    row = longest(store)
    assert (read(history, row, 0) == 1).all()
    met(history, crops(row, 0), torch.arange(29.0)[None])
    history.after_step(ALONE)
    assert float(read(history, row, 0)[29]) == pytest.approx(14.0)  # the mean of 0 to 28
    assert (read(history, (row + 1) % len(store), 0) == 1).all()


def test_a_new_loss_moves_the_memory_by_its_share(history, store):
    row = longest(store)
    for loss in (4.0, 8.0, 0.0):
        met(history, crops(row, 0), torch.full((1, 29), loss))
        history.after_step(ALONE)
    assert torch.allclose(read(history, row, 0), torch.tensor((4.0 * 0.75 + 8.0 * 0.25) * 0.75))


def test_a_patch_met_twice_in_a_step_counts_once_with_its_mean(history, store):
    row = longest(store)
    met(history, crops(row, 0, 3), torch.tensor([1.0, 4.0])[:, None].expand(-1, 29))
    met(history, crops(row, 2), torch.full((1, 29), 10.0))
    history.after_step(ALONE)
    assert torch.allclose(read(history, row, 0), torch.tensor(5.0))


def test_padding_and_losses_that_are_not_finite_are_not_remembered(history, store):
    row, loss = longest(store), torch.full((1, 29), 2.0)
    valid = (torch.arange(6) < 4).repeat(5)[None]
    loss[0, ~valid[0, :29]] = 50.0
    loss[0, 7] = torch.nan
    met(history, crops(row, 0), loss, valid)
    history.after_step(ALONE)
    assert (read(history, row, 0) == 2.0).all()
    assert int(history.loss.isfinite().sum()) == int(valid[0, :29].sum()) - 1


def test_losses_of_stretched_crops_are_not_recorded_and_none_is_read_for_them(store):
    """Their frames are not the recording's, and a slow one may start nearer to its end than a crop is long."""
    loader = loader_of(store, batch_size=64, stretched_share=1.0)
    history = LossHistory(loader, GRID, smoothing=0.75)
    history.loss.fill_(5.0)
    batch = loader.part(0)
    met(history, batch, torch.full((64, 29), 2.0))
    history.after_step(ALONE)
    assert (history.loss == 5.0).all()
    assert (history.read(batch.clip, batch.start_frame, GRID) == 1.0).all()


def test_the_state_gives_the_memory_back(history, store):
    met(history, crops(longest(store), 0), torch.rand(1, 29))
    history.after_step(ALONE)
    other = LossHistory(loader_of(store), GRID, smoothing=0.5)
    other.loss = history.loss
    assert torch.equal(read(other, longest(store), 5), read(history, longest(store), 5))
