"""Ridge regression in closed form."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float32

from melmask.probes.base import Division, Features, Probe, ScoreFunction, State, Targets, check_ranges
from melmask.threads import following_load


@dataclass(frozen=True)
class RidgeProbe(Probe):
    """Least squares on class flags with a penalty on the weights, in closed form: deterministic, the fastest probe.

    The strength is the one with the best score of clips that were held out (of equals, the most regularised): of a
    task's own validation split, or else of all training and validation clips, part by part, since a single part may be
    one speaker. The fit is then repeated on training and validation clips together. All strengths share one
    eigendecomposition, of the features' or the clips' Gram matrix, whichever is smaller. Where features have a few
    strong directions and carry the classes in many weak ones, as those of masked autoencoders do, squared error finds
    them and logistic regression does not.

    Args:
        strengths: penalties on the squared weights, as multiples of the mean squared norm of a clip; descending.

    Source: Hoerl and Kennard (1970), as a classifier. Deviates: not at all.
    """

    strengths: tuple[float, ...] = (1e2, 1e1, 1e0, 1e-1, 1e-2, 1e-3, 1e-4)

    def __post_init__(self) -> None:
        check_ranges(self)

    def choose(self, divisions: Iterable[Division], *, num_classes: int, score: ScoreFunction) -> "RidgeProbe":
        """See `Probe`."""
        return replace(self, strengths=(self._chosen(divisions, num_classes, score),))

    def fit_predict(
        self, train_x: Features, train_y: Targets, valid_x: Features, valid_y: Targets, test_x: Features,
        *, num_classes: int, multilabel: bool, seed: int, score: ScoreFunction,
    ) -> Float32[np.ndarray, "test num_classes"]:  # fmt: skip
        """See `Probe`; the probabilities are least-squares estimates, which may leave 0..1 a little."""
        strength = self._chosen([(train_x, train_y, valid_x, valid_y)], num_classes, score)
        both_x, both_flags = self._both(train_x, train_y, valid_x, valid_y, num_classes)
        with following_load() as threads, threads.step(len(both_x)):
            return next(_predict(both_x, both_flags, test_x, (strength,)))

    def train(
        self, train_x: Features, train_y: Targets, valid_x: Features, valid_y: Targets,
        *, num_classes: int, multilabel: bool, seed: int, score: ScoreFunction,
    ) -> State:  # fmt: skip
        """See `Probe`; predictions differ from those of `fit_predict` by rounding only."""
        strength = self._chosen([(train_x, train_y, valid_x, valid_y)], num_classes, score)
        x, flags = self._both(train_x, train_y, valid_x, valid_y, num_classes)
        with following_load() as threads, threads.step(len(x)):
            found = _decompose(x, flags)
            weight = found.basis / (found.values + strength * found.unit) @ found.inner
        return {"weight": torch.from_numpy(weight), "bias": torch.from_numpy(found.share - found.centre @ weight)}

    def predict(self, state: State, x: Features, *, multilabel: bool) -> Float32[np.ndarray, "_ num_classes"]:
        """See `Probe`; the estimates may leave 0..1 a little."""
        return (x @ state["weight"].numpy() + state["bias"].numpy()).astype(np.float32)

    def _chosen(self, divisions: Iterable[Division], num_classes: int, score: ScoreFunction) -> float:
        """The strength with the best score of the clips that are held out, those of all divisions together."""
        if len(self.strengths) == 1:
            return self.strengths[0]
        targets, estimates = [], []
        for train_x, train_y, held_x, held_y in divisions:
            with following_load() as threads, threads.step(len(train_x)):
                estimates.append(list(_predict(train_x, _flags(train_y, num_classes), held_x, self.strengths)))
            targets.append(held_y)
        scores = [score(np.concatenate(targets), np.concatenate(own)) for own in zip(*estimates, strict=True)]
        return self.strengths[int(np.argmax(scores))]

    def _both(
        self, train_x: Features, train_y: Targets, valid_x: Features, valid_y: Targets, num_classes: int
    ) -> tuple[Features, Float[np.ndarray, "_ num_classes"]]:
        """Training and validation clips together, and their class flags."""
        flags = [_flags(targets, num_classes) for targets in (train_y, valid_y)]
        return np.concatenate([train_x, valid_x]), np.concatenate(flags)


@dataclass(frozen=True, eq=False)
class _Decomposition:
    """What all strengths share: estimates are ``(x - centre) @ basis / (values + strength * unit) @ inner + share``."""

    centre: Float[np.ndarray, " dim"]
    share: Float[np.ndarray, " num_classes"]
    basis: Float[np.ndarray, "dim k"]
    values: Float[np.ndarray, " k"]
    inner: Float[np.ndarray, "k num_classes"]
    unit: float


def _decompose(x: Features, flags: Float[np.ndarray, "clip num_classes"]) -> _Decomposition:
    """Decompose the Gram matrix of features or clips; the bias is free, as everything is centred on ``x``."""
    centre, share = x.mean(axis=0, dtype=np.float64), flags.mean(axis=0)
    centred = x - centre
    few_clips = len(x) < x.shape[1]
    gram = centred @ centred.T if few_clips else centred.T @ centred
    values, vectors = np.linalg.eigh(gram)
    if few_clips:
        basis, inner = centred.T @ vectors, vectors.T @ (flags - share)
    else:
        basis, inner = vectors, vectors.T @ (centred.T @ (flags - share))
    unit = max(np.trace(gram) / len(x), np.finfo(np.float64).tiny)
    return _Decomposition(centre, share, basis, values.clip(min=0), inner, unit)


def _predict(
    x: Features, flags: Float[np.ndarray, "clip num_classes"], test_x: Features, strengths: Sequence[float]
) -> Iterator[Float32[np.ndarray, "test num_classes"]]:
    """Estimates for test clips, for each strength."""
    found = _decompose(x, flags)
    outer = (test_x - found.centre) @ found.basis
    for strength in strengths:
        yield (outer / (found.values + strength * found.unit) @ found.inner + found.share).astype(np.float32)


def _flags(targets: Targets, num_classes: int) -> Float[np.ndarray, "_ num_classes"]:
    return targets.astype(np.float64) if targets.ndim == 2 else np.eye(num_classes)[targets]
