"""The protocol of a probe, and the few lines that several probes share."""

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor
from torch.nn import functional as F

from melmask.encoders.cache import Reads

Features = Float32[np.ndarray, "_ dim"]
Reading = Any  # `Features`, or the `TimeSteps` that a probe of time steps reads
Targets = Int[np.ndarray, " _"] | Bool[np.ndarray, "_ num_classes"]
# (targets, scores of the classes) -> the validation metric, the higher the better; only the order of scores may count.
ScoreFunction = Callable[[Targets, Float[np.ndarray, "_ num_classes"]], float]
State = Mapping[str, Tensor]  # all that a trained probe predicts by, which a file can hold
Division = tuple[Reading, Targets, Reading, Targets]  # features and targets of the clips to train on; of those held out
AnyProbe = TypeVar("AnyProbe", bound="Probe")


@runtime_checkable
class Probe(Protocol):
    """A classifier of frozen features; subclass it, and define `train` and `predict`, or `fit_predict` alone.

    A probe may look at the validation clips to choose settings or epochs. It never sees labels of test clips. One that
    is a frozen dataclass can be given settings on the command line, see `melmask.probes.make_probe`. One that defines
    `fit_predict` alone can be evaluated, but not be saved for use on new recordings.

    Attributes:
        reads: "clips": an embedding a clip. "time steps": `TimeSteps`, of encoders that have them; of others it is
            given embeddings all the same.
    """

    reads: ClassVar[Reads] = "clips"

    def num_trainings(self, num_seeds: int) -> int:
        """How often the probe is trained on a split if ``num_seeds`` are asked for; 1 for a deterministic probe."""
        return 1

    def notes(self, num_per_class: Int[np.ndarray, " num_classes"], names: Sequence[str]) -> list[str]:
        """What a reader of the score has to know of the training clips.

        Args:
            num_per_class: training clips of each class, at least 1.
            names: of the same classes.
        """
        return []

    def choose(self: AnyProbe, divisions: Iterable[Division], *, num_classes: int, score: ScoreFunction) -> AnyProbe:
        """The probe with settings that all training and validation clips have chosen, each while it was held out.

        Called before training where the task has no validation split of its own. By default the probe itself, whose
        settings the validation clips of its training choose.

        Args:
            divisions: of the training and validation clips, in each of which another part, of whole groups, is held
                out; made as they are asked for.
            num_classes, score: as of `fit_predict`.
        """
        return self

    def train(
        self, train_x: Reading, train_y: Targets, valid_x: Reading, valid_y: Targets,
        *, num_classes: int, multilabel: bool, seed: int, score: ScoreFunction,
    ) -> State:  # fmt: skip
        """Train, and return all that `predict` needs, as tensors; arguments as of `fit_predict`.

        Raises:
            ValueError: the probe defines `fit_predict` alone.
        """
        raise ValueError(f"{type(self).__name__} cannot be saved: define train and predict in place of fit_predict")

    def predict(self, state: State, x: Reading, *, multilabel: bool) -> Float32[np.ndarray, "_ num_classes"]:
        """Probabilities of the classes for each clip.

        Args:
            state: what `train` returned.
            x: features, standardised as those that it was trained on.
            multilabel: whether a clip may have any number of classes.

        Raises:
            ValueError: the probe defines `fit_predict` alone.
        """
        raise ValueError(f"{type(self).__name__} cannot be saved: define train and predict in place of fit_predict")

    def fit_predict(
        self, train_x: Reading, train_y: Targets, valid_x: Reading, valid_y: Targets, test_x: Reading,
        *, num_classes: int, multilabel: bool, seed: int, score: ScoreFunction,
    ) -> Float32[np.ndarray, "test num_classes"]:  # fmt: skip
        """Probabilities of the classes for each test clip.

        Args:
            train_x, valid_x, test_x: features, standardised on the training clips; `TimeSteps` if the probe reads these
                and the encoder has them.
            train_y, valid_y: a class per clip, or class flags if multilabel.
            num_classes: all of them occur in train_y.
            multilabel: whether a clip may have any number of classes.
            seed: of all random numbers.
            score: the validation metric; the higher, the better.
        """
        settings: dict[str, Any] = {"num_classes": num_classes, "multilabel": multilabel, "seed": seed, "score": score}
        return self.predict(self.train(train_x, train_y, valid_x, valid_y, **settings), test_x, multilabel=multilabel)


class LinearPrediction:
    """What probes share whose state is one matrix, of which the last row is the bias."""

    def predict(self, state: State, x: Features, *, multilabel: bool) -> Float32[np.ndarray, "_ num_classes"]:
        """See `Probe`."""
        return probabilities(with_one(x) @ state["weight"], multilabel)


def check_ranges(probe: Any, *, may_be_zero: Container[str] = ()) -> None:
    """Check the settings of a probe: whole numbers from 1 on, and other numbers positive and finite; None is allowed.

    Args:
        probe: a dataclass of numbers and tuples of numbers.
        may_be_zero: names of settings for which 0 is allowed.

    Raises:
        ValueError: a setting is out of its range, or a tuple is empty.
    """
    for name in (field.name for field in fields(probe)):
        value = getattr(probe, name)
        if value == ():
            raise ValueError(f"{name} is empty: give at least one value")
        for number in value if isinstance(value, tuple) else (value,):
            if number is None or isinstance(number, bool) or (number == 0 and name in may_be_zero):
                continue
            if isinstance(number, int) and number < 1:
                raise ValueError(f"{name}={number} is out of range: give 1 or more")
            if not 0 < number < math.inf:
                raise ValueError(f"{name}={number} is out of range: give a positive number")


def with_one(x: Features) -> Float32[Tensor, "_ dim1"]:
    """Append a feature that is always 1, whose weight is the bias."""
    return F.pad(torch.tensor(x), (0, 1), value=1.0)


def as_tensor(targets: Targets) -> Tensor:
    """Convert targets to what the losses take: classes to integers, class flags to floats."""
    return torch.tensor(targets, dtype=torch.float32 if targets.ndim == 2 else torch.int64)


def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy; for several labels a clip binary cross-entropy summed over classes, each fitted on its own."""
    if targets.ndim == 1:
        return F.cross_entropy(logits, targets)
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(targets)


def probabilities(logits: Tensor, multilabel: bool) -> Float32[np.ndarray, "_ num_classes"]:
    """Softmax over classes that exclude each other, or the sigmoid of each class on its own if multilabel."""
    return (logits.sigmoid() if multilabel else logits.softmax(dim=1)).numpy()
