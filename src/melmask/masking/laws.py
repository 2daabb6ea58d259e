"""Exact laws of the masks: inclusion probabilities of weighted sampling, and the guidance that remains with hints."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from melmask.masking.base import num_hints_of

NODES_PER_PANEL = 16
MAX_NEWTON_STEPS = 100


def guidance(num_patches: int, num_masked: int, hint_ratio: float) -> float:
    """λ, how much of a strategy's preference survives: P_i - m/N = λ (π_i - m/N).

    Derivation: with u = floor(m h) hints, V = N - m + u patches outside S and π_i the inclusion probability of patch i
    in M0, P(i masked) = P(i in S) + P(i not in S) u / V, and P(i in S) = π_i (m - u) / m. Collecting π_i gives
    λ = (m - u) / m * (1 - u / V) = (m - u) (N - m) / (m V).

    Args:
        num_patches: N.
        num_masked: m.
        hint_ratio: h in [0, 1].

    Raises:
        ValueError: the hint ratio is outside [0, 1].

    Source: melmask's own; the continuous form is (1-h)(1-r) / (1-r+hr).

    >>> round(guidance(190, 133, 0.5), 3), guidance(190, 133, 1.0), guidance(190, 133, 0.0)
    (0.233, 0.0, 1.0)
    """
    num_hints = num_hints_of(num_masked, hint_ratio)
    outside = num_patches - num_masked + num_hints
    return (num_masked - num_hints) * (num_patches - num_masked) / (num_masked * outside)


def hint_ratio_for(wanted: float, num_patches: int, num_masked: int) -> float:
    """The hint ratio h whose `guidance` is nearest to a wanted λ.

    λ falls with every hint, so the number u is found by solving λ = (m - u) (N - m) / (m (N - m + u)) for u and looking
    at the two whole numbers beside it; h = u / m gives exactly u hints back.

    Args:
        wanted: λ in [0, 1].
        num_patches: N.
        num_masked: m.

    Raises:
        ValueError: λ is outside [0, 1].

    Source: melmask's own.

    >>> round(hint_ratio_for(0.233, 190, 133) * 133), hint_ratio_for(0.0, 190, 133), hint_ratio_for(1.0, 190, 133)
    (66, 1.0, 0.0)
    """
    if not 0.0 <= wanted <= 1.0:
        raise ValueError(f"the guidance must lie in [0, 1], got {wanted}")
    num_visible = num_patches - num_masked
    exact = num_masked * num_visible * (1 - wanted) / (num_masked * wanted + num_visible)
    around = (min(math.floor(exact), num_masked), min(math.floor(exact) + 1, num_masked))
    num_hints = min(around, key=lambda u: abs(guidance(num_patches, num_masked, u / num_masked) - wanted))
    return num_hints / num_masked


def with_hints_probabilities(
    inclusion: Float[Tensor, "*b n"], num_masked: int, hint_ratio: float
) -> Float[Tensor, "*b n"]:
    """P(i masked) after hints, from the inclusion probabilities π_i of the informed choice: m/N + λ (π_i - m/N).

    Args:
        inclusion: π, of any number of samples; adds up to m in each.
        num_masked: m.
        hint_ratio: h in [0, 1].

    Raises:
        ValueError: the hint ratio is outside [0, 1].

    >>> with_hints_probabilities(torch.tensor([0.9, 0.7, 0.4]), 2, 1.0)
    tensor([0.6667, 0.6667, 0.6667])
    """
    num_patches = inclusion.shape[-1]
    mean = num_masked / num_patches
    return mean + guidance(num_patches, num_masked, hint_ratio) * (inclusion - mean)


def inclusion_probabilities(weights: Float[Tensor, " n"], num_masked: int) -> Float[Tensor, " n"]:
    """π_i, the probability that patch i is among ``num_masked`` drawn in turn without replacement by weight.

    Patch i arrives at an exponential time T_i of rate w_i, and the sample is the m earliest. Given T_i = s, every other
    j has arrived with probability p_j = 1 - exp(-w_j s), independently, so π_i = E[P(N_-i(T_i) <= m - 1)] with N_-i
    Poisson-binomial. The expectation is an integral over v = 1 - exp(-w_i s) in [0, 1], by Gauss-Legendre on s-panels
    that follow the weights' scale; the counts are by dynamic programming, all i at once.

    Args:
        weights: non-negative; those of zero follow after all others, uniformly.
        num_masked: m, from 0 to n.

    Raises:
        ValueError: a weight is negative or not finite, or m is out of range.

    Source: Yu (2012), "On the inclusion probabilities in some unequal probability sampling plans without replacement".
    Deviates: not at all; the quadrature's error is below 1e-9 for weights within six orders of magnitude.

    >>> inclusion_probabilities(torch.ones(4), 1).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    _check(weights, num_masked)
    weight = weights.double().numpy()
    positive = weight > 0
    num_positive = int(positive.sum())
    if num_masked >= num_positive:
        rest = (num_masked - num_positive) / max(len(weight) - num_positive, 1)
        return torch.from_numpy(np.where(positive, 1.0, rest)).float()
    inclusion = np.zeros(len(weight))
    if num_masked:
        inclusion[positive] = _positive_inclusion(weight[positive], num_masked)
    return torch.from_numpy(inclusion).float()


def approximate_inclusion(weights: Float[Tensor, "*b n"], num_masked: int) -> Float[Tensor, "*b n"]:
    """π_i ≈ 1 - exp(-w_i t) with t such that they add up to m: `inclusion_probabilities` to two or three digits.

    Derivation: patch i is masked if it arrives, at rate w_i, before the m-th arrival of all. That time varies little
    when patches are many, by about 1/sqrt(N) of itself, and its place is taken by the fixed t before which m arrive on
    average. The sum is concave in t, so Newton's steps from t = 0 go up to the root and never past it.

    Args:
        weights: non-negative, of any number of samples; those of zero follow after all others, uniformly.
        num_masked: m, from 0 to n.

    Raises:
        ValueError: a weight is negative or not finite, or m is out of range.

    Source: melmask's own use of a standard asymptotic form, Rosén (1997), "Asymptotic theory for order sampling". Its
    error is of the order of 1/N. At N = 190 and r = 0.7 it is below 1e-3 for weights such as dispersions and 2e-3 for
    squares of uniform ones; 1e-2 at r = 0.95, and below 0.02 for weights that span 20 orders of magnitude.

    >>> approximate_inclusion(torch.ones(2, 4), 1)[0].tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    _check(weights, num_masked)
    weight = weights.double()
    positive = weight > 0
    num_positive = positive.sum(dim=-1, keepdim=True)
    weight = weight / weight.amax(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    wanted = num_positive.clamp(max=num_masked).double()
    time = torch.zeros_like(wanted)
    for _ in range(MAX_NEWTON_STEPS):
        left = torch.exp(-weight * time)
        missing = wanted - num_positive + (left * positive).sum(dim=-1, keepdim=True)
        if (missing <= 1e-10 * wanted).all():
            break
        time = time + missing / (weight * left).sum(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    rest = (num_masked - wanted) / (weights.shape[-1] - num_positive).clamp(min=1)
    drawn = torch.where(wanted == num_positive, 1.0, -torch.expm1(-weight * time))
    return torch.where(positive, drawn, rest).float()


def _check(weights: Tensor, num_masked: int) -> None:
    num_patches = weights.shape[-1]
    if not weights.isfinite().all() or (weights < 0).any():
        raise ValueError("weights must be finite and not negative")
    if not 0 <= num_masked <= num_patches:
        raise ValueError(f"num_masked must lie in [0, {num_patches}], got {num_masked}")


def _positive_inclusion(weight: np.ndarray, num_masked: int) -> np.ndarray:
    """π for positive weights: the integral of density times count law over arrival times s, on a logarithmic axis."""
    weight = weight / weight.mean()
    # Times outside these ends carry less than 1e-12 of any patch's arrival.
    log_low, log_high = np.log(1e-13 / weight.max()), np.log(40.0 / weight.min())
    edges = np.linspace(log_low, log_high, max(2, int(np.ceil(log_high - log_low)) + 1))
    node, share = np.polynomial.legendre.leggauss(NODES_PER_PANEL)
    centre, half = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    time = np.exp((centre[:, None] + half[:, None] * node).ravel())
    step = (half[:, None] * share).ravel() * time
    away = np.exp(-np.outer(time, weight))
    arrived = -np.expm1(-np.outer(time, weight))
    return (step[:, None] * weight * away * _fewer_than(num_masked, arrived, away)).sum(axis=0)


def _fewer_than(limit: int, arrived: np.ndarray, away: np.ndarray) -> np.ndarray:
    """P(fewer than ``limit`` of the others arrived), for every patch left out in turn [time, n].

    The count law of all patches, with one factor divided out. That is stable only for an arrival probability up to a
    half; above, the patches still away are counted instead.
    """
    num_times, num_patches = arrived.shape
    law = np.zeros((num_times, num_patches + 1))
    law[:, 0] = 1.0
    for j in range(num_patches):  # one more independent arrival
        law[:, 1:] = law[:, 1:] * away[:, j, None] + law[:, :-1] * arrived[:, j, None]
        law[:, 0] *= away[:, j]
    few_arrived = _without_one(law, np.minimum(arrived, 0.5), limit)
    few_away = _without_one(law[:, ::-1], np.minimum(away, 0.5), num_patches - limit)
    return np.where(arrived <= 0.5, few_arrived, 1 - few_away)


def _without_one(law: np.ndarray, probability: np.ndarray, limit: int) -> np.ndarray:
    """P(count < limit) without one patch of that probability, from the law of counts with it."""
    one, below = np.zeros_like(probability), np.zeros_like(probability)
    for count in range(limit):
        one = (law[:, count, None] - probability * one) / (1 - probability)
        below += one
    return below
