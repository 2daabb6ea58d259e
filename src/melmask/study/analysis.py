"""Differences between the arms of a study, paired by clip and by seed: intervals, p values, equivalence.

Two things are drawn at random: the seed of a run, which all tasks share, and the groups of test clips, of each task on
its own. Both are many or few in the same study: hundreds of groups, and three seeds. So groups are resampled, and the
spread of seeds, of which three values tell little, is drawn from its fiducial distribution: a mixed bootstrap. What
seeds and clips do together is in both, and is counted once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float, Int16

from melmask.evaluation.bootstrap import MAX_WEIGHTS
from melmask.study.answers import Answers
from melmask.study.findings import LEVEL, Difference, adjusted

NUM_DRAWS = 10_000
Z_POWER = 0.8416  # of a normal distribution, exceeded with the probability .2: power of 80 %
Tasks = Literal["fixed", "resampled"]
CellName = tuple[str, str]  # its group and arm
Pair = tuple[CellName, CellName | None]  # a cell minus another, or its score alone


@dataclass(frozen=True, eq=False)
class Draws:
    """Differences of two arms, and what they could have been.

    Args:
        value: the difference in each scope.
        resampled: of the mixed bootstrap, in each scope.
        variance: of each difference.
    """

    value: Float[np.ndarray, " scope"]
    resampled: Float[np.ndarray, "scope draw"]
    variance: Float[np.ndarray, " scope"]

    def interval(self, scope: int) -> tuple[float, float]:
        """The ends of the 95 % interval in one scope: percentiles of the draws."""
        low, high = np.quantile(self.resampled[scope], [LEVEL / 2, 1 - LEVEL / 2])
        return float(low), float(high)


@dataclass(frozen=True, eq=False)
class Compared:
    """One cell minus another in every scope of the answers, or one cell's score.

    Args:
        draws: of the difference.
        num_seeds: pairs of runs.
    """

    draws: Draws
    num_seeds: int


def draw_differences(
    differences: Sequence[Float[np.ndarray, "seed _group"]],
    weights: Sequence[Float[np.ndarray, " _group"]],
    scopes: Sequence[Sequence[int]],
    *,
    tasks: Tasks = "fixed",
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
    clips: Float[np.ndarray, "task draw"] | None = None,
) -> Draws:
    """The mixed bootstrap of the difference of two arms.

    With d the difference of a scope, averaged over its tasks and over S seeds, each draw is d + clips + seeds:

    - clips: the deviation of d where as many groups as there are of each task are drawn with replacement, scaled by
      sqrt(G / (G - 1)). Its variance is that of groups and of seeds x groups.
    - seeds: normal, of the variance max(V - E, 0) (S - 1) / chi2, where V is the variance of d over seeds, E the part
      of it that is seeds x groups, by moments, and chi2 is drawn with S - 1 degrees of freedom.
    - with tasks "resampled", the same for tasks, without what groups and seeds x tasks contribute to their variance:
      the interval then is for other tasks of the kind, and not for these.

    The draws of clips and seeds are the same for all scopes, and for all calls with equal groups and the same seed.

    Args:
        differences: of each task, the arm's right answers minus the baseline's, of every pair of runs and in every
            group of clips, see `TaskAnswers`.
        weights: of each task's groups.
        scopes: numbers of the tasks that are averaged.
        tasks: whether they are the ones that matter, or a sample of such tasks.
        num_draws: resamples.
        seed: of the draws.
        clips: deviations by the choice of groups, where they are drawn already; see `compare_cells`.

    Source: groups, Field & Welsh (2007), and the scale, Rao & Wu (1988); the variance components of crossed factors,
    Searle, Casella & McCulloch (1992), "Variance Components"; their fiducial draws, Weerahandi (1993), "Generalized
    confidence intervals". It is the design of several readers and several cases of Dorfman, Berbaum & Metz (1992).
    """
    num_seeds, num_tasks = len(differences[0]), len(differences)
    rng = np.random.default_rng([seed, 1])
    pairs = list(zip(differences, weights, strict=True))
    by_seed = np.stack([d.sum(axis=1) / w.sum() for d, w in pairs])
    if clips is None:
        clips = _draw_clips([differences], weights, num_draws, seed)[0]
    parts = [group_variances(d, w) for d, w in pairs]
    of_groups, of_both = (np.array(values) for values in zip(*parts, strict=True))
    noise = rng.standard_normal((num_draws, max(num_seeds, num_tasks)))
    chance = rng.standard_normal(num_draws)
    spread = _scale(num_seeds - 1, num_draws, rng)

    values, drawn, variances = [], [], []
    for scope in scopes:
        rows, size = list(scope), len(scope)
        of_seed = by_seed[rows].mean(axis=0)
        deviation, groups, both = (
            of_seed - of_seed.mean(),
            of_groups[rows].sum() / size**2,
            of_both[rows].sum() / size**2,
        )
        one, variance = of_seed.mean() + clips[rows].mean(axis=0), groups
        if num_seeds > 1:
            seeds = (deviation**2).sum() / (num_seeds * (num_seeds - 1))
            length = np.sqrt((deviation**2).sum()) or 1.0
            one = one + noise[:, :num_seeds] @ deviation / length * np.sqrt(max(seeds - both, 0) * spread)
            variance += max(seeds - both, 0)
        if tasks == "resampled" and size > 1:
            of_tasks = _of_tasks(by_seed[rows], groups, both)
            scale = _scale(size - 1, num_draws, np.random.default_rng([seed, 2]))
            one = one + chance * np.sqrt(max(of_tasks[0] - of_tasks[1], 0) * scale)
            variance += max(of_tasks[0] - of_tasks[1], 0)
        values.append(of_seed.mean())
        drawn.append(one)
        variances.append(variance)
    return Draws(np.array(values), np.stack(drawn), np.array(variances))


def _draw_clips(
    several: Sequence[Sequence[Float[np.ndarray, "_seed _group"]]],
    weights: Sequence[Float[np.ndarray, " _group"]],
    num_draws: int,
    seed: int,
) -> Float[np.ndarray, "difference task draw"]:
    """Deviations of differences where the groups of each task are drawn with replacement, the same ones for all."""
    drawn = np.zeros((len(several), len(weights), num_draws))
    chosen = _groups(tuple(map(len, weights)), num_draws, seed)
    for number, weight in enumerate(weights):
        num_groups = len(weight)
        if num_groups < 2:
            continue
        means, chunk = [one[number].mean(axis=0) for one in several], max(1, MAX_WEIGHTS // num_groups)
        for start in range(0, num_draws, chunk):
            counts = chosen[number][start : start + chunk].astype(float)
            whole = counts @ weight
            for row, mean in enumerate(means):
                deviation = counts @ mean / whole - mean.sum() / weight.sum()
                drawn[row, number, start : start + chunk] = np.sqrt(num_groups / (num_groups - 1)) * deviation
    return drawn


@lru_cache(maxsize=1)  # as a report compares many pairs on the same tasks
def _groups(sizes: tuple[int, ...], num_draws: int, seed: int) -> list[Int16[np.ndarray, "draw _group"]]:
    """How often each group of each task is drawn; nothing for a task of one group."""
    rng, drawn = np.random.default_rng([seed, 0]), []
    for size in sizes:
        counts, chunk = np.empty((num_draws if size > 1 else 0, size), np.int16), max(1, MAX_WEIGHTS // size)
        for start in range(0, len(counts), chunk):
            part = counts[start : start + chunk]
            part[:] = rng.multinomial(size, np.full(size, 1 / size), size=len(part))
        drawn.append(counts)
    return drawn


def group_variances(
    difference: Float[np.ndarray, "seed group"], weight: Float[np.ndarray, " group"]
) -> tuple[float, float]:
    """What groups contribute to the variance of a task's difference, and the part of it that is seeds x groups."""
    num_seeds, num_groups = difference.shape
    if num_groups < 2:
        return 0.0, 0.0
    score = difference.sum(axis=1, keepdims=True) / weight.sum()
    influence = (difference - weight * score) / weight.sum()  # of each group on the score of each seed
    scale = num_groups / (num_groups - 1)
    both = influence.var(axis=0, ddof=1).sum() / num_seeds if num_seeds > 1 else 0.0
    return scale * float((influence.mean(axis=0) ** 2).sum()), scale * float(both)


def _of_tasks(by_seed: Float[np.ndarray, "task seed"], groups: float, both: float) -> tuple[float, float]:
    """The variance of the mean over tasks, and the part of it that is not the tasks' own."""
    num_tasks, num_seeds = by_seed.shape
    whole = float(by_seed.mean(axis=1).var(ddof=1)) / num_tasks
    if num_seeds < 2:
        return whole, groups
    rest = by_seed - by_seed.mean(axis=1, keepdims=True) - by_seed.mean(axis=0) + by_seed.mean()
    crossed = float((rest**2).sum()) / ((num_seeds - 1) * (num_tasks - 1) * num_seeds * num_tasks)
    return whole, groups + max(crossed - both, 0.0)


def _scale(freedom: int, num_draws: int, rng: np.random.Generator) -> Float[np.ndarray, " draw"]:
    """True over estimated variance, drawn for an estimate of that many degrees of freedom."""
    return freedom / rng.chisquare(freedom, num_draws) if freedom > 0 else np.zeros(num_draws)


def analyse(
    answers: Answers,
    baseline: str,
    margin: float,
    *,
    tasks: Tasks = "fixed",
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
) -> list[Difference]:
    """Compare every arm with the baseline of its group, in every scope.

    Only seeds of which both runs are complete are compared. The margin is the study's, fixed before it is run.

    Args:
        answers: of one probe.
        baseline: the arm.
        margin: of equivalence.
        tasks, num_draws, seed: see `draw_differences`.

    Source: percentile intervals, Efron & Tibshirani (1993); two one-sided tests, Schuirmann (1987).
    """
    pairs: list[Pair] = [(cell, (cell[0], baseline)) for cell in answers.cells if cell[1] != baseline]
    compared = compare_cells(answers, pairs, tasks=tasks, num_draws=num_draws, seed=seed)
    return adjusted(differences_of(answers, compared, margin), len(pairs))


def compare_cells(
    answers: Answers, pairs: Sequence[Pair], *, tasks: Tasks = "fixed", num_draws: int = NUM_DRAWS, seed: int = 0
) -> dict[Pair, Compared]:
    """The draws of each difference of two cells, or of a cell's own score, in every scope; without those of no run.

    Args:
        answers: of one probe.
        pairs: the cells.
        tasks, num_draws, seed: see `draw_differences`.
    """
    scopes, weights = list(answers.scopes().values()), [task.weight for task in answers.tasks]
    differences = {pair: found for pair in pairs if (found := _in_pairs(answers, pair))}
    clips = _draw_clips(list(differences.values()), weights, num_draws, seed)
    return {
        pair: Compared(
            draw_differences(found, weights, scopes, tasks=tasks, num_draws=num_draws, seed=seed, clips=own),
            len(found[0]),
        )
        for (pair, found), own in zip(differences.items(), clips, strict=True)
    }


def _in_pairs(answers: Answers, pair: Pair) -> list[Float[np.ndarray, "seed _group"]]:
    """Of each task the difference of two cells, for the seeds of which both runs are complete; empty without any."""
    rows = [answers.number(*cell) for cell in pair if cell is not None]
    complete = np.all([np.isfinite(task.scores[rows]).all(axis=0) for task in answers.tasks], axis=0)
    if not complete.any():
        return []
    return [(task.right[rows[0]] - (task.right[rows[1]] if rows[1:] else 0.0))[complete] for task in answers.tasks]


def differences_of(answers: Answers, compared: Mapping[Pair, Compared], margin: float) -> list[Difference]:
    """What the draws of pairs say in every scope, before p values are adjusted; see `adjusted`.

    A baseline of another group is named with its group.
    """
    scopes, found = answers.scopes(), []
    for (cell, other), one in compared.items():
        assert other is not None
        for number, (scope, rows) in enumerate(scopes.items()):
            found.append(
                _difference(
                    one.draws, number, margin, group=cell[0], arm=cell[1],
                    baseline=other[1] if other[0] == cell[0] else " ".join(other), probe=answers.probe, scope=scope,
                    num_seeds=one.num_seeds, num_tasks=len(rows),
                    num_groups=min(len(answers.tasks[row].weight) for row in rows),
                )
            )  # fmt: skip
    return found


def _difference(drawn: Draws, number: int, margin: float, **named: object) -> Difference:
    """One scope of the draws, with its interval and p values; those of Holm are set later."""
    resampled, value = drawn.resampled[number], float(drawn.value[number])
    low, high = drawn.interval(number)
    worse, better = _share(resampled <= -margin), _share(resampled >= margin)
    p_value = min(1.0, 2 * min(_share(resampled <= 0), _share(resampled >= 0)))
    return Difference(
        value=value,
        low=low,
        high=high,
        p_value=p_value,
        p_holm=p_value,
        p_not_worse=worse,
        p_equivalent=max(worse, better),
        margin=margin,
        smallest=(high - low) / 2 + Z_POWER * float(np.sqrt(drawn.variance[number])),
        **named,  # type: ignore[arg-type]
    )


def _share(happened: np.ndarray) -> float:
    """The share of draws in which something happened; never 0, as there could have been one more.

    Source: Davison & Hinkley (1997), "Bootstrap Methods and their Application", (4.11).
    """
    return float((happened.sum() + 1) / (len(happened) + 1))
