"""How to learn from masks: the frameworks, each `forward(patches, grid, mask, valid) -> Loss`."""

from typing import Literal, get_args

from melmask.models.base import Loss
from melmask.models.m2d import M2D, Standardise
from melmask.models.msm_mae import MSMMAE
from melmask.vit import Size

__all__ = ["M2D", "MSMMAE", "Framework", "Loss", "Standardise", "make_model"]

Framework = Literal["m2d", "msm-mae"]


def make_model(
    framework: Framework,
    encoder: Size,
    decoder: Size,
    patch_shape: tuple[int, int],
    ema: tuple[float, float] = (0.99995, 0.99999),
    standardise: Standardise = "patch",
) -> M2D | MSMMAE:
    """A fresh model of that framework.

    Raises:
        ValueError: no such framework.
    """
    if framework == "m2d":
        return M2D(encoder, decoder, patch_shape, ema, standardise)
    if framework == "msm-mae":
        return MSMMAE(encoder, decoder, patch_shape)
    raise ValueError(f"no framework {framework!r}; there are: {', '.join(get_args(Framework))}")
