"""A classifier: a probe or a fine-tuned head on the features of clips, trained for use on new recordings."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64

from melmask.audio import Noted
from melmask.encoders.base import AudioEncoder
from melmask.encoders.recordings import noted_by_caller
from melmask.encoders.timesteps import TimeSteps, half
from melmask.models.base import DEFAULT_SETTINGS, About, PredictSettings, Region, Row, decimals, decode_noted
from melmask.models.held_out import NONE_HELD_OUT, HeldOut
from melmask.models.windows import Windows
from melmask.probes import label_of
from melmask.probes.base import Probe, State
from melmask.probes.run import standardised

AT_ONCE_S = 320.0  # of sound in the windows that are embedded together
MULTILABEL_THRESHOLD = 0.5  # of a class to be among the labels of a multi-label model
PROBE = "probe."  # prefix of the tensors of a probe


@dataclass(frozen=True, eq=False)
class Classification:
    """The probabilities of the windows of one recording.

    Args:
        path: the recording.
        classes: names, the columns of ``probabilities``.
        start_s, end_s: of each window, in seconds.
        probabilities: of each class in each window.
        is_multilabel: whether a window may have any number of labels.
        threshold: of the confidence, below which the model abstains.
        top_k: see `PredictSettings`.
    """

    path: Path
    classes: tuple[str, ...]
    start_s: Float64[np.ndarray, " window"]
    end_s: Float64[np.ndarray, " window"]
    probabilities: Float32[np.ndarray, "window num_classes"]
    is_multilabel: bool = False
    threshold: float = 0.0
    top_k: int = 0

    @property
    def confidence(self) -> Float32[np.ndarray, " window"]:
        """The highest probability of each window."""
        return self.probabilities.max(axis=1)

    @property
    def abstains(self) -> np.ndarray:
        """Whether each window is less sure than the threshold."""
        return self.confidence < self.threshold

    @property
    def labels(self) -> list[str]:
        """The class of each window, or its classes joined by ``;``; empty where the model abstains."""
        return [self._label(number) for number in range(len(self.probabilities))]

    def _label(self, number: int) -> str:
        row = self.probabilities[number]
        if self.abstains[number]:
            return ""
        if self.is_multilabel:
            return ";".join(self.classes[i] for i in np.flatnonzero(row >= MULTILABEL_THRESHOLD))
        return self.classes[int(row.argmax())]

    def rows(self) -> Iterator[Row]:
        """See `Prediction`."""
        confidence, abstains = self.confidence, self.abstains
        for number, label in enumerate(self.labels):
            row, times = self.probabilities[number], (decimals(self.start_s[number]), decimals(self.end_s[number]))
            best = np.argsort(-row, kind="stable")[: self.top_k]
            cells: list[str | float] = [cell for i in best for cell in (self.classes[i], decimals(row[i]))]
            cells = cells if self.top_k else [decimals(value) for value in row]
            yield (str(self.path), *times, label, decimals(confidence[number]), bool(abstains[number]), *cells)

    def regions(self) -> Iterator[Region]:
        """See `Prediction`; a window where the model abstains is labelled ``?``, and one without labels left out."""
        confidence, abstains = self.confidence, self.abstains
        for number, label in enumerate(self.labels):
            shown = "?" if abstains[number] else label
            if shown:
                yield Region(float(self.start_s[number]), float(self.end_s[number]), shown, float(confidence[number]))


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained classifier of recordings or of their windows; a `melmask.models.base.Model`.

    Args:
        encoder: whose features the probe reads.
        probe: what predicts.
        state: what it was trained to.
        centre, scale: of the standardisation of its features.
        classes: names, the columns of what it predicts.
        is_multilabel: whether a recording may have any number of labels.
        is_binary: whether each class is predicted on its own, as those of a multi-label model are.
        clip_s: length of the clips it was trained on, in seconds; 0 for whole recordings of any length.
        held_out: predictions of clips by models that were trained without them.
        about: where it comes from.
    """

    encoder: AudioEncoder
    probe: Probe
    state: State
    centre: Float[np.ndarray, " dim"]
    scale: Float[np.ndarray, " dim"]
    classes: tuple[str, ...]
    is_multilabel: bool
    is_binary: bool
    clip_s: float = 0.0
    held_out: HeldOut = NONE_HELD_OUT
    about: About | None = None

    def check(self, settings: PredictSettings) -> None:
        """See `Model`."""
        self._threshold(settings)

    def columns(self, settings: PredictSettings = DEFAULT_SETTINGS) -> Mapping[str, type]:
        """See `Model`: path, start_s, end_s, label, confidence, abstained, and the classes or the first of them."""
        first = {"path": str, "start_s": float, "end_s": float, "label": str, "confidence": float, "abstained": bool}
        if not settings.top_k:
            return first | {f"p:{name}": float for name in self.classes}
        ranks = range(1, min(settings.top_k, len(self.classes)) + 1)
        return first | {name: kind for i in ranks for name, kind in ((f"label_{i}", str), (f"p_{i}", float))}

    def predict(self, path: Path, settings: PredictSettings, noted: Noted) -> Classification:
        """See `Model`."""
        windows = settings.windows or Windows(self.clip_s, pad=bool(self.clip_s))
        rate_hz, threshold = self.encoder.sample_rate_hz, self._threshold(settings)
        at_once = max(1, int(AT_ONCE_S / windows.window_s)) if windows.window_s else 1

        def use(blocks: Iterator[np.ndarray]) -> Classification:
            found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
            cut = windows.of(blocks, rate_hz)
            while some := list(islice(cut, at_once)):
                starts, ends, waves = zip(*some, strict=True)
                with noted_by_caller():
                    probabilities = self.probabilities(list(waves), rate_hz)
                found.append((np.array(starts), np.array(ends), probabilities))
            start_s, end_s, values = (np.concatenate(parts) for parts in zip(*found, strict=True))
            return Classification(
                path, self.classes, start_s, end_s, values, self.is_multilabel, threshold, settings.top_k
            )

        return decode_noted(path, self.encoder, use, noted)

    def probabilities(self, waves: list[np.ndarray], sample_rate_hz: int) -> Float32[np.ndarray, "window num_classes"]:
        """The probabilities of the classes for each of several waveforms.

        Args:
            waves: of any lengths.
            sample_rate_hz: of all of them.
        """
        features: np.ndarray | TimeSteps
        if self.probe.reads == "time steps" and self.encoder.has_time_steps:
            steps = [self.encoder.embed_frames(wave, sample_rate_hz)[0] for wave in waves]
            length = np.array([len(of_wave) for of_wave in steps])
            features = TimeSteps(half(np.concatenate(steps), "features"), np.cumsum(length) - length, length)
        else:
            features = self.encoder.embed(waves, sample_rate_hz)
        x = standardised(features, self.centre, self.scale)
        return self.probe.predict(self.state, x, multilabel=self.is_binary)

    def _threshold(self, settings: PredictSettings) -> float:
        return 0.0 if settings.accuracy is None else self.held_out.threshold(settings.accuracy)

    def as_tensors(self) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """See `Model`."""
        tensors = {f"{PROBE}{name}": tensor for name, tensor in self.state.items()}
        arrays = {"centre": self.centre, "scale": self.scale}
        arrays |= {"held_out.confidence": self.held_out.confidence, "held_out.is_right": self.held_out.is_right}
        tensors |= {name: torch.from_numpy(np.array(values)) for name, values in arrays.items()}
        values = {"is_multilabel": self.is_multilabel, "is_binary": self.is_binary, "clip_s": self.clip_s}
        return tensors, {"probe": label_of(self.probe)} | {name: json.dumps(value) for name, value in values.items()}


def on_windows(settings: PredictSettings, window_s: float, hop_s: float) -> PredictSettings:
    """The settings with windows of these lengths, if one is given."""
    return replace(settings, windows=Windows(window_s, hop_s)) if window_s or hop_s else settings
