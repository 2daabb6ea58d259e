"""A strategy, a framework and a probe of an installed package, by entry points: their names work as melmask's own."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from melmask.cli.main import main
from melmask.evaluation.results import read_results
from melmask.masking import make_strategy
from melmask.probes import label_of, make_probe
from melmask.train.recipe import RECIPES, Recipe

MODULE = '''"""A strategy, a framework and a probe."""

from dataclasses import dataclass

from melmask.frameworks import MSMMAE
from melmask.masking import MaskingStrategy
from melmask.masking.base import uniform
from melmask.probes import KnnProbe


@dataclass(frozen=True)
class LowBands(MaskingStrategy):
    """Masks low bands first."""

    pull: float = 2.0

    def priority(self, batch_size, grid, num_masked, rng, guide):
        noise = uniform((batch_size, grid.num_patches), rng)
        noise[:, : grid.time] += self.pull
        return noise


class Own(MSMMAE):
    """A framework of its own name."""


@dataclass(frozen=True)
class Nearest(KnnProbe):
    """One neighbour."""

    num_neighbours: int = 1
'''
ENTRY_POINTS = """[melmask.strategies]
low-bands = toy_package:LowBands
random = toy_package:LowBands
gone = toy_package:Gone

[melmask.frameworks]
own = toy_package:Own

[melmask.probes]
nearest = toy_package:Nearest
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package as pip leaves it: a module, and beside it the metadata of its distribution."""
    site = tmp_path / "site"
    metadata = site / "toy_package-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "toy_package.py").write_text(MODULE)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-package\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("toy_package", None)


@pytest.mark.slow
def test_names_of_an_installed_package_survive_resume_evaluation_and_report(
    store, recordings: Path, installed: Path, assert_resumes_to_the_bit
) -> None:
    short = ["--steps", "12", "--save-every", "6", "--log-every", "3", "--batch-size", "4"]
    (installed / "store").symlink_to(store.folder)
    settings = ["--recipe", "micro-msm-mae", "--framework", "own", "--strategy", "low-bands", *short]
    main(["pretrain", "store", "--out", "whole", *settings])
    recipe = Recipe.load(installed / "whole/recipe.json")
    assert (recipe.framework, recipe.strategy) == ("own", "low-bands")
    assert_resumes_to_the_bit(installed, recipe)
    probe = ["--probe", "nearest:temperature=0.1", "--no-baselines", "--workers", "0"]
    main(["evaluate", "whole", "--task", str(recordings), *probe])
    [result] = read_results(installed / "whole")
    assert result.probe == "toy_package:Nearest:temperature=0.1" == label_of(make_probe(result.probe))
    main(["report", "whole", "killed", "--out", "report"])
    assert "low-bands" in (installed / "report/report.html").read_text()


def test_a_package_replaces_no_name_and_its_faults_are_its_own(installed: Path) -> None:
    recipe = replace(RECIPES["micro-msm-mae"], framework="own", strategy="low-bands", strategy_options={"pull": 3.0})
    assert type(recipe.make_model()).__name__ == "Own" and recipe.make_strategy() == make_strategy(
        "low-bands", {"pull": 3}
    )
    assert label_of(make_probe("nearest:temperature=0.1")) == "toy_package:Nearest:temperature=0.1"
    assert type(make_strategy("random")).__name__ == "Random"
    with pytest.raises(ValueError, match=r"toy-package offers it as toy_package:Gone, which cannot be imported"):
        make_strategy("gone")
    with pytest.raises(ValueError, match=r"no masking strategy 'low-band': did you mean low-bands\?"):
        make_strategy("low-band")
    other = installed / "site/other-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (other / "entry_points.txt").write_text("[melmask.strategies]\nlow-bands = other:LowBands\n")
    with pytest.raises(ValueError, match="offered by several packages: name one of other:LowBands, toy_package:LowB"):
        make_strategy("low-bands")
