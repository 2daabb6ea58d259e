"""The code of docs/api.md runs, and its expressions have the values that their comments state."""

import ast
import re
from dataclasses import replace
from inspect import signature
from pathlib import Path

import pytest

import melmask
from melmask.train.recipe import RECIPES

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def run(code: str, names: dict[str, object]) -> int:
    """Execute code, compare each expression with the comment behind it, and count them."""
    num_compared = 0
    for node in ast.parse(code).body:
        _, _, stated = code.splitlines()[node.end_lineno - 1].partition("  # ")
        if isinstance(node, ast.Expr) and stated:
            assert repr(eval(compile(ast.Expression(node.value), "api.md", "eval"), names)) == stated
            num_compared += 1
        else:
            exec(compile(ast.Module([node], []), "api.md", "exec"), names)
    return num_compared


def test_the_page_runs_from_top_to_bottom(recordings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("melmask.data.prepare.num_cores", lambda: 0)  # decodes in this process
    quick = {"steps": 4, "batch_size": 4, "accumulate": 1, "crop_frames": 64, "decoder_depth": 1}
    monkeypatch.setitem(RECIPES, "tiny-msm-mae", replace(RECIPES["tiny-msm-mae"], **quick))
    Path("recordings").symlink_to(recordings.parent)
    Path("a.wav").symlink_to(recordings.parent / "01.wav")
    header, *rows = recordings.read_text().splitlines()
    Path("birds.csv").write_text("\n".join([header, *(f"recordings/{row}" for row in rows)]) + "\n")
    names: dict[str, object] = {}
    num_compared = [run(code, names) for code in BLOCKS]
    assert len(BLOCKS) == PAGE.count("```python") and min(num_compared) >= 1


def test_a_wrong_value_would_be_found():
    assert run("x = 1  # not compared\nx + 1  # 2", {}) == 1
    with pytest.raises(AssertionError):
        run("1 + 1  # 3", {})


@pytest.mark.parametrize("name", ["prepare", "recipe", "pretrain", "load", "evaluate", "compare"])
def test_the_page_names_every_argument(name):
    section = PAGE.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    shared = PAGE.partition("\n## evaluate\n")[2].partition("\n## ")[0] if name == "compare" else ""
    for argument in set(signature(getattr(melmask, name)).parameters) - {"progress", "num_workers"}:
        assert re.search(rf"\b{argument}\b", section + shared), f"{argument} of {name}"
