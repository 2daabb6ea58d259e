"""X-ARES' audio encoder; its command names no weights, so they come from the environment.

    MELMASK_ENCODER=runs/mine python -m xares.run melmask/adapters/xares.py src/tasks/esc50_task.py

Source: X-ARES (Zhang et al. 2025, arXiv 2505.16369), its audio encoder interface. Deviates: not at all. X-ARES takes
the one name in this module that ends so for its encoder, so no other may.
"""

import os
from pathlib import Path

from jaxtyping import Float, Float32
from torch import Tensor

from melmask.encoders import listener


class MelmaskEncoder(listener.Listener):
    """A `Listener` as X-ARES calls it: waveforms in, a sequence of features out.

    Args:
        run: a run's folder or an encoder file; None is what the environment variable MELMASK_ENCODER names.

    Raises:
        ValueError: there is no such encoder, or none is named.
    """

    def __init__(self, run: Path | str | None = None) -> None:
        run = run or os.environ.get("MELMASK_ENCODER")
        if not run:
            raise ValueError("no encoder is named: set MELMASK_ENCODER to a run's folder or an encoder file")
        super().__init__(listener.Listener.load(Path(run)).frozen)
        self.sampling_rate = self.sample_rate_hz
        self.output_dim = self.frozen.num_step_dims
        self.hop_size_in_ms = round(1000 * self.step_s)

    def forward(self, audio: Float[Tensor, "b sample"]) -> Float32[Tensor, "b time dim"]:
        """Features of each time step of waveforms at ``sampling_rate``."""
        return self.steps(audio)[0]
