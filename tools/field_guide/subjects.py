"""The sounds of the field guide as input of strategies: patches and guides."""

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
    """A sound as input of strategies.

    Args:
        spectrogram: normalised, of whole patches, titled with its name.
        silence: the value of digital silence.
        model: whose features, attention or losses are guides.
        losses: its loss at every patch.
    """

    spectrogram: Spectrogram
    silence: float
    model: Framework
    losses: Float[Tensor, " n"]

    @property
    def name(self) -> str:
        return self.spectrogram.title

    def sampler(self, strategy: MaskingStrategy) -> MaskSampler:
        """Samples masks of the sound by a strategy."""
        grid, patches, losses = self.spectrogram.grid, self.spectrogram.patches, self.losses[None, :, None]
        guide = guide_of(strategy.needs, self.model.encoders(), patches, grid, losses)
        return MaskSampler(strategy, grid, MASK_RATIO, guide)


def subjects_of(run: Path, seed: int = 0) -> list[Subject]:
    """The four sounds with the front end and model of a run.

    Raises:
        ImportError: the extra ``melmask[demo]`` is not installed.
        ValueError: the folder is not a run folder, or has no checkpoint.
    """
    read = read_runs([run])[0]
    if read.model is None:
        raise ValueError(f"{run} has no checkpoint, whose model could guide strategies")
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
    """A strategy with options; one that is fitted to a sample of the data is fitted to all sounds."""
    patches = torch.cat([subject.spectrogram.patches for subject in subjects])
    return fitted(make_strategy(name, options), patches, subjects[0].spectrogram.grid)
