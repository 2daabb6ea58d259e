"""The benchmark of masks: its obvious forms draw by the same laws as ours, and what it writes is what it measured.

Every statistical test would fail by chance for one seed in 10,000; the seeds are fixed, so none flickers.
"""

import dataclasses
import importlib
import json
import math
from pathlib import Path

import pytest
import torch
from scipy import stats

from melmask.masking import STRATEGIES, draw
from melmask.masking.dispersion import dispersion
from melmask.masking.laws import inclusion_probabilities, with_hints_probabilities
from melmask.patches import patchify
from melmask.train.recipe import RECIPES
from melmask.types import Mask, PatchGrid

FALSE_ALARM = 1e-4
SMALL = PatchGrid(2, 3)
BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def masking(monkeypatch):
    """The script, as a module."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("masking")


@pytest.fixture
def toy(masking, monkeypatch):
    """The script at sizes that take no time."""
    monkeypatch.setattr(masking, "GRID", SMALL)
    monkeypatch.setattr(masking, "BATCHES", (2, 3))
    monkeypatch.setattr(masking, "COPIED_BYTES", 1000)
    monkeypatch.setattr(masking, "QUICK_S", 0.001)
    for name in masking.STEP_BATCH:
        monkeypatch.setitem(masking.RECIPES, name, dataclasses.replace(RECIPES["micro-m2d"]))
    return masking


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def masked_at(mask: Mask) -> torch.Tensor:
    """One where a patch is masked, else zero [b, n]."""
    return torch.zeros(len(mask.masked), mask.num_patches, dtype=torch.float64).scatter_(1, mask.masked, 1.0)


def assert_partition(mask: Mask, num_masked: int) -> None:
    together = torch.cat([mask.visible, mask.masked], dim=1).sort(dim=1).values
    assert torch.equal(together, torch.arange(mask.num_patches).expand_as(together))
    assert mask.masked.shape[1] == num_masked
    assert (mask.masked.diff(dim=1) > 0).all() and (mask.visible.diff(dim=1) > 0).all()


@pytest.mark.parametrize("hint_ratio", [0.0, 0.5])
def test_the_obvious_dwm_draws_by_the_law_of_dwm(masking, hint_ratio):
    batch_size = 10_000
    log_mel = torch.randn(1, 32, 48, generator=seeded(1)) * torch.linspace(0.2, 3, 48)
    mask = masking.obvious_dwm(log_mel.expand(batch_size, -1, -1), 4, hint_ratio, seeded(2))
    assert_partition(mask, 4)
    weights = dispersion(patchify(log_mel, (16, 16)), "mad")[0]
    expected = with_hints_probabilities(inclusion_probabilities(weights, 4), 4, hint_ratio).double()
    # Bonferroni over the patches.
    off = (masked_at(mask).mean(dim=0) - expected) / (expected * (1 - expected) / batch_size).sqrt()
    assert 2 * stats.norm.sf(float(off.abs().max())) * SMALL.num_patches > FALSE_ALARM
    assert float((expected - 4 / 6).abs().max()) > 0.05  # what uniform masks would miss by ten deviations


@pytest.mark.parametrize("grid", [PatchGrid(5, 38), PatchGrid(9, 9)])
def test_the_obvious_ibm_draws_by_the_law_of_ibm(masking, grid):
    batch_size = 3000
    ours = draw("ibm", grid=grid, batch_size=batch_size, mask_ratio=0.7, rng=seeded(1))
    theirs = masking.obvious_ibm(batch_size, grid, ours.masked.shape[1], seeded(2))
    assert_partition(theirs, ours.masked.shape[1])
    share = torch.stack([masked_at(mask).mean(dim=0) for mask in (ours, theirs)])
    pooled = share.mean(dim=0)
    off = (share[0] - share[1]) / (2 * pooled * (1 - pooled) / batch_size).sqrt()
    assert 2 * stats.norm.sf(float(off.abs().max())) * grid.num_patches > FALSE_ALARM
    # Squares keep neighbours together, in both forms alike.
    together = [
        float((masked_at(mask).view(-1, grid.freq, grid.time).diff(dim=2) == 0).double().mean())
        for mask in (ours, theirs)
    ]
    assert abs(together[0] - together[1]) < 0.01 < min(together) - (0.7**2 + 0.3**2)


def test_rows_have_the_published_keys_for_every_strategy_and_batch(toy, tmp_path, capsys):
    toy.main(["--quick", "--json", str(tmp_path / "rows.json"), "--markdown", str(tmp_path / "page.md")])
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["batch"], row["strategy"]) for row in rows] == [
        (batch, name) for batch in (2, 3) for name in sorted(STRATEGIES, key=lambda name: name != "random")
    ]
    printed, page = capsys.readouterr().out, (tmp_path / "page.md").read_text()
    for row in rows:
        assert set(row) == {"strategy", "batch", "ms", "ratio_random", "ratio_baseline", "ratio_floor"}
        assert (row["ratio_baseline"] is not None) == (row["strategy"] in ("dwm", "ibm"))
        numbers = [value for value in row.values() if isinstance(value, float)]
        assert all(math.isfinite(value) and value > 0 for value in numbers)
        assert row["strategy"] in printed and f"\n| {row['strategy']} |" in page
    assert all(row["ratio_random"] == 1 for row in rows if row["strategy"] == "random")
    lines = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {len(toy.COLUMNS) + 1}


def test_ratios_are_taken_within_turns(toy):
    times = {"random": [1.0, 2.0, 4.0], "dwm": [3.0, 6.0], "obvious dwm": [30.0, 60.0], "copy": [0.5, 1.0, 2.0]}
    random, dwm = toy.rows_of(times, 2, SMALL, {"tiny-m2d": 2.0, "base-m2d": 8.0, "base-m2d pass": 1.0})
    assert (random.ms, random.min_ms, random.ratio_random) == (2000, 1000, 1)
    assert (dwm.ratio_random, dwm.ratio_baseline) == (3, 10)
    # The patches are 2 x 6 x 256 floats, the copied buffer 1,000 bytes.
    assert dwm.ratio_floor == pytest.approx(6 * 1000 / (2 * 6 * 256 * 4))
    assert (dwm.share_tiny, dwm.share_base, dwm.share_pass) == (4.5 / 4, 4.5 / 16, None)


def test_a_slow_call_takes_few_turns_and_a_quick_one_many(toy, monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr("timing.time.perf_counter", lambda: next(clock) / 1000)  # a call takes a millisecond
    calls = {"quick": lambda: None, "slow": lambda: [next(clock) for _ in range(99)]}
    times = toy.in_turns(calls, 0.03)
    assert times["quick"] == pytest.approx([0.001] * 10) and times["slow"] == pytest.approx([0.1] * 3)
