"""Attentive pooling: the weights of a clip's time steps are learnt together with the classifier."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from melmask.encoders.cache import Reads
from melmask.encoders.timesteps import TimeSteps, one_step_each
from melmask.probes.base import Features, Probe, ScoreFunction, State, Targets, as_tensor, loss_of, probabilities
from melmask.probes.fit import AdamSettings, fit


@dataclass(frozen=True)
class AttentiveProbe(AdamSettings, Probe):
    """A learnt query attends over the time steps of a clip, and a linear layer classifies their weighted mean.

    A step's weight is the softmax, over the steps of its clip, of its features' product with the query, scaled by the
    width as in any attention. Query and weights start at 0, where this is the linear probe on the mean over time; seeds
    differ in the order of the clips only. Embeddings are taken as clips of a single step, for which the query makes no
    difference. The settings are those of `AdamSettings`.

    Source: attention with one query as in Lee et al. (2019), "Set Transformer", arXiv 1810.00825, pooling by attention.
    Deviates: no projections and no further layers, so that the score depends on the encoder's features and little else.
    """

    reads: ClassVar[Reads] = "time steps"

    def num_trainings(self, num_seeds: int) -> int:
        """See `Probe`."""
        return num_seeds

    def train(
        self, train_x: TimeSteps | Features, train_y: Targets, valid_x: TimeSteps | Features, valid_y: Targets,
        *, num_classes: int, multilabel: bool, seed: int, score: ScoreFunction,
    ) -> State:  # fmt: skip
        """See `Probe`."""
        train, valid = (x if isinstance(x, TimeSteps) else one_step_each(x) for x in (train_x, valid_x))
        rng = np.random.default_rng(seed)
        query = torch.zeros(train.num_dims, requires_grad=True)
        weight = torch.zeros(train.num_dims, num_classes, requires_grad=True)
        bias = torch.zeros(num_classes, requires_grad=True)
        targets = as_tensor(train_y)

        def epoch() -> Iterator[Tensor]:
            for batch in train.batches(rng.permutation(len(train)), self.batch_size):
                yield loss_of(_logits(state, train[batch]), targets[batch])

        state = {"query": query, "weight": weight, "bias": bias}
        fit(
            self.optimiser(list(state.values()), train.num_dims),
            list(state.values()),
            epoch,
            lambda: score(valid_y, self._all_logits(state, valid).numpy()),
            max_epochs=self.max_epochs,
            patience=self.patience,
        )
        return {name: tensor.detach() for name, tensor in state.items()}

    def predict(
        self, state: State, x: TimeSteps | Features, *, multilabel: bool
    ) -> Float32[np.ndarray, "_ num_classes"]:
        """See `Probe`."""
        clips = x if isinstance(x, TimeSteps) else one_step_each(x)
        with torch.no_grad():
            return probabilities(self._all_logits(state, clips), multilabel)

    def _all_logits(self, state: State, clips: TimeSteps) -> Float[Tensor, "clip num_classes"]:
        order = np.argsort(clips.length, kind="stable")  # clips of one length together need little padding
        found = [_logits(state, clips[batch]) for batch in clips.batches(order, self.batch_size)]
        return torch.cat(found)[np.argsort(order)]


def _logits(state: State, some: TimeSteps) -> Float[Tensor, "clip num_classes"]:
    features, is_valid = some.padded()
    pooled = attend(torch.from_numpy(features), torch.from_numpy(is_valid), state["query"])
    return pooled @ state["weight"] + state["bias"]


def attend(
    features: Float[Tensor, "clip time dim"], valid: Bool[Tensor, "clip time"], query: Float[Tensor, " dim"]
) -> Float[Tensor, "clip dim"]:
    """The mean of each clip's valid time steps, weighted by the softmax of their products with the query."""
    share = (features @ query * len(query) ** -0.5).masked_fill(~valid, float("-inf")).softmax(dim=1)
    return torch.einsum("ct,ctd->cd", share, features)
