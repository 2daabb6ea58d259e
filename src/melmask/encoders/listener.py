"""A frozen encoder behind its own front end: waveforms in, features out. What all adapters are made of."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor, nn

from melmask.encoders.features import FeatureSettings, Pool
from melmask.encoders.pretrained import DEFAULT_SETTINGS, PretrainedEncoder
from melmask.logmel import LogMel


class Listener(nn.Module):
    """An encoder with all that stands between it and a waveform.

    Waveforms of one call have one length, so that none is padded for another's sake. They are encoded one by one: the
    features of each are those it has alone.

    Args:
        frozen: the encoder, with its front end, layers and pooling.
    """

    def __init__(self, frozen: PretrainedEncoder) -> None:
        super().__init__()
        self.encoder, self.log_mel = frozen.encoder, LogMel(frozen.spec)
        self._frozen = frozen
        self.requires_grad_(False).eval().to(frozen.device)

    @classmethod
    def load(cls, run: Path, settings: FeatureSettings = DEFAULT_SETTINGS) -> "Listener":
        """The encoder of a run's folder, or of an encoder file.

        Raises:
            ValueError: there is none, it is damaged, or it lacks a layer asked for.
        """
        return cls(PretrainedEncoder.load(run, settings))

    @property
    def frozen(self) -> PretrainedEncoder:
        """The encoder, on the device that this module was moved to."""
        self._frozen.device = self.log_mel.window.device
        return self._frozen

    @property
    def sample_rate_hz(self) -> int:
        return self._frozen.spec.sample_rate_hz

    @property
    def step_s(self) -> float:
        """From one time step to the next, in seconds."""
        return self._frozen.encoder.patch_shape[1] / self._frozen.spec.frames_per_s

    @torch.inference_mode()
    def steps(
        self, waves: Float[Tensor, "b sample"]
    ) -> tuple[Float32[Tensor, "b time dim"], Float64[np.ndarray, " time"]]:
        """Features of each time step, and the steps' centres in seconds.

        Args:
            waves: in -1..1, at ``sample_rate_hz``.

        Raises:
            ValueError: they are too short for one frame.
        """
        frozen = self.frozen
        log_mels = self.log_mel(waves.to(frozen.device, torch.float32)).transpose(1, 2).cpu().numpy()
        features = np.stack([frozen.frames(log_mel)[0] for log_mel in log_mels])
        return torch.from_numpy(features).to(waves.device), frozen.timestamps_s(features.shape[1])

    def clips(self, waves: Float[Tensor, "b sample"]) -> Float32[Tensor, "b dim"]:
        """One vector for each waveform, pooled over its time steps; otherwise as `steps`."""
        features, _ = self.steps(waves)
        pool = Pool(len(features), self._frozen.num_step_dims, self._frozen.settings.pooling)
        pool.add(range(len(features)), [features])
        return torch.from_numpy(pool.pooled()).to(waves.device)
