"""The probe with hidden layers, over a small grid of forms."""

from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor, nn

from melmask.evaluate.metrics import score_of
from melmask.probes.base import Features, Targets, as_tensor, loss_of, probabilities


@dataclass(frozen=True)
class MlpProbe:
    """A small network; the form, the rate and the epoch with the best validation score count.

    A hidden layer is linear, batch norm, dropout, ReLU. Every pair of depth and rate is trained, each from the same
    seed; of equals the first counts, which is the shallower and then the earlier in ``learning_rates``.

    Args:
        hidden_layers: numbers of hidden layers to try.
        learning_rates: of Adam, to try.
        hidden_dim: width of the hidden layers.
        dropout: share of hidden values that are dropped in training, 0..1.
        batch_size: at most; batches of an epoch differ in size by one clip at most.
        max_epochs: an epoch is one pass over the training clips.
        check_every: epochs between looks at the validation score.
        patience: training stops after so many looks without a better one.

    Source: HEAR, arXiv 2203.03022, and its evaluation kit. Deviates: features are standardised on the training clips;
    all eight pairs are trained, with Xavier weights from a uniform law, where HEAR draws eight of sixteen, having a
    normal law too; batches are nearly equal instead of full ones and a rest.
    """

    hidden_layers: tuple[int, ...] = (1, 2)
    learning_rates: tuple[float, ...] = (3.2e-3, 1e-3, 3.2e-4, 1e-4)
    hidden_dim: int = 1024
    dropout: float = 0.1
    batch_size: int = 1024
    max_epochs: int = 500
    check_every: int = 3
    patience: int = 20
    is_seeded: ClassVar[bool] = True

    def fit_predict(
        self, train_x: Features, train_y: Targets, valid_x: Features, valid_y: Targets, test_x: Features,
        *, num_classes: int, multilabel: bool, seed: int,
    ) -> Float32[np.ndarray, "test num_classes"]:  # fmt: skip
        """See `Probe`.

        Raises:
            ValueError: fewer than two training clips, of which batch norm can make nothing.
        """
        if len(train_x) < 2:
            raise ValueError(f"{len(train_x)} training clips for an mlp: it needs two at least; take another probe")
        x, y, valid = torch.tensor(train_x), as_tensor(train_y), torch.tensor(valid_x)
        best_score, best = -1.0, nn.Sequential()
        for num_hidden, learning_rate in product(self.hidden_layers, self.learning_rates):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                network = self._network(num_hidden, x.shape[1], num_classes)
                score, network = self._train(network, learning_rate, x, y, valid, valid_y)
            if score > best_score:
                best_score, best = score, network
        return probabilities(_logits(best, torch.tensor(test_x)), multilabel)

    def _network(self, num_hidden: int, num_features: int, num_classes: int) -> nn.Sequential:
        """Hidden layers and the linear one that reads them, with Xavier weights."""
        layers: list[nn.Module] = []
        width = num_features
        for _ in range(num_hidden):
            norm = nn.BatchNorm1d(self.hidden_dim)
            layers += [nn.Linear(width, self.hidden_dim), norm, nn.Dropout(self.dropout), nn.ReLU()]
            width = self.hidden_dim
        layers.append(nn.Linear(width, num_classes))
        for layer in layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
        return nn.Sequential(*layers)

    def _train(
        self, network: nn.Sequential, learning_rate: float, x: Tensor, y: Tensor, valid: Tensor, valid_y: Targets
    ) -> tuple[float, nn.Sequential]:
        """The best validation score and the network that had it."""
        adam = torch.optim.Adam(network.parameters(), learning_rate, fused=True)
        num_batches = -(-len(x) // self.batch_size)
        best_score, best, num_worse = -1.0, network, 0
        for epoch in range(1, self.max_epochs + 1):
            network.train()
            for batch in torch.randperm(len(x)).tensor_split(num_batches):
                adam.zero_grad()
                loss_of(network(x[batch]), y[batch]).backward()
                adam.step()
            if epoch % self.check_every and epoch < self.max_epochs:
                continue
            score = score_of(valid_y, _logits(network, valid).numpy())
            if score > best_score:
                best_score, best, num_worse = score, deepcopy(network), 0
            else:
                num_worse += 1
                if num_worse == self.patience:
                    break
        return best_score, best


@torch.inference_mode()
def _logits(network: nn.Sequential, x: Tensor) -> Tensor:
    return network.eval()(x)
