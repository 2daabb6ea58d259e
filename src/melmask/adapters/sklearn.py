"""A scikit-learn transformer: recordings in, embeddings out, as a step of any pipeline.

make_pipeline(MelmaskEmbedder("runs/mine"), StandardScaler(), LogisticRegression()).fit(paths, labels)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from melmask.encoders.features import FeatureSettings, Layers, Pooling
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.encoders.recordings import waveforms


class MelmaskEmbedder(TransformerMixin, BaseEstimator):
    """Embeds recordings with a pretrained encoder; ``fit`` loads the encoder and learns nothing from its data.

    Args:
        run: a run folder, an encoder file, or ``tiny``, which comes with melmask.
        layers: of the encoder: last, all, or numbers from 1 on; "auto" is what its file states, else last.
        pooling: over time; "auto" likewise, or the mean.

    Attributes:
        encoder_: the encoder.
        n_features_in_: samples of a waveform if `fit` was given one array; `transform` then asks for as many.
    """

    def __init__(self, run: str | Path, layers: Layers = "auto", pooling: Pooling = "auto") -> None:
        self.run, self.layers, self.pooling = run, layers, pooling

    def fit(self, X: Any, y: Any = None) -> "MelmaskEmbedder":
        """Load the encoder, and check that X could be embedded.

        Args:
            X: as of `transform`.
            y: ignored.

        Raises:
            ValueError: no encoder, or X cannot be embedded.
        """
        if not _is_files(X) and not _is_ragged(X):
            validate_data(self, X, dtype=np.float32)
        self.encoder_ = PretrainedEncoder.load(self.run, FeatureSettings(self.layers, self.pooling))
        return self

    def transform(self, X: Any) -> Float32[np.ndarray, "clip dim"]:
        """One vector for each recording, which is embedded by itself.

        Args:
            X: audio files of any rate and length; or waveforms in -1..1 at the encoder's rate, as a sequence of
                arrays of any lengths, or as an array [clip, sample]. Waveforms shorter than the encoder's window, 25 ms
                by default, are zero-padded to it.

        Raises:
            ValueError: a file that cannot be read, or waveforms that are not finite or not [clip, sample].
        """
        check_is_fitted(self)
        if not _is_files(X) and not _is_ragged(X):
            X = validate_data(self, X, dtype=np.float32, reset=False)
        rate_hz = self.encoder_.sample_rate_hz
        return np.stack([self._embed(wave) for _, wave in waveforms(list(X), rate_hz, rate_hz)])

    def _embed(self, wave: Float32[np.ndarray, " sample"]) -> Float32[np.ndarray, " dim"]:
        missing = max(0, self.encoder_.spec.n_fft - len(wave))
        return self.encoder_.embed(np.pad(wave, (0, missing)), self.encoder_.sample_rate_hz)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # embeddings are float32, whatever the waveforms are
        return tags

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the dimensions of an embedding."""
        check_is_fitted(self)
        return np.array([f"melmask{number}" for number in range(self.encoder_.num_dims)], dtype=object)


def _is_files(X: Any) -> bool:
    """Whether recordings are given as names of files."""
    return isinstance(X, Sequence | np.ndarray) and len(X) > 0 and all(isinstance(path, str | Path) for path in X)


def _is_ragged(X: Any) -> bool:
    """Whether recordings are given as a sequence of arrays, each one waveform."""
    return isinstance(X, list | tuple) and len(X) > 0 and all(isinstance(wave, np.ndarray) for wave in X)
