"""Power: components are found again in simulated pilots, and a design sees what it says in four studies of five."""

import dataclasses

import numpy as np
import pytest

from melmask.study.analysis import analyse
from melmask.study.power import Components, best_designs, components_of, smallest_difference
from studies import Truth

TRUTH = Truth(seeds=0.02, seeds_tasks=0.02, groups=0.1, both=0.15, tasks=0.03, num_seeds=4, num_tasks=5)


def test_components_are_found_again():
    made = [components_of(TRUTH.answers(np.random.default_rng([1, i]), arms=4), "random") for i in range(40)]
    mean = np.mean([dataclasses.astuple(one) for one in made], axis=0)
    stated = [TRUTH.seeds**2, TRUTH.seeds_tasks**2, TRUTH.groups**2, TRUTH.both**2, TRUTH.tasks**2]
    assert mean[:5] == pytest.approx(stated, rel=0.25) and mean[5] == 40 and mean[6] == 4
    with pytest.raises(ValueError, match="two seeds"):
        components_of(Truth(num_seeds=1).answers(np.random.default_rng(0)), "random")


def share_found(num_seeds: int, num_studies: int) -> float:
    """Of studies of the smallest difference that their design can see, the share that finds it."""
    truth = dataclasses.replace(TRUTH, num_seeds=num_seeds, tasks=0.0)
    variances = [truth.seeds**2, truth.seeds_tasks**2, truth.groups**2, truth.both**2, 0.0]
    effect = smallest_difference(Components(*variances, num_groups=40.0, num_pairs=1), num_seeds, truth.num_tasks)
    truth, found = dataclasses.replace(truth, effect=effect), 0
    for number in range(num_studies):
        made = analyse(truth.answers(np.random.default_rng([5, number])), "random", 0.01, num_draws=400, seed=number)
        found += made[0].p_value < 0.05
    return found / num_studies


def test_a_design_sees_what_it_says():
    assert abs(share_found(5, 60) - 0.8) <= 0.05 + 3 * np.sqrt(0.8 * 0.2 / 60)


@pytest.mark.slow
@pytest.mark.parametrize("num_seeds", [3, 5, 10])
def test_designs_see_what_they_say(num_seeds):
    assert abs(share_found(num_seeds, 400) - 0.8) <= 0.05 + 3 * np.sqrt(0.8 * 0.2 / 400)


def test_the_best_design_fits_the_budget():
    pilot = Components(4e-4, 1e-4, 0.01, 0.02, 1e-3, num_groups=50.0, num_pairs=3)
    cost = {"num_cells": 8, "run_hours": 0.2, "task_hours": 0.01, "max_tasks": 6, "max_seeds": 12, "shares": (0.2, 1.0)}
    small, large = (best_designs(pilot, budget_hours=float(hours), **cost) for hours in (5, 20))
    assert all(one.hours <= 5 for one in small) and large[0].smallest < small[0].smallest == min(
        s.smallest for s in small
    )
    assert large[0].num_seeds > small[0].num_seeds and large[0].num_tasks >= 5 and large[0].folds == 1.0
    resampled = smallest_difference(pilot, 3, 6, tasks="resampled")
    assert resampled > smallest_difference(pilot, 3, 6) > smallest_difference(pilot, 4, 6)
    with pytest.raises(ValueError, match=r"3\.2 h at least"):
        best_designs(pilot, budget_hours=1.0, **cost)
    with pytest.raises(ValueError, match="too few"):
        smallest_difference(pilot, 1, 6)
