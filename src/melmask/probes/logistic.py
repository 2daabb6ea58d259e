"""Logistic regression by L-BFGS."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from melmask.probes.base import (
    Division,
    Features,
    LinearPrediction,
    Probe,
    ScoreFunction,
    State,
    Targets,
    as_tensor,
    check_ranges,
    loss_of,
    with_one,
)
from melmask.threads import following_load


@dataclass(frozen=True)
class LogisticProbe(LinearPrediction, Probe):
    """Logistic regression by L-BFGS: fast and deterministic.

    The strength is the one with the best score of clips that were held out (of equals, the most regularised): of a
    task's own validation split, or else of all training and validation clips, part by part, since a single part may be
    one speaker. Fits go along the grid from strong to weak regularisation, each starting at the last one's weights; the
    chosen one is then fitted on to training and validation clips together. With fewer clips than features, the weights
    lie in the span of the clips, and are found there: the same weights up to rounding, in the time of as many features
    as clips.

    Args:
        strengths: weights C of the summed loss against half the squared weights, as in scikit-learn; ascending.
        max_iterations: of L-BFGS, for each fit by which the strength is chosen. With nearly collinear features, as
            those of baselines, weakly regularised ones end here, before the optimum.
        final_iterations: of the fit that predicts. It reaches the optimum, so that scores hardly depend on rounding,
            and thus on the processor and its number of threads.
    """

    strengths: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
    max_iterations: int = 100
    final_iterations: int = 2000

    def __post_init__(self) -> None:
        check_ranges(self)

    def choose(self, divisions: Iterable[Division], *, num_classes: int, score: ScoreFunction) -> "LogisticProbe":
        """See `Probe`."""
        if len(self.strengths) == 1:
            return self
        targets, logits, basis = [], [], None
        for train_x, train_y, held_x, held_y in divisions:
            if len(train_x) + len(held_x) < train_x.shape[1]:
                basis = _span(train_x, held_x) if basis is None else basis  # all divisions are of the same clips
                train_x, held_x = _in_span(basis, train_x, held_x)
            path = self._path(with_one(train_x), as_tensor(train_y), num_classes)
            logits.append([(with_one(held_x) @ weight).numpy() for weight in path])
            targets.append(held_y)
        scores = [score(np.concatenate(targets), np.concatenate(own)) for own in zip(*logits, strict=True)]
        return replace(self, strengths=(self.strengths[int(np.argmax(scores))],))

    def train(
        self, train_x: Features, train_y: Targets, valid_x: Features, valid_y: Targets,
        *, num_classes: int, multilabel: bool, seed: int, score: ScoreFunction,
    ) -> State:  # fmt: skip
        """See `Probe`."""
        return {"weight": self.solve(train_x, train_y, valid_x, valid_y, num_classes, score=score)}

    def solve(
        self, train_x: Features, train_y: Targets, valid_x: Features, valid_y: Targets, num_classes: int,
        *, score: ScoreFunction, on_both: bool = True,
    ) -> Float[Tensor, "dim1 num_classes"]:  # fmt: skip
        """Choose the strength with the best validation score, and fit.

        Args:
            train_x, train_y, valid_x, valid_y, num_classes, score: see `Probe.fit_predict`.
            on_both: fit to training and validation clips in the end, and not to the training clips alone.

        Returns:
            The weights; the last row is the bias.
        """
        if len(train_x) + len(valid_x) < train_x.shape[1]:
            basis = _span(train_x, valid_x)
            train_x, valid_x = _in_span(basis, train_x, valid_x)
            weight = self.solve(train_x, train_y, valid_x, valid_y, num_classes, score=score, on_both=on_both)
            return _out_of_span(basis, weight)
        train, valid = with_one(train_x), with_one(valid_x)
        y, valid_targets = as_tensor(train_y), as_tensor(valid_y)
        best_score, best_strength, best_weight = -1.0, self.strengths[0], torch.zeros(train.shape[1], num_classes)
        for strength, weight in zip(self.strengths, self._path(train, y, num_classes), strict=True):
            reached = score(valid_y, (valid @ weight).numpy())
            if reached > best_score:
                best_score, best_strength, best_weight = reached, strength, weight
        if not on_both:
            return best_weight
        final = replace(self, max_iterations=self.final_iterations)
        return final.fit(torch.cat([train, valid]), torch.cat([y, valid_targets]), best_strength, best_weight)

    def _path(self, x: Float[Tensor, "clip dim1"], y: Tensor, num_classes: int) -> Iterator[Float[Tensor, "_ _"]]:
        """The weights of each strength, each fit starting at the last one's."""
        weight = torch.zeros(x.shape[1], num_classes)
        for strength in self.strengths:
            weight = self.fit(x, y, strength, weight)
            yield weight

    def fit_at(self, strength: float, x: Features, y: Targets, num_classes: int) -> Float[Tensor, "dim1 num_classes"]:
        """The weights of one strength, from zero; in the span of the clips where they are fewer than features."""
        if len(x) < x.shape[1]:
            basis = _span(x)
            [within] = _in_span(basis, x)
            return _out_of_span(basis, self.fit_at(strength, within, y, num_classes))
        return self.fit(with_one(x), as_tensor(y), strength, torch.zeros(x.shape[1] + 1, num_classes))

    def fit(
        self, x: Float[Tensor, "clip dim1"], y: Tensor, strength: float, start: Float[Tensor, "dim1 num_classes"]
    ) -> Float[Tensor, "dim1 num_classes"]:
        """The weights that minimise mean loss + |weights|^2 / (2 C clips); the last row is the bias, which is free."""
        weight = start.clone().requires_grad_()
        decay = 1 / (2 * strength * len(x))
        solver = torch.optim.LBFGS(
            [weight], max_iter=self.max_iterations, tolerance_grad=1e-5, history_size=10, line_search_fn="strong_wolfe"
        )

        def objective() -> Tensor:
            with threads.step():
                solver.zero_grad()
                loss = loss_of(x @ weight, y) + decay * weight[:-1].square().sum()
                loss.backward()
                return loss

        with following_load() as threads:
            solver.step(objective)
        return weight.detach()


def _span(*features: np.ndarray) -> Float32[np.ndarray, "dim clip"]:
    """An orthonormal basis of the space that clips span, whose columns are as many as the clips."""
    with following_load() as threads, threads.step(sum(map(len, features))):
        return np.linalg.qr(np.concatenate(features).T.astype(np.float64))[0].astype(np.float32)


def _in_span(basis: Float32[np.ndarray, "dim k"], *features: np.ndarray) -> list[np.ndarray]:
    """Features of clips as coordinates in a basis."""
    with following_load() as threads, threads.step(sum(map(len, features))):
        return [own @ basis for own in features]


def _out_of_span(basis: np.ndarray, weight: Float[Tensor, "k1 num_classes"]) -> Float[Tensor, "dim1 num_classes"]:
    """The weights of all features, of those of coordinates in a basis; the last row is the bias."""
    return torch.cat([torch.from_numpy(basis) @ weight[:-1], weight[-1:]])
