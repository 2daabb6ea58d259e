"""Bounds on what rounding may do in float32, derived from the number of terms summed, for comparisons with float64.

Processors, instruction sets and numbers of threads add the terms of a sum in different orders, and some round each
product before it is added. Whatever they do, a sum of n products x_i y_i in floating point is the exact sum of
x_i y_i (1 + d_i), in which every |d_i| is at most gamma(n) = n u / (1 - n u), with u the unit roundoff (Higham,
Accuracy and Stability of Numerical Algorithms, 2002, section 3.1). So it is at most gamma(n) times the sum of |x_i y_i|
from the exact sum, however much of that sum cancels. No bound relative to the sum itself holds.

A test chooses the first of these that it can:

1. What is one formula in two forms is compared in float64, in which rounding is nine digits below any mistake.
2. A sum of products in float32 is compared with float64 by `assert_sums_close`.
3. A chain of sums, such as a whole encoder, is compared by `assert_chain_close`, or within `chain_bound`.
"""

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from melmask.logmel import EPSILON, LogMelSpec, mel_filterbank
from melmask.nn.vit import Size

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
    """``found`` is what a chain of sums in float32 may make of ``exact``: no element is beyond `chain_bound`.

    Args:
        found: the output of the chain in float32.
        exact: the same in float64.
        num_terms: terms of all sums on the longest way from the input to the output.
    """
    _assert_within(found, exact, exact.new_tensor(chain_bound(num_terms, exact.detach().abs().max())))


def chain_bound(num_terms: int, largest: float) -> float:
    """How far rounding may take any output of a chain of sums in float32, twice that between two forms of it.

    To first order the gammas of sums that feed each other add up. Each is taken relative to the largest output: this is
    no theorem, but in an encoder layer norms bring all values to one scale and initial weights amplify nothing, and
    what is found there is some 300 times smaller, as rounding errors are random and not all of the worst sign.
    A weight matrix off by a thousandth is beyond the bound for encoders of the tests' sizes.

    Args:
        num_terms: terms of all sums on the longest way from the input to the output.
        largest: the largest size of an output.
    """
    return gamma(num_terms) * float(largest)


def encoder_terms(size: Size, patch_values: int, num_tokens: int) -> int:
    """Terms of all sums on the longest way through an encoder, from a patch to its feature.

    The patch embedding; in each block two layer norms of three sums (mean, variance, bias), the products of the
    attention (query or key, their product, the softmax, the values and the projection) and of the two linear layers;
    and the last layer norm.
    """
    dim = size.dim
    attention = dim + dim // size.heads + 2 * num_tokens + dim
    return patch_values + size.depth * (2 * 3 * dim + attention + dim + 4 * dim) + 3 * dim


def _assert_within(found: Tensor, exact: Tensor, bound: Tensor) -> None:
    found, exact, bound = found.detach(), exact.detach(), bound.detach()
    assert found.dtype == torch.float32 and exact.dtype == bound.dtype == torch.float64 and found.shape == exact.shape
    within = (found.double() - exact).abs() <= bound  # False for NaN
    worst = ((found.double() - exact).abs() / bound).nan_to_num(torch.inf).max()
    assert within.all(), f"{int((~within).sum())} of {within.numel()} are off, by {float(worst):.3g} bounds at most"


def assert_features_close(
    found: np.ndarray, other: np.ndarray, size: Size, num_patches: int = 30, num_steps: int = 64, largest: float = 0.0
) -> None:
    """Features in float32 that one encoder of patches of 16 x 16 gives in two ways differ by rounding alone.

    Args:
        found: features of time steps, or means, maxima and deviations of them over time.
        other: the same in another way, in other batches for instance.
        size: of the encoder.
        num_patches: in a chunk; 5 x 6 by default.
        num_steps: in time, at most, that are pooled.
        largest: what a feature can be on the way, if more than what is found.
    """
    num_terms = encoder_terms(size, 16 * 16, 1 + num_patches) + 2 * num_steps  # a deviation takes two sums
    bound = 2 * chain_bound(num_terms, max(largest, np.abs(other).max()))
    difference = np.abs(found - other).max()
    assert found.shape == other.shape and difference <= bound, f"{difference:.3g} apart, bound {bound:.3g}"


def log_mel_with_bound(waves: np.ndarray, spec: LogMelSpec, num_terms: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log-mel values [b, mel, frame] in float64, and how far from each a computation in float32 may be.

    A fast Fourier transform of n values is off by up to some 7 log2(n) u of the whole frame's norm (Higham, section
    24.1), and that error may stand in any bin; it is 8 here for factors other than 2. What it does to the power of a
    band then depends on how much of the frame that band holds.

    Args:
        waves: [b, sample] in float32.
        spec: settings of the front end.
        num_terms: products in a bin where the transform is a plain sum of them; 0 where it is fast.
    """
    num_bins, pad = spec.n_fft // 2 + 1, spec.n_fft // 2
    padded = np.pad(waves.astype(np.float64), ((0, 0), (pad, pad)), mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(spec.n_fft) / spec.n_fft)
    frames = sliding_window_view(padded, spec.n_fft, axis=1)[:, :: spec.hop_length] * window
    size, filterbank = np.abs(np.fft.rfft(frames)), mel_filterbank(spec).double().numpy().T
    norm = np.sqrt(spec.n_fft) * np.linalg.norm(frames, axis=2, keepdims=True)  # of all n_fft bins
    off = UNIT_ROUNDOFF * ((num_terms or 8 * np.log2(spec.n_fft)) + 2) * norm  # 2 for the window
    mel = size**2 @ filterbank + EPSILON
    share = ((2 * size * off + off**2) @ filterbank) / mel + gamma(num_bins + 5)
    with np.errstate(invalid="ignore", divide="ignore"):
        bound = np.where(share < 1, -np.log1p(-share), np.inf) + 4 * UNIT_ROUNDOFF * np.abs(np.log(mel))
    return np.log(mel).swapaxes(1, 2), bound.swapaxes(1, 2)
