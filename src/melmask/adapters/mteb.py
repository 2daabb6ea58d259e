"""MTEB's encoder protocol, for its audio tasks (MAEB).

    mteb.evaluate(MelmaskModel("runs/mine"), mteb.get_tasks(["ESC50"]))

Source: the package mteb 2.26, `EncoderProtocol`. Deviates: not at all; audio is resampled by soxr, not by torchaudio.
"""

from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch
from jaxtyping import Float32

from melmask.encoders.features import FeatureSettings
from melmask.encoders.listener import Listener
from melmask.encoders.pretrained import DEFAULT_SETTINGS


class MelmaskModel:
    """A melmask encoder as MTEB calls it; recordings are embedded one by one, whatever their lengths.

    Args:
        run: a run's folder or an encoder file.
        revision: MTEB's name for a version; the encoder's identity if None.
        device: to compute on; where there is a GPU on that if None.
        settings: layers and pooling.
    """

    def __init__(
        self,
        run: Path | str,
        revision: str | None = None,
        *,
        device: str | None = None,
        settings: FeatureSettings = DEFAULT_SETTINGS,
    ) -> None:
        self.listener = Listener.load(Path(run), settings)
        self.revision = revision or self.listener.frozen.identity[:12]
        if device:
            self.listener.to(device)

    @property
    def mteb_model_meta(self) -> Any:
        """What MTEB's result files say of the model."""
        from mteb.models.model_meta import ModelMeta

        known = {
            "name": f"melmask/{self.listener.frozen.called}",
            "revision": self.revision,
            "modalities": ["audio"],
            "embed_dim": self.listener.frozen.num_dims,
            "framework": ["PyTorch"],
            "similarity_fn_name": "cosine",
            "n_parameters": sum(weights.numel() for weights in self.listener.encoder.parameters()),
        }
        return ModelMeta.create_empty(overwrites=known)

    def encode(self, inputs: Any, **about: Any) -> Float32[np.ndarray, "clip dim"]:
        """One vector for each recording.

        Args:
            inputs: MTEB's loader over rows with ``audio``: an array [sample] or [channel, sample], and its
                ``sampling_rate`` in Hz.
            about: the task and its split, which change nothing.

        Raises:
            ValueError: a row without audio.
        """
        inputs.collate_fn = list  # rows as they are: MTEB's own collation cannot hold arrays of different lengths
        return np.concatenate([self._embed(row) for batch in inputs for row in batch])

    def _embed(self, row: Any) -> Float32[np.ndarray, "1 dim"]:
        if "audio" not in row:
            raise ValueError(f"a row of {sorted(row)} has no audio: melmask hears audio only, so choose audio tasks")
        audio = row["audio"]
        wave = np.atleast_2d(np.asarray(audio["array"], np.float32)).mean(axis=0)
        wave = soxr.resample(wave, audio["sampling_rate"], self.listener.sample_rate_hz)
        return self.listener.clips(torch.from_numpy(wave)[None]).cpu().numpy()

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """The cosines of all pairs."""
        from mteb.similarity_functions import cos_sim

        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """The cosines of the first with the first, the second with the second, and so on."""
        from mteb.similarity_functions import pairwise_cos_sim

        return pairwise_cos_sim(embeddings1, embeddings2)
