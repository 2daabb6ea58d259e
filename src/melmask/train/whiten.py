"""Learning the whitening of an encoder's time steps from crops of its training data."""

import torch

from melmask.nn.time_steps import Layers, Whitening, layer_numbers, time_steps
from melmask.nn.vit import Encoder
from melmask.patches import grid_of, patchify
from melmask.types import Batch

CROPS_AT_ONCE = 64


@torch.no_grad()
def learn_whitening(encoder: Encoder, crops: Batch, layers: Layers) -> Whitening:
    """Learn the whitening of the time steps of unmasked crops, without those that are padding throughout.

    Args:
        encoder: on any device; its mode is kept.
        crops: a sample of the training data.
        layers: whose features are read.

    Raises:
        ValueError: the features are not finite.
    """
    device, was_training = next(encoder.parameters()).device, encoder.training
    encoder.eval()
    steps = []
    for first in range(0, len(crops.log_mel), CROPS_AT_ONCE):
        log_mel = crops.log_mel[first : first + CROPS_AT_ONCE].to(device)
        grid = grid_of(log_mel, encoder.patch_shape)
        numbers = layer_numbers(layers, encoder.size.depth)
        found = torch.cat(time_steps(encoder, patchify(log_mel, encoder.patch_shape), grid, numbers), dim=2)
        num_steps = -(-crops.num_valid_frames[first : first + CROPS_AT_ONCE] // encoder.patch_shape[1])
        steps.append(found[torch.arange(grid.time) < num_steps[:, None]].cpu())
    encoder.train(was_training)
    return Whitening.learn(torch.cat(steps))
