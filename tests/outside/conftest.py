"""What tests of modules outside the package share: what they import is forgotten after each."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from melmask.cli.main import main
from melmask.data.store import Store
from melmask.files import read_tensors
from melmask.train.loop import pretrain
from melmask.train.recipe import Recipe


@pytest.fixture(autouse=True)
def imports_are_forgotten(tmp_path: Path):
    """Modules that a test wrote to its own folder and imported are not found by the next one, nor is the folder."""
    paths = list(sys.path)
    yield
    sys.path[:] = paths
    for name, module in list(sys.modules.items()):
        if str(tmp_path) in str(getattr(module, "__file__", None)):
            del sys.modules[name]


@pytest.fixture
def assert_resumes_to_the_bit() -> Callable[[Path, Recipe], None]:
    """Train the recipe of the run "whole" once more, kill it at step 9, and resume it from its last checkpoint."""

    def stop_after_the_checkpoint(entry: object) -> None:
        if entry.step == 9:
            raise KeyboardInterrupt

    def assert_resumes_to_the_bit(folder: Path, recipe: Recipe) -> None:
        with pytest.raises(KeyboardInterrupt):
            pretrain(recipe, Store.open(folder / "store"), folder / "killed", report=stop_after_the_checkpoint)
        main(["pretrain", "store", "--out", "killed", "--resume"])
        whole, resumed = (read_tensors(folder / run / "checkpoint.safetensors")[0] for run in ("whole", "killed"))
        assert whole.keys() == resumed.keys()
        for name, tensor in whole.items():
            assert torch.equal(tensor, resumed[name]), name

    return assert_resumes_to_the_bit
