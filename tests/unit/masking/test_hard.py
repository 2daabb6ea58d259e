"""Hard-patch masks: a weighted sample by remembered losses, set by set and patch by patch.

Statistical tests would fail by chance for one seed in 10,000; the seeds are fixed, so none flickers.
"""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from melmask.masking import draw, make_strategy
from melmask.masking.laws import inclusion_probabilities
from melmask.types import PatchGrid

FALSE_ALARM = 1e-4
LOSSES = (0.2, 0.5, 0.5, 1.0, 2.0)


def masks(losses: torch.Tensor, num: int, mask_ratio: float, seed: int = 1, **options: object) -> torch.Tensor:
    guide = losses[None, :, None].expand(num, -1, -1)
    rng = torch.Generator().manual_seed(seed)
    grid = PatchGrid(1, len(losses))
    return draw(
        make_strategy("hard", options), grid=grid, batch_size=num, mask_ratio=mask_ratio, rng=rng, guide=guide
    ).masked


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_two_of_five_patches_follow_the_law_of_successive_sampling(exponent):
    weights = np.array(LOSSES) ** exponent
    law = {}
    for one, other in itertools.combinations(range(5), 2):
        share = weights / weights.sum()
        law[one, other] = share[one] * share[other] / (1 - share[one]) + share[other] * share[one] / (1 - share[other])
    sets = [tuple(row) for row in masks(torch.tensor(LOSSES), 20_000, 0.4, exponent=exponent).tolist()]
    observed = [sets.count(pair) for pair in law]
    assert sum(observed) == 20_000
    assert stats.chisquare(observed, 20_000 * np.array(list(law.values()))).pvalue > FALSE_ALARM


def test_marginals_at_190_patches_are_the_inclusion_probabilities():
    losses = torch.randn(190, generator=torch.Generator().manual_seed(2)).mul(0.5).exp()
    masked = masks(losses, 6000, 0.7)
    often = masked.flatten().bincount(minlength=190).double()
    expected = inclusion_probabilities(losses, 133).double()
    z = (often - 6000 * expected) / (6000 * expected * (1 - expected)).sqrt()
    assert 2 * stats.norm.sf(float(z.abs().max())) * 190 > FALSE_ALARM


def test_a_loss_of_nothing_is_masked_last():
    losses = torch.tensor([0.0, -1e-7, 1e-3, 1.0, 2.0])  # rounding can leave 2 - 2 cos below zero
    assert (masks(losses, 200, 0.6) == torch.tensor([2, 3, 4])).all()


@pytest.mark.parametrize(
    ("options", "message"), [({"exponent": -1.0}, "exponent"), ({"smoothing": 1.0}, "smoothing 1")]
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_strategy("hard", options)
