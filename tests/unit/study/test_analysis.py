"""The analysis of studies: on simulated ones with known effects its intervals cover, and its tests do not cry wolf."""

import numpy as np
import pytest

from melmask.study.analysis import analyse, draw_differences
from melmask.study.findings import adjusted, holm
from studies import Truth


def share_missed(truth: Truth, num_studies: int, tasks: str = "fixed", num_draws: int = 400) -> float:
    """Of simulated studies, the share in which the 95 % interval misses the effect."""
    missed = 0
    for number in range(num_studies):
        made = truth.differences(np.random.default_rng([7, number]))
        drawn = draw_differences(
            made, truth.weights, [range(truth.num_tasks)], tasks=tasks, num_draws=num_draws, seed=number
        )
        low, high = np.quantile(drawn.resampled[0], [0.025, 0.975])
        missed += not low <= truth.effect <= high
    return missed / num_studies


SIMULATED = {
    "seeds": (Truth(effect=0.02, seeds=0.02, groups=0.05, both=0.05), "fixed"),
    "groups": (Truth(seeds=0.0), "fixed"),
    "both": (Truth(seeds=0.0, groups=0.01, both=0.2), "fixed"),
    "five seeds": (Truth(num_seeds=5), "fixed"),
    "seeds by tasks": (Truth(seeds=0.005, seeds_tasks=0.03), "fixed"),
    "tasks": (Truth(effect=-0.01, tasks=0.02), "resampled"),
}


@pytest.mark.parametrize("name", ["seeds", "both", "tasks"])
def test_intervals_cover_and_false_alarms_are_rare(name):
    truth, tasks = SIMULATED[name]
    # Five in a hundred are to be missed; four standard deviations of a binomial share of 120 more are allowed.
    assert share_missed(truth, 120, tasks, 200) <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / 120)


@pytest.mark.slow
@pytest.mark.parametrize("name", SIMULATED)
def test_intervals_cover_as_often_as_stated(name):
    truth, tasks = SIMULATED[name]
    assert abs(share_missed(truth, 1000, tasks, 1000) - 0.05) <= 0.015 + 3 * np.sqrt(0.05 * 0.95 / 1000)


def test_the_variance_is_that_of_repeated_studies():
    truth = Truth(seeds=0.01, seeds_tasks=0.01, num_seeds=4)
    made = [truth.differences(np.random.default_rng([3, number])) for number in range(300)]
    values = [np.mean([one.mean() for one in tasks]) for tasks in made]
    stated = [draw_differences(one, truth.weights, [range(4)], num_draws=2).variance[0] for one in made]
    assert np.mean(stated) == pytest.approx(np.var(values), rel=0.3)
    exact = truth.seeds**2 / 4 + truth.seeds_tasks**2 / 16 + (truth.groups**2 + truth.both**2 / 4) / 160
    assert np.mean(stated) == pytest.approx(exact, rel=0.15)


def test_arms_are_judged_against_the_baseline():
    rng = np.random.default_rng(0)
    clear = Truth(effect=0.05, seeds=0.001, groups=0.02, both=0.02)
    found = analyse(clear.answers(rng, arms=2, kinds=("events", "other")), "random", 0.01, num_draws=2000)
    scopes = ["all tasks", "event tasks", "other tasks", "task0", "task1", "task2", "task3"]
    assert [one.scope for one in found] == 2 * scopes and {one.arm for one in found} == {"arm0", "arm1"}
    for one in found:
        assert one.low < one.value < one.high and one.finding == "better" and one.low > 0
        assert one.p_value <= one.p_holm and one.p_not_worse < 0.05 < one.p_equivalent
    assert ("better" in found[0].sentence and "+5" in found[0].sentence) or "+4" in found[0].sentence
    # No difference, and little that could hide one: equivalent. A lot that could: undecided, and it says how much.
    same = analyse(Truth(seeds=0.0005, groups=0.01, both=0.01).answers(rng), "random", 0.02, num_draws=2000)[0]
    assert same.finding == "equivalent" and same.smallest < 0.02
    hazy = analyse(Truth(seeds=0.05).answers(rng), "random", 0.01, num_draws=2000)[0]
    assert hazy.finding == "open" and hazy.smallest > 0.05 and "would have been found" in hazy.sentence
    # An arm that is the baseline itself: no difference at all, and no p value but 1.
    answers = Truth().answers(rng)
    for task in answers.tasks:
        task.right[1] = task.right[0]
    none = analyse(answers, "random", 0.01, num_draws=200)[0]
    assert none.value == none.low == none.high == 0 and none.p_value == 1


def test_one_seed_decides_nothing():
    truth = Truth(num_seeds=2, effect=0.2, seeds=0.001, groups=0.01, both=0.01)
    answers = truth.answers(np.random.default_rng(0))
    assert analyse(answers, "random", 0.01, num_draws=500)[0].finding == "better"
    for task in answers.tasks:
        task.right[1, 1] = np.nan
    one = analyse(answers, "random", 0.01, num_draws=500)[0]
    assert one.p_holm < 0.05 and one.finding == "open" and "1 seed says nothing of other seeds" in one.sentence


def test_seeds_are_compared_only_in_pairs():
    answers = Truth(num_seeds=3).answers(np.random.default_rng(1))
    answers.tasks[2].right[1, 0] = np.nan  # one run lacks one task
    assert {one.num_seeds for one in analyse(answers, "random", 0.01, num_draws=100)} == {2}
    for task in answers.tasks:
        task.right[1] = np.nan
    assert analyse(answers, "random", 0.01, num_draws=100) == []


def test_an_incomplete_grid_is_adjusted_for_all_that_is_planned():
    truth = Truth(effect=0.02, seeds=0.001, groups=0.02, both=0.02)
    answers = truth.answers(np.random.default_rng(0), arms=4, kinds=("events", "other"))
    whole = {(one.arm, one.scope): one for one in analyse(answers, "random", 0.01, num_draws=400)}
    for task in answers.tasks:
        task.right[3:] = np.nan  # arm2 and arm3 are not trained yet
    part = analyse(answers, "random", 0.01, num_draws=400)
    assert {one.arm for one in part} == {"arm0", "arm1"}
    for is_mean, num_scopes in ((True, 3), (False, len(answers.tasks))):
        rows = [one for one in part if one.scope.endswith("tasks") == is_mean]
        assert len(rows) == 2 * num_scopes
        assert [one.p_holm for one in rows] == holm([one.p_value for one in rows], 4 * num_scopes)
        assert min(one.p_holm for one in rows) >= 4 * num_scopes * min(one.p_value for one in rows)
    assert all(one.p_value == whole[one.arm, one.scope].p_value for one in part)


def test_holm_is_that_of_the_books():
    assert holm([0.01, 0.02, 0.03, 0.04]) == [0.04, 0.06, 0.06, 0.06]
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == [] == holm([], 5)
    assert holm([0.01, 0.001], 42) == holm([0.01, 0.001] + 40 * [1.0])[:2] == pytest.approx([0.41, 0.042])
    found = analyse(Truth().answers(np.random.default_rng(2), arms=3), "random", 0.01, num_draws=300)
    means = [one for one in found if one.scope == "all tasks"]
    assert [one.p_holm for one in means] == holm([one.p_value for one in means])
    assert adjusted(found, 3) == found
