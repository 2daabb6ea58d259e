"""X-ARES' audio encoder; its command names no weights, so they come from the environment.

    MELMASK_ENCODER=runs/mine python -m xares.run melmask/adapters/xares.py src/tasks/esc50_task.py

Source: X-ARES (Zhang et al. 2025, arXiv 2505.16369), its audio encoder interface. Deviates: not at all. X-ARES takes
the one name in this module that ends in "Encoder" for its encoder, so no other name here may.
"""

import os
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from melmask.encoders import pretrained


class MelmaskEncoder(nn.Module):
    """A `PretrainedEncoder` with X-ARES' interface: waveforms in, a sequence of features out.

    Args:
        run: a run folder, an encoder file or ``tiny``; None for what the environment variable MELMASK_ENCODER names.

    Raises:
        ValueError: there is no such encoder, or none is named.
    """

    def __init__(self, run: Path | str | None = None) -> None:
        super().__init__()
        run = run or os.environ.get("MELMASK_ENCODER")
        if not run:
            raise ValueError("no encoder is named: set MELMASK_ENCODER to a run's folder, an encoder file or tiny")
        self.pretrained = pretrained.PretrainedEncoder.load(run)
        self.encoder = self.pretrained.encoder
        self.sampling_rate = self.pretrained.sample_rate_hz
        self.output_dim = self.pretrained.num_step_dims
        self.hop_size_in_ms = round(1000 * self.pretrained.step_s)
        self.requires_grad_(False).eval()

    def forward(self, audio: Float[Tensor, "b sample"]) -> Float32[Tensor, "b time dim"]:
        """Features of each time step of waveforms at ``sampling_rate``, each of which is embedded by itself."""
        features = [self.pretrained.embed_frames(wave, self.sampling_rate)[0] for wave in audio]
        return torch.from_numpy(np.stack(features)).to(audio.device)
