"""A probe from outside the package: by the call from Python, by the commands evaluate and compare, and in a report."""

import importlib
import re
import sys
from pathlib import Path

import pytest

from labelled import clusters
from melmask.cli.main import main
from melmask.evaluation.results import read_results
from melmask.evaluation.run import evaluate, run_probe
from melmask.probes import label_of, make_probe

TOY = '''"""The nearest class mean, on embeddings or on the quietest and loudest time steps."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from melmask.encoders.timesteps import TimeSteps
from melmask.probes.base import Probe


@dataclass(frozen=True)
class NearestMean(Probe):
    """Softmax of the negative distances to class means; the validation score chooses the power of the distance."""

    powers: tuple[float, ...] = (1.0, 2.0)
    noise: float = 0.0
    verbose: bool = False

    def __post_init__(self):
        if self.noise < 0:
            raise ValueError(f"noise must not be negative, got {self.noise}")

    def num_trainings(self, num_seeds):
        return num_seeds if self.noise else 1

    def notes(self, num_per_class, names):
        return [f"{name}: a mean of {num} clips" for name, num in zip(names, num_per_class) if self.verbose]

    def fit_predict(self, train_x, train_y, valid_x, valid_y, test_x, *, num_classes, multilabel, seed, score):
        assert not multilabel
        train_x, valid_x, test_x = (self.embed(x) for x in (train_x, valid_x, test_x))
        means = np.stack([train_x[train_y == label].mean(axis=0) for label in range(num_classes)])
        means = means + self.noise * np.random.default_rng(seed).standard_normal(means.shape)

        def predict(x, power):
            distance = np.linalg.norm(x[:, None] - means, axis=2) ** power
            likeness = np.exp(distance.min(axis=1, keepdims=True) - distance)
            return (likeness / likeness.sum(axis=1, keepdims=True)).astype(np.float32)

        best = max(self.powers, key=lambda power: score(valid_y, predict(valid_x, power)))
        return predict(test_x, best)

    def embed(self, x):
        return x


class Extremes(NearestMean):
    reads: ClassVar[str] = "time steps"

    def embed(self, x):
        if not isinstance(x, TimeSteps):
            return x
        clips = [x.clip(number) for number in range(len(x))]
        return np.stack([np.concatenate([clip.min(axis=0), clip.max(axis=0)]) for clip in clips])


class Unfinished:
    """No probe."""
'''
NAME = "toy_probe:NearestMean"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with the probe's module, from which the command line is called."""
    (tmp_path / "toy_probe.py").write_text(TOY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path / "cache"))
    yield tmp_path
    sys.modules.pop("toy_probe", None)


def test_a_probe_from_outside_is_evaluated_by_the_call(recordings: Path) -> None:
    probes = ["ridge", NAME, f"{NAME}:noise=1", "toy_probe:Extremes:powers=2"]
    results = evaluate("untrained:micro", recordings, probes=probes, num_seeds=2, num_workers=0)
    assert [result.probe for result in results[:4]] == [
        "ridge", NAME, f"{NAME}:noise=1.0", "toy_probe:Extremes:powers=(2.0,)",
    ]  # fmt: skip
    assert [result.num_seeds for result in results[:4]] == [1, 1, 2, 1]
    assert results[1].encoder == results[3].encoder == "micro untrained" and results[1].num_dims == 5 * 32
    own = importlib.import_module("toy_probe").NearestMean((1.0,))
    [by_object] = evaluate("untrained:micro", recordings, probes=own, baselines=False, num_workers=0)
    [by_name] = evaluate("untrained:micro", recordings, probes=label_of(own), baselines=False, num_workers=0)
    assert by_object == by_name and by_name.probe == f"{NAME}:powers=(1.0,)"


def test_its_traits_are_what_it_says() -> None:
    features, task = clusters(spread=0.3)
    result = run_probe(f"{NAME}:verbose=True", features, task, test_folds=["1"], num_seeds=3)
    assert result.score.value > 0.97 and result.score.num_seeds == 1
    assert len([note for note in result.notes if note.startswith("fold 1: ") and "a mean of" in note]) == 3
    assert run_probe(f"{NAME}:noise=0.1", features, task, test_folds=["1"], num_seeds=3).score.num_seeds == 3


@pytest.mark.slow
def test_a_probe_from_outside_goes_the_whole_way_by_the_commands(recordings: Path, folder: Path, capsys) -> None:
    main(["prepare", str(recordings), "--out", "store", "--workers", "0"])
    main(["pretrain", "store", "--out", "run", "--recipe", "micro-msm-mae", "--steps", "4", "--batch-size", "4"])
    probes = ["--probe", "toy_probe:Extremes", f"{NAME}:noise=0.1", "--workers", "0"]
    main(["evaluate", "run", "--task", str(recordings), *probes, "--seeds", "2", "--details", "details"])
    assert NAME in capsys.readouterr().out
    kept = [(result.features, result.probe, result.num_seeds) for result in read_results(folder / "run")]
    assert kept == [
        (features, probe, seeds)
        for features in ("encoder", "untrained", "log-mel statistics")
        for probe, seeds in (("toy_probe:Extremes", 1), (f"{NAME}:noise=0.1", 2))
    ]
    assert len(list((folder / "details").iterdir())) == 6
    main(["compare", "run", "untrained-of:run", "--task", str(recordings), *probes])
    assert "toy_probe:Extremes" in capsys.readouterr().out
    main(["report", "run", "--out", "report"])
    assert f"{NAME}:noise=0.1" in (folder / "report" / "report.html").read_text()


def test_the_probe_in_the_docs_runs(folder: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    [code] = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "(Probe)" in block]
    [name] = re.findall(r"--probe (my_probes:\S+)", page)
    (folder / "my_probes.py").write_text(code)
    assert run_probe(name, *clusters(spread=0.3)).score.value > 0.97
    sys.modules.pop("my_probes", None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("toy_probe:Missing", "toy_probe.py defines no Missing"),
        ("toy_probes:NearestMean", "No module named 'toy_probes'"),
        ("toy_probe:Unfinished", "is not a probe: make it a subclass of melmask.probes.base.Probe"),
        (f"{NAME}:speed=2", r"has no setting 'speed': choose from \['noise', 'powers', 'verbose'\]"),
        (f"{NAME}:noise=-1.0", "noise must not be negative, got -1.0"),
        (f"{NAME}:noise='loud'", "noise='loud': give a number"),
        (f"{NAME}:verbose=2", "verbose=2: give True or False"),
    ],
)
def test_what_is_wrong_with_a_name_is_said_with_the_remedy(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_probe(name)
