"""The sounds of the field guide as strategies see them: patches, and what a model says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from field_guide.sounds import four_sounds
from melmask.frameworks import Framework
from melmask.logmel import LogMel
from melmask.masking import MaskingStrategy, make_strategy
from melmask.nn.encoder_file import ENCODER, EncoderFile
from melmask.patches import whole_patches
from melmask.study.runs import read_runs
from melmask.train.masker import guide_of
from melmask.viz.masks import MaskSampler, fitted, losses_of
from melmask.viz.spectrogram import Spectrogram

MASK_RATIO = 0.7


@dataclass(frozen=True, eq=False)
class Subject:
    """A sound as strategies see it.

    Args:
        spectrogram: normalised, of whole patches, titled by what it is.
        silence: the value of digital silence.
        model: whose features, attention or losses guide.
        losses: its error at every patch.
    """

    spectrogram: Spectrogram
    silence: float
    model: Framework
    losses: Float[Tensor, " n"]

    @property
    def name(self) -> str:
        return self.spectrogram.title

    def sampler(self, strategy: MaskingStrategy) -> MaskSampler:
        """Draws the strategy's masks of the sound."""
        grid, patches, losses = self.spectrogram.grid, self.spectrogram.patches, self.losses[None, :, None]
        guide = guide_of(strategy.needs, self.model.encoders(), patches, grid, losses)
        return MaskSampler(strategy, grid, MASK_RATIO, guide)


def subjects_of(run: Path, seed: int = 0) -> list[Subject]:
    """The four sounds as they look to a run's front end and model.

    Raises:
        ImportError: the extra ``melmask[demo]`` is not installed.
        ValueError: the folder is no run, or has no checkpoint.
    """
    read = read_runs([run])[0]
    if read.model is None:
        raise ValueError(f"{run} has not saved a checkpoint, whose model could be looked at")
    saved = EncoderFile.load(run / ENCODER)
    encoder, front_end = saved.encoder, saved.front_end
    spec, shape = front_end.spec, encoder.patch_shape
    subjects = []
    for name, wave in four_sounds(spec.sample_rate_hz, seed).items():
        log_mel = whole_patches(LogMel(spec)(torch.from_numpy(wave)[None])[0], shape)
        log_mel = (log_mel - front_end.mean) / front_end.std
        silence = (spec.silence - front_end.mean) / front_end.std
        spectrogram = Spectrogram(log_mel, spec, shape, name)
        subjects.append(Subject(spectrogram, silence, read.model, losses_of(read, log_mel, seed)))
    return subjects


def made_for(name: str, options: Mapping[str, Any], subjects: Sequence[Subject]) -> MaskingStrategy:
    """A strategy with options; one that starts with a sample of the data takes all the sounds for it."""
    patches = torch.cat([subject.spectrogram.patches for subject in subjects])
    return fitted(make_strategy(name, options), patches, subjects[0].spectrogram.grid)
