"""A masking strategy with state, from outside the package: named on the command line, it runs the whole way."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from melmask.cli.main import main
from melmask.files import read_tensors
from melmask.masking import draw, make_strategy
from melmask.train.recipe import RECIPES, Recipe
from melmask.types import PatchGrid

TOY = '''"""Masks the bands whose patches had the largest loss so far."""

from dataclasses import dataclass, replace

import torch

from melmask.masking import MaskingStrategy
from melmask.masking.base import uniform


@dataclass(frozen=True)
class HardBands(MaskingStrategy):
    """Bands are masked more often the larger the mean of their losses is; ``pull`` says by how much."""

    pull: float = 4.0
    mean_loss: tuple[float, ...] = ()

    def priority(self, batch_size, grid, num_masked, rng, guide):
        noise = uniform((batch_size, grid.num_patches), rng)
        loss = torch.tensor(self.mean_loss or [0.0] * grid.freq)
        return noise + self.pull * loss.repeat_interleave(grid.time)

    def measure(self, seen):
        band = seen.mask.masked // seen.grid.time
        total = torch.zeros(seen.grid.freq).index_add_(0, band.flatten(), seen.loss.float().flatten())
        return total / band.flatten().bincount(minlength=seen.grid.freq).clamp(min=1)

    def learn(self, measured):
        before = torch.tensor(self.mean_loss or [0.0] * measured.shape[1])
        return replace(self, mean_loss=tuple((0.5 * before + 0.5 * measured.mean(dim=0)).tolist()))

    def state(self):
        return {"mean_loss": torch.tensor(self.mean_loss)}

    def restore(self, state):
        return replace(self, mean_loss=tuple(state["mean_loss"].tolist()))
'''
NAME = "toy_strategy:HardBands"
SHORT = ["--steps", "12", "--save-every", "6", "--log-every", "3", "--batch-size", "4"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with the strategy's module, from which the command line is called."""
    (tmp_path / "toy_strategy.py").write_text(TOY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path / "cache"))
    yield tmp_path
    sys.modules.pop("toy_strategy", None)


def test_a_strategy_with_state_from_outside_runs_the_whole_way(
    recordings: Path, folder: Path, assert_resumes_to_the_bit
) -> None:
    main(["prepare", str(recordings), "--out", "store", "--workers", "0"])
    settings = ["--recipe", "micro-msm-mae", "--strategy", NAME, "--strategy-options", "pull", "2.0", *SHORT]
    main(["pretrain", "store", "--out", "whole", *settings])
    recipe = Recipe.load(folder / "whole/recipe.json")
    assert (recipe.strategy, recipe.strategy_options) == (NAME, {"pull": 2.0})
    learnt = read_tensors(folder / "whole/checkpoint.safetensors")[0]["masking.mean_loss"]
    assert learnt.shape == (5,) and (learnt > 0).all()

    assert_resumes_to_the_bit(folder, recipe)
    main(["embed", "whole", str(recordings), "--out", "embeddings.npz", "--workers", "0"])
    with np.load(folder / "embeddings.npz") as written:
        assert written["features"].shape == (24, 5 * 32)
    main(["evaluate", "whole", "--task", str(recordings), "--probe", "ridge", "--workers", "0"])
    assert len((folder / "whole/results.jsonl").read_text().splitlines()) == 3
    main(["report", "killed", "--out", "report"])
    assert NAME in (folder / "report/report.html").read_text()


def test_its_masks_follow_what_it_learnt(folder: Path) -> None:
    sys.path.append(str(folder))
    strategy = make_strategy(NAME)
    learnt = strategy.learn(torch.tensor([[0.0, 0.0, 8.0, 0.0, 0.0]]))
    grid, rng = PatchGrid(5, 6), torch.Generator().manual_seed(0)
    mask = draw(learnt, grid=grid, batch_size=50, mask_ratio=0.7, rng=rng)
    assert mask.as_bool().view(50, 5, 6)[:, 2].all()


@pytest.mark.parametrize(
    ("strategy", "options", "message"),
    [
        ("toy_strategy:Nothing", {}, "defines no Nothing"),
        ("no_such_module:HardBands", {}, "No module named 'no_such_module'"),
        (NAME, {"push": 1.0}, "has no option 'push'; it has: mean_loss, pull"),
    ],
)
def test_a_wrong_name_or_option_is_refused_before_the_run(folder, strategy, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(RECIPES["micro-m2d"], strategy=strategy, strategy_options=options)
