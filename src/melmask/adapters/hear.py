"""HEAR's common API: any of its tools takes ``melmask.adapters.hear`` as the module, and a run's folder as the weights.

    hear-validator melmask.adapters.hear --model runs/mine

Source: HEAR 2021, common API (Turian et al. 2022, arXiv 2203.03022). Deviates: weights must be named, as there are none
to fall back on; time steps are as long as a patch, 160 ms by default, where HEAR recommends 50 ms for transcription.
"""

from pathlib import Path

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from melmask.encoders.listener import Listener
from melmask.encoders.pretrained import PretrainedEncoder


class HearModel(Listener):
    """A `Listener` with the attributes that HEAR's API asks for."""

    def __init__(self, frozen: PretrainedEncoder) -> None:
        super().__init__(frozen)
        self.sample_rate = frozen.spec.sample_rate_hz
        self.scene_embedding_size = frozen.num_dims
        self.timestamp_embedding_size = frozen.num_step_dims


def load_model(model_file_path: str = "") -> HearModel:
    """The model of a run's folder, or of an encoder file.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    if not model_file_path:
        raise ValueError("melmask.adapters.hear has no weights of its own: name a run's folder or an encoder file")
    return HearModel(PretrainedEncoder.load(Path(model_file_path)))


def get_scene_embeddings(
    audio: Float[Tensor, "n_sounds n_samples"], model: HearModel
) -> Float32[Tensor, "n_sounds scene_embedding_size"]:
    """One vector for each sound.

    Args:
        audio: mono, in -1..1, at ``model.sample_rate``.
        model: of `load_model`.
    """
    return model.clips(audio)


def get_timestamp_embeddings(
    audio: Float[Tensor, "n_sounds n_samples"], model: HearModel
) -> tuple[Float32[Tensor, "n_sounds n_timestamps timestamp_embedding_size"], Float[Tensor, "n_sounds n_timestamps"]]:
    """A vector for each time step of each sound, and the steps' centres in milliseconds; arguments as above."""
    embeddings, centres_s = model.steps(audio)
    centres_ms = torch.tensor(1000 * centres_s, dtype=torch.float32, device=audio.device)
    return embeddings, centres_ms.expand(len(audio), -1)
