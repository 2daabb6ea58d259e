"""What the masks obey, exactly: inclusion probabilities of weighted sampling, and the guidance that hints leave."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from melmask.masking.base import num_hints_of

NODES_PER_PANEL = 16


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


def with_hints_probabilities(inclusion: Float[Tensor, " n"], num_masked: int, hint_ratio: float) -> Float[Tensor, " n"]:
    """P(i masked) after hints, from the inclusion probabilities π_i of the informed choice."""
    mean = num_masked / len(inclusion)
    return mean + guidance(len(inclusion), num_masked, hint_ratio) * (inclusion - mean)


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
    if not weights.isfinite().all() or (weights < 0).any():
        raise ValueError("weights must be finite and not negative")
    if not 0 <= num_masked <= len(weights):
        raise ValueError(f"num_masked must lie in [0, {len(weights)}], got {num_masked}")
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
    arrived = -np.expm1(-np.outer(time, weight))
    density = weight * np.exp(-np.outer(time, weight))
    return (step[:, None] * density * _fewer_than(arrived, num_masked)).sum(axis=0)


def _fewer_than(arrived: np.ndarray, limit: int) -> np.ndarray:
    """P(fewer than ``limit`` of the others arrived), for every patch left out in turn [time, n].

    Prefix and suffix count laws are joined, which is exact where dividing one factor out of the full law is not.
    """
    num_times, num_patches = arrived.shape
    prefix = np.zeros((num_patches + 1, num_times, limit))
    suffix = np.zeros((num_patches + 1, num_times, limit))
    prefix[0, :, 0] = suffix[num_patches, :, 0] = 1.0
    for j in range(num_patches):
        prefix[j + 1] = _one_more(prefix[j], arrived[:, j])
        k = num_patches - 1 - j
        suffix[k] = _one_more(suffix[k + 1], arrived[:, k])
    at_most = suffix.cumsum(axis=2)[:, :, ::-1]
    return np.stack([(prefix[i] * at_most[i + 1]).sum(axis=1) for i in range(num_patches)], axis=1)


def _one_more(law: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """The count law after one more independent arrival, counts at or over the limit forgotten."""
    after = law * (1 - probability)[:, None]
    after[:, 1:] += law[:, :-1] * probability[:, None]
    return after
