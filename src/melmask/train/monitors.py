"""Statistics of features that show a collapse during training."""

import torch
from jaxtyping import Float
from torch import Tensor

MAX_ROWS = 1024


def effective_rank(features: Float[Tensor, "k d"], eps: float = 1e-7) -> float:
    """RankMe: the exponential of the entropy of the normalised singular values; 1 for collapsed features, at most d.

    Source: arXiv 2210.02885. Deviates: at most `MAX_ROWS` evenly spaced rows are used.

    >>> round(effective_rank(torch.eye(8)), 3)
    8.0
    """
    singular = torch.linalg.svdvals(_sampled(features))
    share = singular / singular.sum().clamp(min=eps) + eps
    return float(torch.exp(-(share * share.log()).sum()))


def feature_deviation(features: Float[Tensor, "k d"]) -> float:
    """The mean over features of their standard deviation over rows; near 0 if all rows are alike."""
    return float(_sampled(features).std(dim=0).mean())


def _sampled(features: Tensor) -> Tensor:
    stride = -(-len(features) // MAX_ROWS)
    return features[::stride].float()
