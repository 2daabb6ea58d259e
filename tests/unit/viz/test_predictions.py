"""Figures of predictions."""

import numpy as np
import torch

from melmask.logmel import LogMelSpec
from melmask.patches import patchify, whole_patches
from melmask.types import Mask
from melmask.viz.predictions import reconstruction_figure
from melmask.viz.spectrogram import Spectrogram

PATCH = (16, 16)


def test_reconstruction_shows_visible_patches_as_they_are(log_mel: torch.Tensor) -> None:
    mask = Mask(torch.arange(9)[None], torch.arange(9, 30)[None])
    rebuilt = patchify(whole_patches(log_mel[None], PATCH), PATCH)
    rebuilt[:, 9:] = -9.0
    drawn = reconstruction_figure([Spectrogram(log_mel, LogMelSpec(), PATCH)], mask, rebuilt)
    shown = drawn.axes[2].images[0].get_array()
    assert np.array_equal(shown[:16], log_mel[:16, :96].numpy())  # the lowest band is visible: patches 0 to 5
    assert (shown == -9.0).sum() == 21 * 256
