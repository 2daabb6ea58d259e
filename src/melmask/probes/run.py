"""One split of a task: what must not differ between probes.

`predict_split` standardises the features, leaves out classes that the training clips lack, and trains once for each
seed. `fit_for_use` trains on clips that nothing is tested on. A probe only fits and predicts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from melmask.encoders.timesteps import TimeSteps, standardise
from melmask.probes.base import AnyProbe, Probe, Reading, ScoreFunction, State, Targets


@dataclass(frozen=True, eq=False)
class LabelledFeatures:
    """Features and labels of all clips of a task; row i of everything is clip i.

    Args:
        features: an embedding or the time steps of each clip.
        flags: class flags.
        classes: names of the classes, the columns of ``flags``.
        multilabel: whether a clip may have any number of classes.
        test_features: of the clips as they are tested; None if they are those that a probe is trained on.
    """

    features: Float[np.ndarray, "clip dim"] | TimeSteps
    flags: Bool[np.ndarray, "clip num_classes"]
    classes: Sequence[str]
    multilabel: bool
    test_features: Float[np.ndarray, "clip dim"] | TimeSteps | None = None


def predict_split(
    probe: Probe,
    data: LabelledFeatures,
    train: Int[np.ndarray, " train"],
    valid: Int[np.ndarray, " valid"],
    test: Int[np.ndarray, " test"],
    *,
    parts: Sequence[Int[np.ndarray, " _"]] = (),
    seeds: Sequence[int],
    score: ScoreFunction,
) -> tuple[Float32[np.ndarray, "seed test num_classes"], list[str]]:
    """Train a probe on one split, once for each seed, and predict its test clips.

    Args:
        probe: the classifier.
        data: all clips of the task.
        train, valid, test: rows of the split's clips; validation clips of classes without training clips are left out.
        parts: of training and validation clips, each of which is held out while the probe chooses its settings, see
            `Probe.choose`; none: the validation clips choose them.
        seeds: of each training.
        score: the validation metric.

    Returns:
        Probabilities, 0 for classes without training clips; and notes for the reader of the score.

    Raises:
        ValueError: no validation clip has a class of the training clips, or the probe cannot be trained on these clips.
    """
    notes = []
    flags, classes = data.flags, data.classes
    trained = np.flatnonzero(flags[train].any(axis=0))
    missing = np.setdiff1d(np.flatnonzero(flags.any(axis=0)), trained)
    if len(missing):
        names = ", ".join(classes[label] for label in missing[:5].tolist()) + (", ..." if len(missing) > 5 else "")
        num_test = int(flags[test][:, missing].any(axis=1).sum())
        notes.append(f"no training clips of {names}; never predicted, in {num_test} test clips")
        valid = valid[flags[valid][:, trained].any(axis=1)]
    if not len(valid):
        raise ValueError("no validation clip has a class of the training clips: check the splits")
    notes += probe.notes(flags[train][:, trained].sum(axis=0), [classes[label] for label in trained.tolist()])

    clips = _Clips(data, trained, *_standardisation(data.features[train]))
    both = np.concatenate([train, valid])
    probe = chosen_by_parts(probe, both, parts, lambda mine: clips[both[mine]], num_classes=len(trained), score=score)
    tested = data.features if data.test_features is None else data.test_features
    test_x = standardised(tested[test], clips.centre, clips.scale)
    (train_x, train_y), (valid_x, valid_y) = clips[train], clips[valid]
    scores = np.zeros((len(seeds), len(test), len(classes)), np.float32)
    for row, seed in enumerate(seeds):
        scores[row][:, trained] = probe.fit_predict(
            train_x, train_y, valid_x, valid_y, test_x,
            num_classes=len(trained), multilabel=data.multilabel, seed=seed, score=score,
        )  # fmt: skip
    return scores, notes


@dataclass(frozen=True, eq=False)
class Fitted:
    """A probe that is trained for use.

    Args:
        state: what it was trained to.
        centre, scale: of the standardisation of its features.
    """

    state: State
    centre: Float[np.ndarray, " dim"]
    scale: Float[np.ndarray, " dim"]

    def predict(
        self, probe: Probe, features: np.ndarray | TimeSteps, is_multilabel: bool
    ) -> Float32[np.ndarray, "_ k"]:
        """The probabilities of clips, by the probe that was trained."""
        return probe.predict(self.state, standardised(features, self.centre, self.scale), multilabel=is_multilabel)


def fit_for_use(
    probe: Probe,
    data: LabelledFeatures,
    train: Int[np.ndarray, " train"],
    valid: Int[np.ndarray, " valid"],
    *,
    parts: Sequence[Int[np.ndarray, " _"]] = (),
    score: ScoreFunction,
    seed: int = 0,
) -> Fitted:
    """Train a probe on some clips, among which every class must be.

    Args:
        probe: the classifier.
        data: all clips.
        train: rows of the clips to train on.
        valid: rows of those that choose its settings; probes that do so in evaluation are then trained on them too.
        parts: as of `predict_split`.
        score: the validation metric.
        seed: of the training.

    Raises:
        ValueError: the probe cannot be saved, or be trained on these clips.
    """
    clips = _Clips(data, np.arange(len(data.classes)), *_standardisation(data.features[train]))
    both = np.concatenate([train, valid])
    probe = chosen_by_parts(
        probe, both, parts, lambda mine: clips[both[mine]], num_classes=len(data.classes), score=score
    )
    state = probe.train(
        *clips[train], *clips[valid],
        num_classes=len(data.classes), multilabel=data.multilabel, seed=seed, score=score,
    )  # fmt: skip
    return Fitted(state, clips.centre, clips.scale)


@dataclass(frozen=True, eq=False)
class _Clips:
    """Standardised features and targets of clips by their rows, of some classes."""

    data: LabelledFeatures
    classes: Int[np.ndarray, " num_classes"]
    centre: Float[np.ndarray, " dim"]
    scale: Float[np.ndarray, " dim"]

    def __getitem__(self, rows: Int[np.ndarray, " _"]) -> tuple[Reading, Targets]:
        flags = self.data.flags[rows][:, self.classes]
        features = standardised(self.data.features[rows], self.centre, self.scale)
        return features, flags if self.data.multilabel else flags.argmax(axis=1)


def chosen_by_parts(
    probe: AnyProbe,
    rows: Int[np.ndarray, " clip"],
    parts: Sequence[Int[np.ndarray, " _"]],
    clips: Callable[[Bool[np.ndarray, " clip"]], tuple[Reading, Targets]],
    *,
    num_classes: int,
    score: ScoreFunction,
) -> AnyProbe:
    """The probe with the settings that parts of the clips choose, see `Probe.choose`; as it is if there are none.

    Args:
        probe: the classifier.
        rows: of the training and validation clips.
        parts: rows of each part.
        clips: features and targets of those of these clips where a flag is set.
        num_classes, score: as of `Probe.fit_predict`.
    """
    if not parts:
        return probe
    is_held_out = (np.isin(rows, part) for part in parts)
    divisions = ((*clips(~held), *clips(held)) for held in is_held_out if held.any() and not held.all())
    return probe.choose(divisions, num_classes=num_classes, score=score)


def standardised(
    features: np.ndarray | TimeSteps, centre: Float[np.ndarray, " dim"], scale: Float[np.ndarray, " dim"]
) -> Any:
    """Features less ``centre`` times ``scale``, of clips or of time steps."""
    if isinstance(features, TimeSteps):
        return replace(features, centre=centre.astype(np.float32), scale=scale.astype(np.float32))
    return ((features - centre) * scale).astype(np.float32)


def _standardisation(train: np.ndarray | TimeSteps) -> tuple[np.ndarray, np.ndarray]:
    """Zero mean and unit deviation on the training clips; features that are constant there become 0 everywhere."""
    if isinstance(train, TimeSteps):
        [own] = standardise(train)
        return np.asarray(own.centre), np.asarray(own.scale)
    mean, deviation = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64)
    varies = deviation > np.finfo(np.float32).eps * np.abs(mean)  # below this, float32 features vary by rounding only
    scale = np.where(varies, 1 / np.where(varies, deviation, 1), 0)
    return mean, scale
