"""The public names: complete, lazily imported, and taking what is at hand."""

import ast
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

import melmask
from melmask.data.store import Store
from melmask.train import loop
from melmask.train.recipe import RECIPES, Recipe

QUICK = {"steps": 2, "batch_size": 4, "log_every": 1}


def fresh(code: str) -> str:
    """What a new interpreter prints for the code."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_dir_lists_the_public_names_and_each_can_be_imported():
    assert set(melmask.__all__) <= set(dir(melmask))
    for name in melmask.__all__:
        assert getattr(melmask, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'; the public names are"):
        _ = melmask.nothing


def test_what_type_checkers_see_is_what_is_imported():
    tree = ast.parse(Path(melmask.__file__).read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == melmask._DEFINED_IN | {"masking": "melmask"}
    assert set(melmask.__all__) == seen.keys() | {"__version__"}
    assert (Path(melmask.__file__).parent / "py.typed").exists()


def test_masks_are_drawn_after_import_melmask_alone_and_names_stay_when_other_modules_are_imported():
    code = (
        "import melmask, torch\n"
        "grid, rng = melmask.PatchGrid(5, 38), torch.Generator()\n"
        "mask = melmask.masking.draw('random', grid=grid, batch_size=2, mask_ratio=0.7, rng=rng)\n"
        "print(int(mask.as_bool().sum()), mask.ids_restore().shape[1])\n"
        "import melmask.api, melmask.evaluation.compare, melmask.encoders.registry, melmask.cli.evaluate\n"
        "calls = melmask.load, melmask.prepare, melmask.recipe, melmask.pretrain, melmask.evaluate, melmask.compare\n"
        "print(*(call.__name__ for call in calls))"
    )
    assert fresh(code).split() == ["266", "190", "load", "prepare", "recipe", "pretrain", "evaluate", "compare"]


def test_prepare_takes_one_source_or_several_as_text_or_paths(recordings, store, tmp_path):
    one = melmask.prepare(str(recordings), str(tmp_path / "one"), num_workers=0)
    several = melmask.prepare([recordings], tmp_path / "several", num_workers=0)
    assert isinstance(one, Store) and one.fingerprint == several.fingerprint == store.fingerprint


def test_a_recipe_is_a_named_one_with_changes():
    assert melmask.recipe("micro-m2d") == RECIPES["micro-m2d"]
    assert melmask.recipe("micro-m2d", strategy="dwm") == replace(RECIPES["micro-m2d"], strategy="dwm")
    with pytest.raises(ValueError, match="no recipe 'micro'"):
        melmask.recipe("micro")
    with pytest.raises(ValueError, match="no setting 'masks'; it has: framework, "):
        melmask.recipe("micro-m2d", masks="dwm")
    with pytest.raises(ValueError, match="set one of steps and epochs"):
        melmask.recipe("micro-m2d", epochs=3.0)


def test_pretrain_returns_the_run_folder(store, tmp_path):
    entries = []
    recipe, out = melmask.recipe("micro-m2d", **QUICK), str(tmp_path / "run")
    run = melmask.pretrain(recipe, store.folder, out, report=entries.append)
    assert run == tmp_path / "run" and Recipe.load(run / "recipe.json").steps == 2
    assert [entry.step for entry in entries] == [1, 2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert melmask.pretrain(recipe, store, run, resume=True) == run


def test_an_interrupted_training_warns(store, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "pretrain", lambda *_, **__: False)
    with pytest.warns(UserWarning, match="interrupted and saved: resume=True continues it"):
        melmask.pretrain(melmask.recipe("micro-m2d", **QUICK), store, tmp_path / "run")
