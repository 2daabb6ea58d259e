"""Ridge regression in closed form."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from melmask.probes.base import Features, Probe, ScoreFunction, Targets, check_ranges
from melmask.threads import following_load


@dataclass(frozen=True)
class RidgeProbe(Probe):
    """Least squares on class flags with a penalty on the weights, in closed form: deterministic, the fastest probe.

    The strength is the one with the best validation score (of equals, the most regularised); the fit is then repeated
    on training and validation clips together. All strengths share one eigendecomposition, of the features' or the
    clips' Gram matrix, whichever is smaller. Where features have a few strong directions and carry the classes in many
    weak ones, as those of masked autoencoders do, squared error finds them and logistic regression does not.

    Args:
        strengths: penalties on the squared weights, as multiples of the mean squared norm of a clip; descending.

    Source: Hoerl and Kennard (1970), as a classifier. Deviates: not at all.
    """

    strengths: tuple[float, ...] = (1e2, 1e1, 1e0, 1e-1, 1e-2, 1e-3, 1e-4)

    def __post_init__(self) -> None:
        check_ranges(self)

    def fit_predict(
        self, train_x: Features, train_y: Targets, valid_x: Features, valid_y: Targets, test_x: Features,
        *, num_classes: int, multilabel: bool, seed: int, score: ScoreFunction,
    ) -> Float32[np.ndarray, "test num_classes"]:  # fmt: skip
        """See `Probe`; the probabilities are least-squares estimates, which may leave 0..1 a little."""
        train_flags, valid_flags = _flags(train_y, num_classes), _flags(valid_y, num_classes)
        with following_load() as threads:
            with threads.step(len(train_x)):
                scores = [score(valid_y, p) for p in self._predict(train_x, train_flags, valid_x, self.strengths)]
            best = self.strengths[int(np.argmax(scores))]
            both_x, both_flags = np.concatenate([train_x, valid_x]), np.concatenate([train_flags, valid_flags])
            with threads.step(len(both_x)):
                return next(self._predict(both_x, both_flags, test_x, (best,)))

    def _predict(
        self, x: Features, flags: Float[np.ndarray, "clip num_classes"], test_x: Features, strengths: Sequence[float]
    ) -> Iterator[Float32[np.ndarray, "test num_classes"]]:
        """Estimates for test clips, for each strength; the bias is free, as everything is centred on ``x``."""
        centre, share = x.mean(axis=0, dtype=np.float64), flags.mean(axis=0)
        centred, test = x - centre, test_x - centre
        few_clips = len(x) < x.shape[1]
        gram = centred @ centred.T if few_clips else centred.T @ centred
        values, vectors = np.linalg.eigh(gram)
        if few_clips:
            outer, inner = test @ (centred.T @ vectors), vectors.T @ (flags - share)
        else:
            outer, inner = test @ vectors, vectors.T @ (centred.T @ (flags - share))
        unit = max(np.trace(gram) / len(x), np.finfo(np.float64).tiny)
        for strength in strengths:
            yield (outer / (values.clip(min=0) + strength * unit) @ inner + share).astype(np.float32)


def _flags(targets: Targets, num_classes: int) -> Float[np.ndarray, "_ num_classes"]:
    return targets.astype(np.float64) if targets.ndim == 2 else np.eye(num_classes)[targets]
