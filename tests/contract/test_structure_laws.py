"""Structured masks on the smallest grids against their laws, enumerated: the probability of every whole set.

Every statistical test would fail by chance for one seed in 10,000 (FALSE_ALARM); the seeds are fixed, so none flickers.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
import torch
from scipy import stats

from melmask.masking import draw, make_strategy
from melmask.types import Mask, PatchGrid

pytestmark = pytest.mark.numerical

FALSE_ALARM = 1e-4
Cells = frozenset[int]
Law = dict[Cells, float]  # the probability of every chosen set


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(name: str, grid: PatchGrid, batch_size: int, mask_ratio: float, seed: int = 1, **options: object) -> Mask:
    strategy = make_strategy(name, options)
    return draw(strategy, grid=grid, batch_size=batch_size, mask_ratio=mask_ratio, rng=seeded(seed))


def rectangle(grid: PatchGrid, rows: Iterable[int], columns: Iterable[int]) -> Cells:
    """The cells of a rectangle, what hangs over the borders left out."""
    inside = itertools.product(set(rows) & set(range(grid.freq)), set(columns) & set(range(grid.time)))
    return frozenset(f * grid.time + t for f, t in inside)


def column(grid: PatchGrid, t: int) -> Cells:
    return rectangle(grid, range(grid.freq), [t % grid.time])


def row(grid: PatchGrid, f: int) -> Cells:
    return rectangle(grid, [f], range(grid.time))


def filled(chosen: Cells, steps: Sequence[Cells], count: int) -> tuple[Cells, Cells]:
    """What is chosen after whole steps, and of which cells the rest up to the count is a uniform choice."""
    for step in steps:
        if len(chosen | step) >= count:
            return chosen, step - chosen
        chosen |= step
    return chosen, frozenset()


def in_turn(shapes: Sequence[Sequence[Cells]], count: int) -> Law:
    """Uniformly drawn shapes join one after the other; of the step at the cut, as many cells as are wanted, by chance.

    A shape is a sequence of steps. One that adds nothing changes nothing, so the next is uniform among the others.
    """
    law: Law = defaultdict(float)
    pending: Law = {frozenset(): 1.0}
    while pending:
        longer: Law = defaultdict(float)
        for chosen, probability in pending.items():
            useful = [steps for steps in shapes if not frozenset().union(*steps) <= chosen]
            for steps in useful:
                whole, cut = filled(chosen, steps, count)
                if not cut:
                    longer[whole] += probability / len(useful)
                for part in itertools.combinations(sorted(cut), count - len(whole)) if cut else ():
                    ways = math.comb(len(cut), count - len(whole)) * len(useful)
                    law[whole | frozenset(part)] += probability / ways
        pending = longer
    return law


def mixture(laws: Iterable[Law]) -> Law:
    """One of the laws, each with the same probability."""
    laws, mixed = list(laws), defaultdict(float)
    for law in laws:
        for chosen, probability in law.items():
            mixed[chosen] += probability / len(laws)
    return mixed


def assert_sets_follow(sets: torch.Tensor, law: Law) -> None:
    """Chi-square on the counts of whole sets; sets too rare to be tested alone are tested together."""
    assert sum(law.values()) == pytest.approx(1.0, abs=1e-9)
    rows, counts = sets.unique(dim=0, return_counts=True)
    counted = {frozenset(cells): count for cells, count in zip(rows.tolist(), counts.tolist(), strict=True)}
    assert counted.keys() <= law.keys()
    expected = np.array([p * len(sets) for p in law.values()])
    observed = np.array([counted.get(cells, 0) for cells in law])
    rare = expected < 5
    if rare.any():
        expected = np.append(expected[~rare], expected[rare].sum())
        observed = np.append(observed[~rare], observed[rare].sum())
    assert stats.chisquare(observed, expected).pvalue > FALSE_ALARM


SMALL = [(1, 7, 0.5), (2, 4, 0.6), (2, 4, 0.3), (3, 2, 0.5), (4, 2, 0.7), (8, 1, 0.4)]


@pytest.mark.parametrize(("freq", "time", "mask_ratio"), SMALL)
@pytest.mark.parametrize("name", ["time", "freq", "time_freq"])
def test_lines_are_masked_in_turn(name, freq, time, mask_ratio):
    grid = PatchGrid(freq, time)
    mask = drawn(name, grid, 20_000, mask_ratio)
    columns, rows = [[column(grid, t)] for t in range(time)], [[row(grid, f)] for f in range(freq)]
    shapes = {"time": columns, "freq": rows, "time_freq": columns + rows}[name]
    assert_sets_follow(mask.masked, in_turn(shapes, mask.masked.shape[1]))


@pytest.mark.parametrize(
    ("freq", "time", "mask_ratio", "balance", "num_rows"),
    [
        (1, 7, 0.5, 0.5, 1),
        (2, 4, 0.6, 0.5, 1),  # 2 sqrt(3 / 8) = 1.2
        (3, 2, 0.5, 0.5, 2),  # 3 sqrt(3 / 6) = 2.1
        (4, 2, 0.5, 0.5, 3),
        (2, 4, 0.5, 0.0, 1),  # rows alone
        (2, 4, 0.5, 1.0, 2),  # columns alone
        (2, 4, 0.3, 0.0, 2),  # the five visible patches do not fit in one row
    ],
)
def test_what_a_product_leaves_visible_are_crossings(freq, time, mask_ratio, balance, num_rows):
    grid = PatchGrid(freq, time)
    mask = drawn("time_product", grid, 20_000, mask_ratio, balance=balance)
    law = mixture(
        in_turn([[column(grid, t) & rectangle(grid, rows, range(time))] for t in range(time)], mask.visible.shape[1])
        for rows in itertools.combinations(range(freq), num_rows)
    )
    assert_sets_follow(mask.visible, law)


@pytest.mark.parametrize(("freq", "time", "mask_ratio"), SMALL)
@pytest.mark.parametrize("length", [1, 2, 3, 20])
def test_spans_are_masked_in_turn_on_a_ring(freq, time, mask_ratio, length):
    grid = PatchGrid(freq, time)
    mask = drawn("spans", grid, 20_000, mask_ratio, length=length)
    shapes = [[column(grid, start + i) for i in range(min(length, time))] for start in range(time)]
    assert_sets_follow(mask.masked, in_turn(shapes, mask.masked.shape[1]))


@pytest.mark.parametrize(
    ("freq", "time", "mask_ratio", "length", "num_starts"),
    [
        (1, 7, 0.5, 2, 2),  # 7 (1 - sqrt(3 / 7)) = 2.4
        (1, 7, 0.5, 3, 2),  # 7 (1 - (3 / 7)^(1/3)) = 1.7: up to six columns for a count of four
        (2, 4, 0.6, 2, 2),
        (2, 4, 0.3, 3, 1),
        (1, 7, 0.2, 5, 1),  # never none
    ],
)
def test_wav2vec2_draws_its_starts_at_once_and_adjusts_by_whole_columns(freq, time, mask_ratio, length, num_starts):
    grid = PatchGrid(freq, time)
    mask = drawn("spans", grid, 20_000, mask_ratio, length=length, starts="wav2vec2")

    def after(starts: tuple[int, ...]) -> Law:
        covered = {(start + i) % time for start in starts for i in range(length)}
        rest = set(range(time)) - covered
        orders = itertools.product(itertools.permutations(covered), itertools.permutations(rest))
        columns = ([column(grid, t) for t in first + then] for first, then in orders)
        return mixture(in_turn([steps], mask.masked.shape[1]) for steps in columns)

    law = mixture(after(starts) for starts in itertools.combinations(range(time), num_starts))
    assert_sets_follow(mask.masked, law)


@pytest.mark.parametrize(
    ("freq", "time", "mask_ratio", "side", "time_side"), [(1, 7, 0.5, 3, 0), (2, 4, 0.6, 2, 0), (2, 4, 0.5, 1, 3)]
)
def test_covering_blocks_become_visible_in_turn(freq, time, mask_ratio, side, time_side):
    grid = PatchGrid(freq, time)
    mask = drawn("ibm", grid, 20_000, mask_ratio, side=side, time_side=time_side, blocks="cover")
    columns = time_side or side

    def around(f: int, t: int) -> Cells:  # even sides reach one further forward
        f, t = f - (side - 1) // 2, t - (columns - 1) // 2
        return rectangle(grid, range(f, f + side), range(t, t + columns))

    shapes = [[around(f, t)] for f in range(freq) for t in range(time)]
    assert_sets_follow(mask.visible, in_turn(shapes, mask.visible.shape[1]))


@pytest.mark.parametrize(("freq", "time", "mask_ratio"), [(1, 7, 0.5), (2, 4, 0.6), (3, 2, 0.5)])
def test_squares_of_one_size_are_masked_in_turn(freq, time, mask_ratio):
    grid = PatchGrid(freq, time)
    mask = drawn("cluster", grid, 20_000, mask_ratio, smallest=2, largest=3)

    def squares(side: int) -> list[list[Cells]]:  # wherever one holds a patch at least
        corners = itertools.product(range(1 - side, freq), range(1 - side, time))
        return [[rectangle(grid, range(f, f + side), range(t, t + side))] for f, t in corners]

    law = mixture(in_turn(squares(side), mask.masked.shape[1]) for side in (2, 3))
    assert_sets_follow(mask.masked, law)


def test_a_wrong_law_of_sets_is_noticed():
    # The tests above have the power to tell the ring from spans that stop at the end, and masked from visible.
    grid = PatchGrid(1, 7)
    mask = drawn("spans", grid, 20_000, 0.5, length=3)
    stopping = [[column(grid, t) for t in range(start, min(start + 3, 7))] for start in range(7)]
    with pytest.raises(AssertionError):
        assert_sets_follow(mask.masked, in_turn(stopping, 4))
    mask = drawn("time", PatchGrid(2, 4), 20_000, 0.5)
    with pytest.raises(AssertionError):
        assert_sets_follow(mask.visible, in_turn([[row(PatchGrid(2, 4), f)] for f in range(2)], 4))
