"""A scikit-learn transformer: recordings in, embeddings out, as a step of any pipeline.

make_pipeline(MelmaskEmbedder("runs/mine"), StandardScaler(), LogisticRegression()).fit(paths, labels)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from melmask.audio import read_audio
from melmask.encoders.features import FeatureSettings, Layers, Pooling
from melmask.encoders.listener import Listener


class MelmaskEmbedder(TransformerMixin, BaseEstimator):
    """Embeds recordings with a frozen encoder; ``fit`` reads the encoder, and learns nothing from its data.

    Args:
        run: a run's folder, or an encoder file.
        layers: of the encoder: last, all, or numbers from 1 on.
        pooling: over time.

    Attributes:
        listener_: the encoder and its front end.
        n_features_in_: samples of a waveform, where waveforms came as one array; then all later ones have as many.
    """

    def __init__(self, run: str | Path, layers: Layers = "last", pooling: Pooling = "mean") -> None:
        self.run, self.layers, self.pooling = run, layers, pooling

    def fit(self, X: Any, y: Any = None) -> "MelmaskEmbedder":
        """Read the encoder, and check that X could be embedded.

        Args:
            X: as of `transform`.
            y: taken, and not looked at.

        Raises:
            ValueError: no encoder, or X is nothing that can be embedded.
        """
        if not _is_files(X) and not _is_ragged(X):
            validate_data(self, X, dtype=np.float32)
        self.listener_ = Listener.load(Path(self.run), FeatureSettings(self.layers, self.pooling))
        return self

    def transform(self, X: Any) -> Float32[np.ndarray, "clip dim"]:
        """One vector for each recording; that of one never depends on another.

        Args:
            X: audio files of any rate and length; or waveforms in -1..1 at the encoder's rate, as a sequence of
                arrays of any lengths, or as an array [clip, sample]. What is shorter than the encoder's window, 25 ms
                by default, is filled up with zeros.

        Raises:
            ValueError: a file that cannot be read, or waveforms that are not finite or not [clip, sample].
        """
        check_is_fitted(self)
        if _is_files(X):
            waves: Sequence[np.ndarray] = [read_audio(Path(path), self.listener_.sample_rate_hz) for path in X]
        elif _is_ragged(X):
            waves = [np.asarray(wave, np.float32) for wave in X]
        else:
            waves = validate_data(self, X, dtype=np.float32, reset=False)
        return np.concatenate([self._embed(wave, number) for number, wave in enumerate(waves)])

    def _embed(self, wave: np.ndarray, number: int) -> Float32[np.ndarray, "1 dim"]:
        if wave.ndim != 1 or not np.isfinite(wave).all():
            raise ValueError(f"recording {number} of shape {wave.shape} is no waveform [sample] of finite numbers")
        missing = self.listener_.frozen.spec.n_fft - len(wave)
        wave = np.pad(wave, (0, max(0, missing)))
        return self.listener_.clips(torch.from_numpy(wave)[None]).cpu().numpy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # embeddings are float32, whatever the waveforms are
        return tags

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the embedding's values."""
        check_is_fitted(self)
        return np.array([f"melmask{number}" for number in range(self.listener_.frozen.num_dims)], dtype=object)


def _is_files(X: Any) -> bool:
    """Whether recordings are given as names of files."""
    return isinstance(X, Sequence | np.ndarray) and len(X) > 0 and all(isinstance(path, str | Path) for path in X)


def _is_ragged(X: Any) -> bool:
    """Whether recordings are given as a sequence of arrays, each one waveform."""
    return isinstance(X, list | tuple) and len(X) > 0 and all(isinstance(wave, np.ndarray) for wave in X)
