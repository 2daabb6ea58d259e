"""A framework from outside the package, named on the command line: plan, pretrain, resume, embed, evaluate, report."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from melmask.cli.main import main
from melmask.masking import draw
from melmask.plan.flops import step_flops
from melmask.train.recipe import RECIPES, Recipe
from melmask.types import PatchGrid

TOY = '''"""Predicts the mean level of each masked patch."""

from dataclasses import dataclass

from melmask.frameworks import Framework, Loss
from melmask.frameworks.base import MaskedDecoder, mean_over_valid
from melmask.frameworks.cost import Cost, encoder_pass
from melmask.patches import take


class Levels(Framework):
    """The error of a patch is the absolute difference of its mean from the prediction, to a power."""

    loss_label = "error of the level"
    loss_scale = "0 is perfect"

    @dataclass(frozen=True)
    class Options:
        power: float = 1.0

        def __post_init__(self):
            if self.power <= 0:
                raise ValueError(f"power must be positive, got {self.power}")

    def __init__(self, encoder, decoder, patch_shape, options=None):
        super().__init__(encoder, decoder, patch_shape, options)
        self.decoder = MaskedDecoder(decoder, encoder.dim, 1)

    def loss(self, patches, grid, mask, valid=None):
        latent = self.encoder(patches, grid, mask.visible)
        level = take(patches, mask.masked).mean(dim=2)
        per_patch = (self.decoder(latent, grid, mask)[:, :, 0] - level).abs() ** self.options.power
        return Loss(mean_over_valid(per_patch, mask, valid), per_patch.detach(), latent[:, 1:].detach())

    def cost(self, num_visible, num_masked):
        decoder = self.decoder.cost(num_visible, num_masked, compared_values=1)
        return Cost((encoder_pass(self.encoder, num_visible), decoder))
'''
NAME = "toy_framework:Levels"
FRAMEWORK = ["--recipe", "micro-msm-mae", "--framework", NAME, "--framework-options", "power", "1.5"]
SHORT = ["--steps", "12", "--save-every", "6", "--log-every", "3", "--batch-size", "4"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with the framework's module, from which the command line is called."""
    (tmp_path / "toy_framework.py").write_text(TOY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path / "cache"))
    yield tmp_path
    sys.modules.pop("toy_framework", None)


def toy_recipe(**options: object) -> Recipe:
    return dataclasses.replace(RECIPES["micro-msm-mae"], framework=NAME, framework_options=options)


def test_a_framework_from_outside_goes_the_whole_way(
    recordings: Path, folder: Path, capsys, assert_resumes_to_the_bit
) -> None:
    main(["plan", *FRAMEWORK, "--clips", "1000", "--device", "a100-80gb"])
    assert "decoder" in capsys.readouterr().out
    main(["prepare", str(recordings), "--out", "store", "--workers", "0"])
    main(["pretrain", "store", "--out", "whole", *FRAMEWORK, "--strategy", "sgim", *SHORT])
    recipe = Recipe.load(folder / "whole/recipe.json")
    assert (recipe.framework, recipe.framework_options) == (NAME, {"power": 1.5})

    assert_resumes_to_the_bit(folder, recipe)
    main(["embed", "whole", str(recordings), "--out", "embeddings.npz", "--workers", "0"])
    with np.load(folder / "embeddings.npz") as written:
        assert written["features"].shape == (24, 5 * 32)
    main(["evaluate", "whole", "--task", str(recordings), "--probe", "ridge", "--workers", "0"])
    assert len((folder / "whole/results.jsonl").read_text().splitlines()) == 3
    main(["report", "killed", "--out", "report"])
    page = (folder / "report/report.html").read_text()
    assert NAME in page and "0 is perfect" in page
    written = {path.name for path in (folder / "report").iterdir()}
    assert any(name.startswith("errors-") for name in written)
    assert not any(name.startswith("reconstructions-") for name in written)  # it reconstructs nothing


def test_its_plan_is_exactly_what_torch_counts(folder: Path) -> None:
    sys.path.append(str(folder))
    recipe = dataclasses.replace(toy_recipe(), batch_size=2)
    model, grid = recipe.make_model(), recipe.grid(80)
    mask = draw("random", grid=grid, batch_size=2, mask_ratio=recipe.mask_ratio, rng=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(2, grid.num_patches, 256), PatchGrid(5, 6), mask).value.backward()
    assert counter.get_total_flops() == 2 * step_flops(recipe, 80).per_sample


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"framework": "toy_framework:Nothing"}, "defines no Nothing"),
        ({"framework": "no_such_module:Levels"}, "No module named 'no_such_module'"),
        ({"framework": "toy_framework:Loss"}, r"subclass of melmask\.frameworks\.Framework"),
        ({"framework_options": {"base": 2}}, "has no option 'base'; it has: power"),
        ({"framework_options": {"power": -1.0}}, "power must be positive, got -1.0"),
        ({"strategy": "sgim", "strategy_options": {"encoder": "ema"}}, 'has no "ema" encoder to guide sgim'),
    ],
)
def test_a_wrong_name_or_option_is_refused_before_the_run(folder: Path, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(toy_recipe(), **changes)
