"""How to learn from masks: the frameworks, each `forward(patches, grid, mask, valid) -> Loss`."""

from typing import Literal, get_args

from melmask.frameworks.base import Loss
from melmask.frameworks.m2d import M2D, Standardise
from melmask.frameworks.msm_mae import MSMMAE
from melmask.nn.vit import Blocks, Size

__all__ = ["M2D", "MSMMAE", "Framework", "Loss", "Standardise", "make_model"]

Framework = Literal["m2d", "msm-mae"]


def make_model(
    framework: Framework,
    encoder: Size,
    decoder: Size,
    patch_shape: tuple[int, int],
    ema: tuple[float, float] = (0.99995, 0.99999),
    standardise: Standardise = "patch",
    checkpoint_activations: bool = False,
) -> M2D | MSMMAE:
    """A fresh model of that framework.

    Args:
        framework: how to learn from masks.
        encoder: width, depth and heads of the encoder.
        decoder: the same of MSM-MAE's decoder or M2D's predictor.
        patch_shape: (freq, time) of a patch.
        ema: M2D's decay at the first and the last step.
        standardise: what M2D's targets are standardised over.
        checkpoint_activations: keep only what goes into each block; see `melmask.nn.vit.Blocks`.

    Raises:
        ValueError: no such framework.
    """
    model: M2D | MSMMAE
    if framework == "m2d":
        model = M2D(encoder, decoder, patch_shape, ema, standardise)
    elif framework == "msm-mae":
        model = MSMMAE(encoder, decoder, patch_shape)
    else:
        raise ValueError(f"no framework {framework!r}; there are: {', '.join(get_args(Framework))}")
    for module in model.modules():
        if isinstance(module, Blocks):
            module.are_recomputed = checkpoint_activations
    return model
