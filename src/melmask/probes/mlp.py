"""A multilayer perceptron, chosen from a small grid of depths and learning rates."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor, nn

from melmask.probes.base import (
    Features,
    Probe,
    ScoreFunction,
    State,
    Targets,
    as_tensor,
    check_ranges,
    loss_of,
    probabilities,
)
from melmask.probes.fit import fit


@dataclass(frozen=True)
class MlpProbe(Probe):
    """A multilayer perceptron; depth, learning rate and epoch are those with the best validation score.

    A hidden layer is linear, batch norm, dropout, ReLU. Every pair of depth and rate is trained, each from the same
    seed; of equals the first is kept, which is the shallower and then the earlier in ``learning_rates``.

    Args:
        hidden_layers: numbers of hidden layers to try.
        learning_rates: of Adam, to try.
        hidden_dim: width of the hidden layers.
        dropout: share of hidden values that are dropped in training, 0..1.
        batch_size: at most; batches of an epoch differ in size by one clip at most.
        max_epochs: an epoch is one pass over the training clips.
        check_every: epochs from one validation to the next.
        patience: training stops after so many validations without a better score.

    Source: HEAR, arXiv 2203.03022, and its evaluation kit. Deviates: features are standardised on the training clips;
    all eight pairs are trained, with uniform Xavier weights, where HEAR draws eight of sixteen, having normal
    ones too; batches are nearly equal instead of full ones and a rest.
    """

    hidden_layers: tuple[int, ...] = (1, 2)
    learning_rates: tuple[float, ...] = (3.2e-3, 1e-3, 3.2e-4, 1e-4)
    hidden_dim: int = 1024
    dropout: float = 0.1
    batch_size: int = 1024
    max_epochs: int = 500
    check_every: int = 3
    patience: int = 20

    def __post_init__(self) -> None:
        check_ranges(self, may_be_zero=("dropout",))

    def num_trainings(self, num_seeds: int) -> int:
        """See `Probe`."""
        return num_seeds

    def train(
        self, train_x: Features, train_y: Targets, valid_x: Features, valid_y: Targets,
        *, num_classes: int, multilabel: bool, seed: int, score: ScoreFunction,
    ) -> State:  # fmt: skip
        """See `Probe`.

        Raises:
            ValueError: fewer than two training clips, for which batch norm is not defined.
        """
        if len(train_x) < 2:
            raise ValueError(f"{len(train_x)} training clips for an mlp: it needs at least two; take another probe")
        x, y, valid = torch.tensor(train_x), as_tensor(train_y), torch.tensor(valid_x)
        best_score, best = float("-inf"), nn.Sequential()
        for num_hidden, learning_rate in product(self.hidden_layers, self.learning_rates):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                network = self._network(num_hidden, x.shape[1], num_classes)
                reached = self._train(network, learning_rate, x, y, partial(_validate, network, valid, valid_y, score))
            if reached > best_score:
                best_score, best = reached, network
        return best.state_dict()

    def predict(self, state: State, x: Features, *, multilabel: bool) -> Float32[np.ndarray, "_ num_classes"]:
        """See `Probe`."""
        matrices = [tensor for tensor in state.values() if tensor.ndim == 2]
        with torch.device("meta"):  # draws no weights, which the state replaces
            network = self._network(len(matrices) - 1, matrices[0].shape[1], len(matrices[-1]))
        network.load_state_dict(state, assign=True)
        return probabilities(_logits(network, torch.tensor(x)), multilabel)

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
        self, network: nn.Sequential, learning_rate: float, x: Tensor, y: Tensor, score: Callable[[], float]
    ) -> float:
        """Train in place, and return the best validation score, which is that of the network as it ends."""
        num_batches = -(-len(x) // self.batch_size)

        def epoch() -> Iterator[Tensor]:
            network.train()
            for batch in torch.randperm(len(x)).tensor_split(num_batches):
                yield loss_of(network(x[batch]), y[batch])

        return fit(
            torch.optim.Adam(network.parameters(), learning_rate, fused=True),
            list(network.state_dict().values()),
            epoch,
            score,
            max_epochs=self.max_epochs,
            patience=self.patience,
            check_every=self.check_every,
        )


def _validate(network: nn.Sequential, x: Tensor, y: Targets, score: ScoreFunction) -> float:
    return score(y, _logits(network, x).numpy())


@torch.inference_mode()
def _logits(network: nn.Sequential, x: Tensor) -> Tensor:
    return network.eval()(x)
