"""Bounds on what rounding may do in float32, derived from the number of terms summed, for comparisons with float64.

Processors, instruction sets and numbers of threads add the terms of a sum in different orders, and some round each
product before it is added. Whatever they do, a sum of n products x_i y_i in floating point is the exact sum of
x_i y_i (1 + d_i), in which every |d_i| is at most gamma(n) = n u / (1 - n u), with u the unit roundoff (Higham,
Accuracy and Stability of Numerical Algorithms, 2002, section 3.1). So it is at most gamma(n) times the sum of |x_i y_i|
from the exact sum, however much of that sum cancels. No bound relative to the sum itself holds.

A test chooses the first of these that it can:

1. What is one formula in two forms is compared in float64, in which rounding is nine digits below any mistake.
2. A sum of products in float32 is compared with float64 by `assert_sums_close`.
3. A chain of sums, such as a whole encoder, is compared with float64 by `assert_chain_close`.
"""

import torch
from torch import Tensor

UNIT_ROUNDOFF = 2.0**-24  # of float32, rounded to the nearest


def gamma(num_terms: int) -> float:
    """The largest relative change of a term that rounding in float32 amounts to, in a sum of that many products."""
    return num_terms * UNIT_ROUNDOFF / (1 - num_terms * UNIT_ROUNDOFF)


def assert_sums_close(found: Tensor, exact: Tensor, absolute: Tensor, num_terms: int) -> None:
    """Every element of ``found`` is a sum of products that float32 may make of ``exact``.

    Args:
        found: sums computed in float32.
        exact: the same sums in float64, of any shape; the difference is measured in float64.
        absolute: the sums of the absolute values of the same products, in float64.
        num_terms: products in each sum; an added bias counts as one.
    """
    _assert_within(found, exact, gamma(num_terms) * absolute)


def assert_chain_close(found: Tensor, exact: Tensor, num_terms: int) -> None:
    """``found`` is what a chain of sums in float32 may make of ``exact``.

    To first order the gammas of sums that feed each other add up. What each is relative to is taken as the largest
    output: this is no theorem, but holds with a wide margin for layers between layer norms, whose values all have the
    same scale, and whose weights at initialisation amplify nothing.

    Args:
        found: the output of the chain in float32.
        exact: the same in float64.
        num_terms: terms of all sums on the longest way from the input to the output.
    """
    _assert_within(found, exact, gamma(num_terms) * exact.abs().max())


def _assert_within(found: Tensor, exact: Tensor, bound: Tensor) -> None:
    found, exact, bound = found.detach(), exact.detach(), bound.detach()
    assert found.dtype == torch.float32 and exact.dtype == bound.dtype == torch.float64 and found.shape == exact.shape
    within = (found.double() - exact).abs() <= bound  # False for NaN
    worst = ((found.double() - exact).abs() / bound).nan_to_num(torch.inf).max()
    assert within.all(), f"{int((~within).sum())} of {within.numel()} are off, by {float(worst):.3g} bounds at most"
