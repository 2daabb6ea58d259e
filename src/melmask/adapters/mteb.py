"""MTEB's encoder protocol, for its audio tasks (MAEB).

    mteb.evaluate(MelmaskModel("runs/mine"), mteb.get_tasks(["ESC50"]))

Source: the package mteb 2.26, `EncoderProtocol`. Deviates: not at all; audio is resampled by soxr, not by torchaudio.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from melmask.encoders.features import DEFAULT_SETTINGS, FeatureSettings
from melmask.encoders.pretrained import PretrainedEncoder


class MelmaskModel:
    """A melmask encoder with MTEB's interface; recordings of any length and rate are embedded one by one.

    Args:
        run: a run folder, an encoder file, or ``tiny``, which comes with melmask.
        revision: MTEB's name for a version; the encoder's identity if None.
        device: to compute on; None for the GPU if there is one.
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
        self.encoder = PretrainedEncoder.load(run, settings)
        self.revision = revision or self.encoder.identity[:12]
        if device:
            self.encoder.to(device)

    @property
    def mteb_model_meta(self) -> Any:
        """The description of the model in MTEB's result files."""
        from mteb.models.model_meta import ModelMeta

        known = {
            "name": f"melmask/{self.encoder.called}",
            "revision": self.revision,
            "modalities": ["audio"],
            "embed_dim": self.encoder.num_dims,
            "framework": ["PyTorch"],
            "similarity_fn_name": "cosine",
            "n_parameters": sum(weights.numel() for weights in self.encoder.encoder.parameters()),
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
        return np.stack([self._embed(row) for batch in inputs for row in batch])

    def _embed(self, row: Any) -> Float32[np.ndarray, " dim"]:
        if "audio" not in row:
            raise ValueError(f"a row of {sorted(row)} has no audio: melmask encodes audio only; choose audio tasks")
        audio = row["audio"]
        wave = np.atleast_2d(np.asarray(audio["array"], np.float32)).mean(axis=0)
        return self.encoder.embed(wave, audio["sampling_rate"])

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """The cosines of all pairs."""
        from mteb.similarity_functions import cos_sim

        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """The cosines of the first with the first, the second with the second, and so on."""
        from mteb.similarity_functions import pairwise_cos_sim

        return pairwise_cos_sim(embeddings1, embeddings2)
