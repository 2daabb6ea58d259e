"""Classification by the nearest neighbours."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32
from torch.nn import functional as F

from melmask.probes.base import Features, Probe, ScoreFunction, State, Targets, as_tensor, check_ranges


@dataclass(frozen=True)
class KnnProbe(Probe):
    """A vote of the nearest training and validation clips by cosine; nothing is trained, and nothing chosen.

    Args:
        num_neighbours: k, or all clips if there are fewer.
        temperature: a neighbour's vote weighs exp(cosine / temperature).

    Source: Wu et al. (2018), arXiv 1805.01978. Deviates: k is 10, and features are standardised.
    """

    num_neighbours: int = 10
    temperature: float = 0.07

    def __post_init__(self) -> None:
        check_ranges(self)

    def train(
        self, train_x: Features, train_y: Targets, valid_x: Features, valid_y: Targets,
        *, num_classes: int, multilabel: bool, seed: int, score: ScoreFunction,
    ) -> State:  # fmt: skip
        """See `Probe`; the clips themselves, of length 1, and their class flags."""
        bank = F.normalize(torch.tensor(np.concatenate([train_x, valid_x])))
        targets = torch.cat([as_tensor(train_y), as_tensor(valid_y)])
        flags = targets if multilabel else F.one_hot(targets, num_classes).float()
        return {"bank": bank, "flags": flags}

    def predict(self, state: State, x: Features, *, multilabel: bool) -> Float32[np.ndarray, "_ num_classes"]:
        """See `Probe`; the probabilities are shares of the votes."""
        bank, flags, votes = state["bank"], state["flags"], []
        for queries in F.normalize(torch.tensor(x)).split(1024):
            cosine, neighbour = (queries @ bank.T).topk(min(self.num_neighbours, len(bank)))
            share = (cosine / self.temperature).softmax(dim=1)
            votes.append(torch.einsum("qk,qkc->qc", share, flags[neighbour]))
        return torch.cat(votes).numpy()
