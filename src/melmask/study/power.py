"""Power: from a pilot's variances the smallest difference that a design can see, and the design that sees most.

The variance of a difference, averaged over T tasks of G groups each and over S seeds, is

    seeds / S + seeds_tasks / (S T) + (groups / G + both / (S G)) / T

and + tasks / T where the tasks are a sample. Its parts are estimated by moments from a pilot, which need not be large;
a component that comes out negative counts as 0.

Few seeds give wide intervals, whose width varies from study to study: the power of a design is that of the analysis'
own intervals (`melmask.study.analysis.draw_differences`), over simulated estimates of the variance components.

Source: Searle, Casella & McCulloch (1992), "Variance Components", ch. 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from melmask.study.analysis import Tasks, group_variances
from melmask.study.answers import Answers
from melmask.study.findings import LEVEL

POWER = 0.8
NUM_HALVINGS = 30


@dataclass(frozen=True)
class Components:
    """Variances of the difference of two arms' scores, of one unit of each kind.

    Args:
        seeds: over seeds, alike on all tasks.
        seeds_tasks: over seeds, different on every task.
        groups: over groups of clips, alike for all seeds.
        both: over groups, different for every seed.
        tasks: over tasks.
        num_groups: mean number of groups of a task's test clips, over all folds that the pilot tested on.
        num_pairs: of arms with their baselines, over which the components are averaged.
    """

    seeds: float
    seeds_tasks: float
    groups: float
    both: float
    tasks: float
    num_groups: float
    num_pairs: int


@dataclass(frozen=True)
class Design:
    """A study that could be run.

    Args:
        num_seeds: of each cell.
        num_tasks: that every run is evaluated on.
        folds: share of the folds that are tested on, in (0, 1].
        smallest: the smallest difference that it finds with a power of 80 %, at the level of 5 %, two-sided.
        hours: that it takes; 0 if not known.
    """

    num_seeds: int
    num_tasks: int
    folds: float
    smallest: float
    hours: float = 0.0


def components_of(answers: Answers, baseline: str) -> Components:
    """The variance components of a finished study or a pilot, averaged over all pairs of an arm and its baseline.

    Args:
        answers: of one probe, with at least two seeds; runs that are missing are left out.
        baseline: the arm that the others are compared with.

    Raises:
        ValueError: no pair of arms has two seeds.
    """
    found = []
    weights = [task.weight for task in answers.tasks]
    for group, arm in answers.cells:
        first, second = answers.number(group, arm), answers.number(group, baseline)
        complete = np.all([np.isfinite(task.scores[[first, second]]).all(axis=0) for task in answers.tasks], axis=0)
        if arm != baseline and complete.sum() >= 2:
            found.append(
                _components([(task.right[first] - task.right[second])[complete] for task in answers.tasks], weights)
            )
    if not found:
        raise ValueError("a pilot needs two seeds or more of an arm and of its baseline: their spread cannot be told")
    seeds, seeds_tasks, groups, both, tasks = np.maximum(np.mean(found, axis=0), 0.0).tolist()
    mean_groups = float(np.mean([len(weight) for weight in weights]))
    return Components(seeds, seeds_tasks, groups, both, tasks, mean_groups, len(found))


def _components(
    differences: Sequence[Float[np.ndarray, "seed _group"]], weights: Sequence[Float[np.ndarray, " _group"]]
) -> tuple[float, float, float, float, float]:
    """Of one pair of arms, before negative ones are cut: seeds, seeds x tasks, groups, both, tasks."""
    num_tasks, num_seeds = len(differences), len(differences[0])
    by_seed = np.stack([d.sum(axis=1) / w.sum() for d, w in zip(differences, weights, strict=True)])
    parts = np.array([group_variances(d, w) for d, w in zip(differences, weights, strict=True)])
    num_groups = np.array([len(weight) for weight in weights])
    both = float((parts[:, 1] * num_groups * num_seeds).mean())
    groups = float(((parts[:, 0] - parts[:, 1]) * num_groups).mean())
    clips = float(parts[:, 1].mean()) * num_seeds  # of the score of one seed on one task
    if num_tasks < 2:
        return float(by_seed.var(ddof=1)) - clips, 0.0, groups, both, 0.0
    rest = by_seed - by_seed.mean(axis=1, keepdims=True) - by_seed.mean(axis=0) + by_seed.mean()
    crossed = float((rest**2).sum()) / ((num_seeds - 1) * (num_tasks - 1))
    seeds = float(by_seed.mean(axis=0).var(ddof=1)) - crossed / num_tasks
    tasks = float(by_seed.mean(axis=1).var(ddof=1)) - crossed / num_seeds - float((parts[:, 0] - parts[:, 1]).mean())
    return seeds, crossed - clips, groups, both, tasks


def smallest_difference(
    found: Components, num_seeds: int, num_tasks: int, folds: float = 1.0, *, tasks: Tasks = "fixed"
) -> float:
    """The smallest true difference that a design finds with a power of 80 %, at the level of 5 %, two-sided.

    Args:
        found: the components of a pilot.
        num_seeds: at least 2, as one says nothing of others.
        num_tasks: at least 1, or 2 where they are resampled.
        folds: share of the folds, and so of the groups, that are tested on.
        tasks: whether they are the ones that matter, or a sample.

    Raises:
        ValueError: there are too few, or the share is not in (0, 1].

    >>> pilot = Components(1e-4, 0.0, 0.01, 0.01, 0.0, num_groups=40.0, num_pairs=1)
    >>> round(smallest_difference(pilot, 3, 4), 3), round(smallest_difference(pilot, 10, 4), 3)
    (0.043, 0.024)
    """
    from scipy.stats import norm  # here, as it takes half a second to import

    if num_seeds < 2 or num_tasks < (2 if tasks == "resampled" else 1) or not 0.0 < folds <= 1.0:
        raise ValueError(f"no design of {num_seeds} seeds, {num_tasks} tasks and {folds} of the folds: too few")
    num_groups = max(found.num_groups * folds, 1.0)
    crossed, both = found.seeds_tasks / (num_seeds * num_tasks), found.both / (num_seeds * num_groups * num_tasks)
    clips = found.groups / (num_groups * num_tasks) + both
    parts = [(found.seeds / num_seeds + crossed, both, num_seeds - 1)]
    if tasks == "resampled":
        parts.append((found.tasks / num_tasks, clips + crossed, num_tasks - 1))
    variance = clips + sum(own for own, _, _ in parts)
    if variance == 0.0:
        return 0.0
    half = _half_widths(clips, parts)
    low, high = 0.0, float(half.max()) + 6 * np.sqrt(variance)
    for _ in range(NUM_HALVINGS):
        middle = (low + high) / 2
        power = norm.cdf((middle - half) / np.sqrt(variance)).mean()
        low, high = (low, middle) if power > POWER else (middle, high)
    return float(high)


def _half_widths(
    clips: float, parts: Sequence[tuple[float, float, int]], num_studies: int = 200, num_draws: int = 1000
) -> Float[np.ndarray, " study"]:
    """Half the width of the mixed bootstrap's interval, in simulated studies of one design.

    Args:
        clips: variance of the difference by groups of clips.
        parts: of seeds, and of tasks: their own variance, what else is in its estimate, and degrees of freedom.
        num_studies: simulated.
        num_draws: of each interval.
    """
    rng = np.random.default_rng(0)
    drawn = np.sqrt(clips) * rng.standard_normal(num_draws)[None]
    for own, rest, freedom in parts:
        estimated = (own + rest) * rng.chisquare(freedom, num_studies) / freedom - rest
        noise = rng.standard_normal(num_draws) * np.sqrt(freedom / rng.chisquare(freedom, num_draws))
        drawn = drawn + np.sqrt(np.maximum(estimated, 0))[:, None] * noise
    return np.asarray(np.quantile(np.abs(drawn), 1 - LEVEL, axis=1))


def best_designs(
    found: Components,
    *,
    num_cells: int,
    run_hours: float,
    task_hours: float,
    budget_hours: float,
    max_tasks: int,
    max_seeds: int = 20,
    shares: Sequence[float] = (0.2, 0.4, 0.6, 0.8, 1.0),
    tasks: Tasks = "fixed",
) -> list[Design]:
    """The designs that fit a budget, the one that sees most first.

    Args:
        found: the components of a pilot.
        num_cells: that are trained with every seed.
        run_hours: of one training.
        task_hours: of the evaluation of one run on one task, over all of its folds.
        budget_hours: of all.
        max_tasks: that there are.
        max_seeds: that are considered.
        shares: of the folds that are considered.
        tasks: see `smallest_difference`.

    Raises:
        ValueError: not even two seeds on the fewest tasks fit.
    """
    fewest = 2 if tasks == "resampled" else 1
    designs = []
    for num_seeds in range(2, max_seeds + 1):
        for num_tasks in range(fewest, max_tasks + 1):
            for share in shares:
                hours = num_cells * num_seeds * (run_hours + task_hours * num_tasks * share)
                if hours <= budget_hours:
                    smallest = smallest_difference(found, num_seeds, num_tasks, share, tasks=tasks)
                    designs.append(Design(num_seeds, num_tasks, share, smallest, hours))
    if not designs:
        least = num_cells * 2 * (run_hours + task_hours * fewest * min(shares))
        raise ValueError(
            f"two seeds of {num_cells} cells take {least:.1f} h at least, the budget is {budget_hours:g} h"
        )
    return sorted(designs, key=lambda one: (one.smallest, one.hours))
