"""HEAR's common API: its tools take ``melmask.adapters.hear`` as the module, and a run folder as the weights.

    hear-validator melmask.adapters.hear --model runs/mine

Source: HEAR 2021, common API (Turian et al. 2022, arXiv 2203.03022). Deviates: weights must be named, as the module has
no default; time steps are as long as a patch, 160 ms by default, where HEAR recommends 50 ms for transcription.
"""

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from melmask.encoders.pretrained import PretrainedEncoder


class HearModel(nn.Module):
    """A `PretrainedEncoder` with the attributes of HEAR's API; it computes on the device that it is moved to.

    Args:
        pretrained: the encoder, with its front end, layers and pooling.
    """

    def __init__(self, pretrained: PretrainedEncoder) -> None:
        super().__init__()
        self.pretrained, self.encoder = pretrained, pretrained.encoder
        self.sample_rate = pretrained.sample_rate_hz
        self.scene_embedding_size = pretrained.num_dims
        self.timestamp_embedding_size = pretrained.num_step_dims
        self.requires_grad_(False).eval()


def load_model(model_file_path: str = "") -> HearModel:
    """The model of a run folder, of an encoder file, or of ``tiny``, which comes with melmask.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    if not model_file_path:
        raise ValueError("melmask.adapters.hear has no weights of its own: name a run's folder, a file or tiny")
    return HearModel(PretrainedEncoder.load(model_file_path))


def get_scene_embeddings(
    audio: Float[Tensor, "n_sounds n_samples"], model: HearModel
) -> Float32[Tensor, "n_sounds scene_embedding_size"]:
    """One vector for each sound, which is embedded by itself.

    Args:
        audio: mono, in -1..1, at ``model.sample_rate``.
        model: of `load_model`.
    """
    vectors = np.stack([model.pretrained.embed(wave, model.sample_rate) for wave in audio])
    return torch.from_numpy(vectors).to(audio.device)


def get_timestamp_embeddings(
    audio: Float[Tensor, "n_sounds n_samples"], model: HearModel
) -> tuple[Float32[Tensor, "n_sounds n_timestamps timestamp_embedding_size"], Float[Tensor, "n_sounds n_timestamps"]]:
    """A vector for each time step of each sound, and the steps' centres in milliseconds; arguments as above.

    HEAR asks for regular intervals, so that a last step is left out if its middle lies past the end of the sound.
    """
    pretrained, duration_s = model.pretrained, audio.shape[1] / model.sample_rate
    vectors = np.stack([pretrained.embed_frames(wave, model.sample_rate)[0] for wave in audio])
    centres_s = pretrained.timestamps_s(vectors.shape[1])
    num_steps = max(1, int((centres_s <= duration_s).sum()))
    centres_ms = torch.tensor(1000 * centres_s[:num_steps], dtype=torch.float32, device=audio.device)
    return torch.from_numpy(vectors[:, :num_steps]).to(audio.device), centres_ms.repeat(len(audio), 1)
