"""The sounds of the field guide as strategies see them: patches, and what a model says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from field_guide.sounds import four_sounds
from melmask.frameworks import Framework
from melmask.logmel import LogMel, LogMelSpec
from melmask.masking import MaskingStrategy, make_strategy
from melmask.nn.encoder_file import ENCODER, load_encoder
from melmask.patches import grid_of, patchify, whole_patches
from melmask.study.runs import read_runs
from melmask.train.masker import guide_of
from melmask.types import PatchGrid
from melmask.viz.masks import learnt, losses_of, masked_share

MASK_RATIO = 0.7


@dataclass(frozen=True)
class Subject:
    """A sound as strategies see it.

    Args:
        name: what it is.
        log_mel: its normalised spectrogram, of whole patches.
        spec: its front end.
        patch_shape: (freq, time) of a patch, in mel bands and frames.
        silence: the value of digital silence.
        model: whose features, attention or losses are looked at.
        losses: its error at every patch.
    """

    name: str
    log_mel: Float[Tensor, "mel frame"]
    spec: LogMelSpec
    patch_shape: tuple[int, int]
    silence: float
    model: Framework
    losses: Float[Tensor, " n"]

    @property
    def grid(self) -> PatchGrid:
        return grid_of(self.log_mel, self.patch_shape)

    @cached_property
    def patches(self) -> Float[Tensor, "1 n p"]:
        return patchify(self.log_mel[None], self.patch_shape)

    def share(self, strategy: MaskingStrategy, num_draws: int = 1, seed: int = 0) -> Float[Tensor, " n"]:
        """In which share of masks each patch is masked."""
        guide = guide_of(strategy.needs, self.model.encoders(), self.patches, self.grid, self.losses[None, :, None])
        rng = torch.Generator().manual_seed(seed)
        return masked_share(strategy, self.grid, MASK_RATIO, rng, guide, num_draws=num_draws)


def subjects_of(run: Path, seed: int = 0) -> list[Subject]:
    """The four sounds as they look to a run's front end and model.

    Raises:
        ImportError: the extra ``melmask[demo]`` is not installed.
        ValueError: the folder is no run, or has no checkpoint.
    """
    read = read_runs([run])[0]
    if read.model is None:
        raise ValueError(f"{run} has not saved a checkpoint, whose model could be looked at")
    encoder, front_end, _ = load_encoder(run / ENCODER)
    spec, shape = front_end.spec, encoder.patch_shape
    subjects = []
    for name, wave in four_sounds(spec.sample_rate_hz, seed).items():
        log_mel = whole_patches(LogMel(spec)(torch.from_numpy(wave)[None])[0], shape)
        log_mel = (log_mel - front_end.mean) / front_end.std
        silence = (spec.silence - front_end.mean) / front_end.std
        subjects.append(Subject(name, log_mel, spec, shape, silence, read.model, losses_of(read, log_mel, seed)))
    return subjects


def made_for(name: str, options: Mapping[str, Any], subjects: Sequence[Subject]) -> MaskingStrategy:
    """A strategy with options; one that learns how much each band varies learns it from all the sounds."""
    return learnt(make_strategy(name, options), torch.cat([subject.patches for subject in subjects]), subjects[0].grid)
