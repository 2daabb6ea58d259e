"""The classifiers that read a task's classes from frozen features, and how they are named.

Each only fits and predicts; `melmask.evaluate.probe` owns what must not differ between them.
"""

import ast
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar, get_args, get_origin

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch.nn import functional as F

from melmask.evaluate.attentive import AttentiveProbe
from melmask.evaluate.base import Features, Probe, Targets, as_tensor, loss_of, probabilities, with_one
from melmask.evaluate.fewshot import FewShotProbe
from melmask.evaluate.logistic import LogisticProbe
from melmask.evaluate.metrics import score_of
from melmask.evaluate.mlp import MlpProbe


@dataclass(frozen=True)
class LinearProbe:
    """One linear layer, trained with Adam; the epoch with the best validation score counts.

    The problem is convex, so weights start at 0: what is left to chance, and to seeds, is the order of the clips.

    Args:
        learning_rate: None is 1 / num_features: a step of Adam moves a logit by about 1, whatever the width. M2D's 3e-5
            on 3840 features is a ninth of it: on 2,000 clips, 200 epochs of that are far from a fit.
        weight_decay: of Adam, added to the gradient.
        batch_size: at most; fewer clips are one batch.
        max_epochs: an epoch is one pass over the training clips.
        patience: training stops after so many epochs without a better validation score.

    Source: EVAR, the evaluation package of M2D (arXiv 2404.06095). Deviates: the default learning rate, and
    weights that start at 0.
    """

    learning_rate: float | None = None
    weight_decay: float = 1e-8
    batch_size: int = 200
    max_epochs: int = 200
    patience: int = 20
    is_seeded: ClassVar[bool] = True

    def fit_predict(
        self, train_x: Features, train_y: Targets, valid_x: Features, valid_y: Targets, test_x: Features,
        *, num_classes: int, multilabel: bool, seed: int,
    ) -> Float32[np.ndarray, "test num_classes"]:  # fmt: skip
        """See `Probe`."""
        rng = torch.Generator().manual_seed(seed)
        train, valid, test = (with_one(x) for x in (train_x, valid_x, test_x))
        y = as_tensor(train_y)
        weight = torch.zeros(train.shape[1], num_classes, requires_grad=True)
        learning_rate = self.learning_rate or 1 / train_x.shape[1]
        adam = torch.optim.Adam([weight], learning_rate, weight_decay=self.weight_decay, fused=True)
        best_score, best_epoch, best_weight = -1.0, 0, weight.detach()
        for epoch in range(self.max_epochs):
            for batch in torch.randperm(len(train), generator=rng).split(self.batch_size):
                adam.zero_grad()
                loss_of(train[batch] @ weight, y[batch]).backward()
                adam.step()
            score = score_of(valid_y, (valid @ weight.detach()).numpy())
            if score > best_score:
                best_score, best_epoch, best_weight = score, epoch, weight.detach().clone()
            elif epoch - best_epoch >= self.patience:
                break
        return probabilities(test @ best_weight, multilabel)


@dataclass(frozen=True)
class RidgeProbe:
    """Least squares on class flags with a penalty on the weights, in closed form: the fastest probe, without chance.

    The strength is the one with the best validation score (of equals, the most regularised); the fit is then made anew
    on training and validation clips together. All strengths share one eigendecomposition, of the features' or the
    clips' Gram matrix, whichever is smaller. Where features have a few strong directions and carry the classes in many
    weak ones, as those of masked autoencoders do, squared error finds them and logistic regression does not.

    Args:
        strengths: penalties on the squared weights, as multiples of the mean squared norm of a clip; descending.

    Source: Hoerl and Kennard (1970), as a classifier. Deviates: not at all.
    """

    strengths: tuple[float, ...] = (1e2, 1e1, 1e0, 1e-1, 1e-2, 1e-3, 1e-4)
    is_seeded: ClassVar[bool] = False

    def fit_predict(
        self, train_x: Features, train_y: Targets, valid_x: Features, valid_y: Targets, test_x: Features,
        *, num_classes: int, multilabel: bool, seed: int,
    ) -> Float32[np.ndarray, "test num_classes"]:  # fmt: skip
        """See `Probe`; the probabilities are least-squares estimates, which may leave 0..1 a little."""
        train_flags, valid_flags = _flags(train_y, num_classes), _flags(valid_y, num_classes)
        scores = [score_of(valid_y, p) for p in self._predict(train_x, train_flags, valid_x, self.strengths)]
        best = self.strengths[int(np.argmax(scores))]
        both_x, both_flags = np.concatenate([train_x, valid_x]), np.concatenate([train_flags, valid_flags])
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


@dataclass(frozen=True)
class KnnProbe:
    """A vote of the nearest training and validation clips by cosine; nothing is trained, and nothing chosen.

    Args:
        num_neighbours: k, or all clips if there are fewer.
        temperature: a neighbour's vote weighs exp(cosine / temperature).

    Source: Wu et al. (2018), arXiv 1805.01978. Deviates: k is 10, and features are standardised.
    """

    num_neighbours: int = 10
    temperature: float = 0.07
    is_seeded: ClassVar[bool] = False

    def fit_predict(
        self, train_x: Features, train_y: Targets, valid_x: Features, valid_y: Targets, test_x: Features,
        *, num_classes: int, multilabel: bool, seed: int,
    ) -> Float32[np.ndarray, "test num_classes"]:  # fmt: skip
        """See `Probe`; the probabilities are shares of the votes."""
        bank = F.normalize(torch.tensor(np.concatenate([train_x, valid_x])))
        targets = torch.cat([as_tensor(train_y), as_tensor(valid_y)])
        flags = targets if multilabel else F.one_hot(targets, num_classes).float()
        votes = []
        for queries in F.normalize(torch.tensor(test_x)).split(1024):
            cosine, neighbour = (queries @ bank.T).topk(min(self.num_neighbours, len(bank)))
            share = (cosine / self.temperature).softmax(dim=1)
            votes.append(torch.einsum("qk,qkc->qc", share, flags[neighbour]))
        return torch.cat(votes).numpy()


def _flags(targets: Targets, num_classes: int) -> Float[np.ndarray, "_ num_classes"]:
    return targets.astype(np.float64) if targets.ndim == 2 else np.eye(num_classes)[targets]


PROBES: dict[str, Probe] = {
    "linear": LinearProbe(),
    "logistic": LogisticProbe(),
    "ridge": RidgeProbe(),
    "knn": KnnProbe(),
    "mlp": MlpProbe(),
    "fewshot": FewShotProbe(),
    "attentive": AttentiveProbe(),
}


def make_probe(name: str, options: Mapping[str, Any] | None = None) -> Probe:
    """A probe by its name, with settings of its own.

    Args:
        name: a key of `PROBES`; settings may follow a colon, written as Python writes them.
        options: further settings by name.

    Raises:
        ValueError: no such probe or setting, or a value out of its range.

    >>> make_probe("linear:learning_rate=3e-5") == make_probe("linear", {"learning_rate": 3e-5})
    True
    >>> make_probe("logistic:strengths=(0.1, 1.0), max_iterations=50").strengths
    (0.1, 1.0)
    """
    base, _, written = name.partition(":")
    if base not in PROBES:
        raise ValueError(f"no probe {base!r}: choose from {sorted(PROBES)}")
    probe: Any = PROBES[base]
    try:
        call = ast.parse(f"settings({written})", mode="eval").body
        given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}  # type: ignore[attr-defined]
        if call.args:  # type: ignore[attr-defined]
            raise ValueError("a value without a name")
    except (ValueError, SyntaxError) as error:
        raise ValueError(f"{name!r} is not a probe and its settings: write {base}:NAME=NUMBER,NAME=NUMBER") from error
    kinds = {field.name: field.type for field in fields(probe)}
    settings = {}
    for setting, value in {**given, **(options or {})}.items():
        if setting not in kinds:
            raise ValueError(f"{base} has no setting {setting!r}: choose from {sorted(kinds)}")
        settings[setting] = _as_kind(f"{base}:{setting}", value, kinds[setting])
    return replace(probe, **settings)


def label_of(probe: Probe) -> str:
    """How a probe is called in tables: its name, with the settings that are not the usual ones.

    >>> label_of(KnnProbe(num_neighbours=3))
    'knn:num_neighbours=3'
    """
    for name, usual in PROBES.items():
        if type(probe) is type(usual) and is_dataclass(probe):
            mine = {field.name: getattr(probe, field.name) for field in fields(probe)}
            changed = [f"{key}={value!r}" for key, value in mine.items() if value != getattr(usual, key)]
            return ":".join([name, ",".join(changed)] if changed else [name])
    return type(probe).__name__


def _as_kind(setting: str, value: Any, kind: Any) -> Any:
    """A setting's value as its type wants it: a whole number from 1 on, a positive number, or several."""
    if get_origin(kind) is tuple:
        several = value if isinstance(value, tuple | list) else (value,)
        if not several:
            raise ValueError(f"{setting} is empty: give one value at least")
        return tuple(_as_kind(setting, one, get_args(kind)[0]) for one in several)
    is_whole = kind is int
    if isinstance(value, bool) or not isinstance(value, int if is_whole else int | float):
        raise ValueError(f"{setting}={value!r}: give a {'whole ' if is_whole else ''}number")
    may_be_zero = setting.endswith(("weight_decay", "dropout"))
    if not (value >= 1 if is_whole else 0 < value < math.inf or (value == 0 and may_be_zero)):
        wanted = "1 or more" if is_whole else "a positive number"
        raise ValueError(f"{setting}={value!r} is out of range: give {wanted}")
    return value if is_whole else float(value)
