"""A trained event detector: a linear probe of time steps with its thresholds, for use on new recordings."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from melmask.audio import Noted
from melmask.detect.decoding import Decoder
from melmask.detect.events import EVENT_COLUMNS, Event, merge
from melmask.detect.linear import predict
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.encoders.timesteps import TimeSteps, half
from melmask.logmel import LogMel
from melmask.models.base import DEFAULT_SETTINGS, About, PredictSettings, Region, Row, decimals, decode_noted
from melmask.runtime import one_thread

PIECE_CHUNKS = 64  # of the encoder's input length, whose features are held at once


@dataclass(frozen=True, eq=False)
class Detected:
    """The events in one recording, each with the mean probability of its time steps."""

    path: Path
    events: tuple[tuple[Event, float], ...]

    def rows(self) -> Iterator[Row]:
        """See `Prediction`."""
        for event, score in self.events:
            times = (decimals(event.onset_s), decimals(event.offset_s))
            yield (str(self.path), *times, event.label, decimals(score))

    def regions(self) -> Iterator[Region]:
        """See `Prediction`."""
        for event, score in self.events:
            yield Region(event.onset_s, event.offset_s, event.label, score)


@dataclass(frozen=True, eq=False)
class EventDetector:
    """A trained detector of sound events; a `melmask.models.base.Model`.

    Args:
        encoder: whose time steps it reads.
        weight: of the classes; the last row is the bias.
        centre, scale: of the standardisation of its features.
        decoder: thresholds and median filters.
        classes: names.
        max_gap_s: gaps of up to so many seconds within a class are closed.
        about: where it comes from.
    """

    encoder: PretrainedEncoder
    weight: Float[Tensor, "dim1 class"]
    centre: Float32[np.ndarray, " dim"]
    scale: Float32[np.ndarray, " dim"]
    decoder: Decoder
    classes: tuple[str, ...]
    max_gap_s: float
    about: About | None = None

    def check(self, settings: PredictSettings) -> None:
        """See `Model`."""
        if settings != DEFAULT_SETTINGS:
            raise ValueError("a detector finds the times of events itself: leave windows, top-k and accuracy out")

    def columns(self, settings: PredictSettings = DEFAULT_SETTINGS) -> Mapping[str, type]:
        """See `Model`: path, onset_s, offset_s, label, score, as `melmask detect` reads them."""
        onset_s, offset_s, label = EVENT_COLUMNS
        return {"path": str, onset_s: float, offset_s: float, label: str, "score": float}

    def predict(self, path: Path, settings: PredictSettings, noted: Noted) -> Detected:
        """See `Model`; only the probabilities of a long recording are held as a whole."""
        spec, step_s = self.encoder.spec, self.encoder.step_s
        front_end = LogMel(spec)

        def use(blocks: Iterator[np.ndarray]) -> tuple[np.ndarray, float]:
            found, num_samples = [], 0

            def counted() -> Iterator[np.ndarray]:
                nonlocal num_samples
                for block in blocks:
                    num_samples += len(block)
                    yield block

            for piece in self._pieces(front_end.for_store(counted())):
                found.append(self._probabilities(piece))
            return np.concatenate(found), num_samples / spec.sample_rate_hz

        with one_thread():
            probabilities, duration_s = decode_noted(path, self.encoder, use, noted)
        centres_s = self.encoder.timestamps_s(len(probabilities))
        events = merge(
            self.decoder(probabilities),
            self.classes,
            centres_s,
            step_s,
            max_gap_s=self.max_gap_s,
            duration_s=duration_s,
        )
        return Detected(path, tuple((event, self._score(event, probabilities, centres_s)) for event in events))

    def _pieces(self, frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """The log-mel in pieces of whole time steps and of whole inputs of the encoder."""
        step = self.encoder.encoder.patch_shape[1]
        size, held = PIECE_CHUNKS * (self.encoder.crop_frames // step * step), np.zeros((0, 0), np.float16)
        for some in frames:
            held = np.concatenate([held, some]) if len(held) else some
            while len(held) > size:  # never the last frame alone, as it may end a time step
                yield held[:size]
                held = held[size:]
        yield held

    def _probabilities(self, log_mel: Float[np.ndarray, "frame mel"]) -> Float32[np.ndarray, "time class"]:
        steps, _ = self.encoder.frames(log_mel)
        length = np.array([len(steps)])
        clip = TimeSteps(half(steps, "features"), np.zeros(1, np.int64), length, self.centre, self.scale)
        return predict(self.weight, clip)[0]

    def _score(self, event: Event, probabilities: np.ndarray, centres_s: np.ndarray) -> float:
        inside = (centres_s >= event.onset_s) & (centres_s <= event.offset_s)
        inside[np.abs(centres_s - event.onset_s).argmin()] = True  # of an event that the recording's end cuts short
        return float(probabilities[inside, self.classes.index(event.label)].mean())

    def as_tensors(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """See `Model`."""
        arrays = {"centre": self.centre, "scale": self.scale, "thresholds": np.array(self.decoder.thresholds)}
        tensors = {name: torch.from_numpy(np.array(values)) for name, values in arrays.items()}
        tensors |= {"weight": self.weight, "medians": torch.tensor(self.decoder.windows)}
        return tensors, {"max_gap_s": json.dumps(self.max_gap_s)}
