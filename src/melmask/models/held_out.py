"""How sure a model was of clips that it had not been trained on, and the confidence below which it abstains."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32

MIN_CLIPS = 10  # fewer say nothing of an accuracy


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The predictions of labelled clips by a model of the same kind that was trained without them.

    Args:
        confidence: the highest probability of each clip.
        is_right: whether the class of that probability is the clip's label, or one of its labels.
    """

    confidence: Float32[np.ndarray, " clip"]
    is_right: Bool[np.ndarray, " clip"]

    @staticmethod
    def of(
        probabilities: Float[np.ndarray, "clip num_classes"], flags: Bool[np.ndarray, "clip num_classes"]
    ) -> "HeldOut":
        """Of the probabilities and the labels of these clips."""
        chosen = probabilities.argmax(axis=1)
        rows = np.arange(len(chosen))
        return HeldOut(probabilities[rows, chosen].astype(np.float32), flags[rows, chosen])

    def threshold(self, accuracy: float) -> float:
        """The smallest confidence for which clips of at least that confidence are right as often as asked for.

        Args:
            accuracy: the share of right clips that is asked for, in (0, 1].

        Raises:
            ValueError: it is no share, there are too few clips to tell, or none are right so often.

        >>> held_out = HeldOut(np.linspace(0, 1, 11, dtype=np.float32), np.arange(11) >= 5)
        >>> round(held_out.threshold(0.75), 2)
        0.3
        """
        if not 0 < accuracy <= 1:
            raise ValueError(f"an accuracy of {accuracy}: give a share above 0 and up to 1, such as 0.95")
        if len(self.confidence) < MIN_CLIPS:
            raise ValueError(
                f"the model knows {len(self.confidence)} held-out clips, too few to say from which confidence on it is "
                f"right: train it with at least {MIN_CLIPS} validation clips, or leave the accuracy out"
            )
        order = np.argsort(-self.confidence, kind="stable")
        ranked = self.confidence[order]
        reached = np.cumsum(self.is_right[order]) / np.arange(1, len(order) + 1)
        reached[:-1][ranked[:-1] == ranked[1:]] = -1  # no threshold lies between equal confidences
        enough = np.flatnonzero(reached >= accuracy)
        if not len(enough):
            raise ValueError(
                f"no held-out clips are right in {accuracy:.0%} of cases, however sure the model is; the best is "
                f"{reached.max():.0%}: ask for less"
            )
        return float(ranked[enough[-1]])

    def kept(self, threshold: float) -> tuple[float, float]:
        """The share of the clips that are at least so confident, and the share of these that are right."""
        sure = self.confidence >= threshold
        return float(sure.mean()), float(self.is_right[sure].mean())


NONE_HELD_OUT = HeldOut(np.zeros(0, np.float32), np.zeros(0, np.bool_))
