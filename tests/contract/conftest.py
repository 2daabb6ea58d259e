"""Every masking strategy with every choice of its options, so that one added later is held to the contract too."""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from scipy import stats

from melmask.masking import STRATEGIES, MaskingStrategy, make_strategy
from melmask.types import Mask, PatchGrid

FALSE_ALARM = 1e-4  # of every statistical test below, for a seed that is not fixed
Law = dict[frozenset[int], float]  # the probability of every masked set


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each strategy as it comes, and once more for every other value of an option that is a choice or a switch."""
    for name, kind in STRATEGIES.items():
        yield name, {}
        for field in fields(kind):
            hint = get_type_hints(kind)[field.name]
            choices = get_args(hint) if get_origin(hint) is Literal else (False, True) if hint is bool else ()
            yield from ((name, {field.name: choice}) for choice in choices if choice != field.default)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``strategy`` is every strategy, ``informed`` every one that looks at something, ``alone`` at its sample alone."""
    made = {"-".join([name, *(f"{k}={v}" for k, v in options.items())]): (name, options) for name, options in cases()}
    strategies = {case: make_strategy(*made[case]) for case in made}
    informed = {case: strategy for case, strategy in strategies.items() if strategy.needs.guide != "nothing"}
    # Band means of the batch are the one thing that a strategy may take from its neighbours.
    alone = {case: strategy for case, strategy in informed.items() if getattr(strategy, "bands", None) != "batch"}
    for argument, chosen in (("strategy", strategies), ("informed", informed), ("alone", alone)):
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, list(chosen.values()), ids=list(chosen))


@pytest.fixture(scope="session")
def guide_for():
    """A maker of random guides of the kind a strategy asks for, such as uneven patches or clustered features."""

    def guide_for(strategy: MaskingStrategy, batch_size: int, grid: PatchGrid, seed: int = 0) -> torch.Tensor | None:
        rng = torch.Generator().manual_seed(seed)
        shape = (batch_size, grid.num_patches)
        if strategy.needs.guide == "nothing":
            return None
        if strategy.needs.guide == "patches":
            return (
                torch.randn(*shape, math.prod(grid.patch), generator=rng) * torch.randn(*shape, 1, generator=rng).exp()
                - 1.0
            )
        if strategy.needs.guide == "attention":
            return torch.randn(*shape, 3, generator=rng).softmax(dim=1)
        if strategy.needs.guide == "loss":
            return torch.randn(*shape, 1, generator=rng).exp()
        towards = torch.where(torch.rand(*shape, 1, generator=rng) < 0.4, 1.0, -0.5)
        return torch.randn(*shape, 8, generator=rng) + towards * torch.randn(batch_size, 1, 8, generator=rng)

    return guide_for


@pytest.fixture(scope="session")
def successive_sampling_law() -> Callable[[list[float], int], Law]:
    """From weights and m: draw one after the other by weight, without replacement; of zeros alone, uniformly."""

    def successive_sampling_law(weights: list[float], num_masked: int) -> Law:
        law: Law = {frozenset(): 1.0}
        for _ in range(num_masked):
            longer: Law = defaultdict(float)
            for drawn, probability in law.items():
                left = [i for i in range(len(weights)) if i not in drawn]
                total = sum(weights[i] for i in left)
                for i in left:
                    longer[drawn | {i}] += probability * (weights[i] / total if total > 0 else 1 / len(left))
            law = dict(longer)
        return law

    return successive_sampling_law


@pytest.fixture(scope="session")
def hints_law() -> Callable[[Law, int, int], Law]:
    """From a law, N and u: a uniform subset S of M0 stays; as many as were given back come from all outside S."""

    def hints_law(law: Law, num_patches: int, num_hints: int) -> Law:
        after: Law = defaultdict(float)
        for chosen, probability in law.items():
            num_stay = len(chosen) - num_hints
            for stays in itertools.combinations(sorted(chosen), num_stay):
                outside = [i for i in range(num_patches) if i not in stays]
                ways = math.comb(len(chosen), num_stay) * math.comb(len(outside), num_hints)
                for back in itertools.combinations(outside, num_hints):
                    after[frozenset(stays + back)] += probability / ways
        return dict(after)

    return hints_law


@pytest.fixture(scope="session")
def assert_sets_follow() -> Callable[[Mask, Law], None]:
    """Chi-square on the counts of whole masked sets; sets too rare to be tested alone are tested together."""

    def assert_sets_follow(mask: Mask, law: Law) -> None:
        assert sum(law.values()) == pytest.approx(1.0, abs=1e-12)
        codes, counts = (1 << mask.masked).sum(dim=1).unique(return_counts=True)
        sets = (frozenset(i for i in range(mask.num_patches) if code >> i & 1) for code in codes.tolist())
        counted = dict(zip(sets, counts.tolist(), strict=True))
        assert counted.keys() <= {masked for masked, p in law.items() if p > 0}
        expected = np.array([p * len(mask.masked) for p in law.values()])
        observed = np.array([counted.get(masked, 0) for masked in law])
        rare = expected < 5
        if rare.any():
            expected = np.append(expected[~rare], max(expected[rare].sum(), 1e-9))
            observed = np.append(observed[~rare], observed[rare].sum())
        assert stats.chisquare(observed, expected).pvalue > FALSE_ALARM

    return assert_sets_follow


@pytest.fixture(scope="session")
def assert_marginals_follow() -> Callable[[Mask, np.ndarray], None]:
    """Hotelling's T² on the share of masks that mask each patch but the last, which follows from the others."""

    def assert_marginals_follow(mask: Mask, expected: np.ndarray) -> None:
        everywhere = torch.zeros(len(mask.masked), mask.num_patches, dtype=torch.float64)
        masked = everywhere.scatter_(1, mask.masked, 1.0).numpy()[:, :-1]
        assert masked.sum(axis=1).mean() == pytest.approx(expected[:-1].sum(), abs=0.05)
        num_masks, dim = masked.shape
        apart = masked.mean(axis=0) - expected[:-1]
        t_squared = num_masks * apart @ np.linalg.solve(np.cov(masked.T), apart)
        ratio = t_squared * (num_masks - dim) / (dim * (num_masks - 1))
        assert stats.f.sf(ratio, dim, num_masks - dim) > FALSE_ALARM

    return assert_marginals_follow
