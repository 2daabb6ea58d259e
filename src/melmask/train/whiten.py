"""Learning the whitening of an encoder's time steps from crops of its training data."""

import torch

from melmask.nn.time_steps import SHRINKAGE, WITHIN_SHARE, Layers, Whitening, layer_numbers, time_steps
from melmask.nn.vit import Encoder
from melmask.patches import grid_of, patchify
from melmask.types import Batch

CROPS_AT_ONCE = 64


@torch.no_grad()
def learn_whitening(
    encoder: Encoder,
    crops: Batch,
    layers: Layers,
    shrinkage: float = SHRINKAGE,
    within_share: float = WITHIN_SHARE,
) -> Whitening:
    """Learn the whitening of the time steps of unmasked crops.

    Each is encoded without the padding that its batch needs, as recordings are embedded: features of a short crop are
    others beside padding.

    Args:
        encoder: on any device; its mode is kept.
        crops: a sample of the training data.
        layers: whose features are read.
        shrinkage, within_share: as of `Whitening.learn`.

    Raises:
        ValueError: the features are not finite.
    """
    device, was_training = next(encoder.parameters()).device, encoder.training
    encoder.eval()
    steps, crop = [], []
    numbers = layer_numbers(layers, encoder.size.depth)
    frames = encoder.patch_shape[1]
    num_steps = -(-crops.num_valid_frames // frames)
    for length in num_steps.unique().tolist():
        for some in torch.split((num_steps == length).nonzero()[:, 0], CROPS_AT_ONCE):
            log_mel = crops.log_mel[some, :, : length * frames].to(device)
            grid, patches = grid_of(log_mel, encoder.patch_shape), patchify(log_mel, encoder.patch_shape)
            steps.append(torch.cat(time_steps(encoder, patches, grid, numbers), dim=2).flatten(0, 1).cpu())
            crop.append(some.repeat_interleave(length).cpu())
    encoder.train(was_training)
    return Whitening.learn(torch.cat(steps), torch.cat(crop), shrinkage, within_share)
