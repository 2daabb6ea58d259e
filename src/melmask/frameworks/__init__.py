"""How to learn from masks: the frameworks, by name."""

from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any

import torch

from melmask.frameworks.base import Framework, Loss
from melmask.frameworks.m2d import M2D
from melmask.frameworks.msm_mae import MSMMAE
from melmask.nn.vit import Blocks, Positions, Size
from melmask.patches import PositionOrder
from melmask.registry import lookup

__all__ = [
    "FRAMEWORKS",
    "M2D",
    "MSMMAE",
    "Framework",
    "Loss",
    "framework_class",
    "make_framework",
    "make_options",
    "outline",
]

GROUP = "melmask.frameworks"  # of the entry points by which an installed package offers frameworks
FRAMEWORKS: dict[str, type[Framework]] = {"m2d": M2D, "msm-mae": MSMMAE}


def framework_class(name: str) -> type[Framework]:
    """The class of a framework.

    Args:
        name: a key of `FRAMEWORKS`, a name that an installed package offers, or "package.module:Class" for a subclass
            of `Framework` outside the package.

    Raises:
        ValueError: there is no such framework, or it is no subclass of `Framework`.
    """
    found = lookup(name, FRAMEWORKS, "framework", GROUP)
    if not (isinstance(found, type) and issubclass(found, Framework)):
        raise ValueError(f"{name} is no framework: make it a subclass of melmask.frameworks.Framework")
    return found


def make_options(name: str, options: Mapping[str, Any]) -> Any:
    """An instance of the framework's ``Options`` with these set, the others at their defaults.

    Raises:
        ValueError: there is no such framework or option, or a value is out of range.
    """
    made_by = framework_class(name).Options
    known = sorted(field.name for field in fields(made_by))
    for option in options:
        if option not in known:
            has = f"it has: {', '.join(known)}" if known else "it has none: leave framework_options empty"
            raise ValueError(f"{name} has no option {option!r}; {has}")
    try:
        return made_by(**options)
    except TypeError as error:
        raise ValueError(f"{name} cannot have the options {dict(options)}: {error}") from error


def make_framework(
    name: str,
    encoder: Size,
    decoder: Size,
    patch_shape: tuple[int, int],
    options: Mapping[str, Any] | None = None,
    checkpoint_activations: bool = False,
    position_order: PositionOrder = "freq-time",
) -> Framework:
    """A framework with freshly initialised weights, on torch's default device.

    Args:
        name: a key of `FRAMEWORKS`, or "package.module:Class".
        encoder: width, depth and heads of the encoder.
        decoder: the same of the network that predicts masked patches.
        patch_shape: (freq, time) of a patch, in mel bands and frames.
        options: settings of the framework's own, fields of its ``Options``.
        checkpoint_activations: keep only the input of each block for the backward pass; see `melmask.nn.vit.Blocks`.
        position_order: which axis the first half of all positions says.

    Raises:
        ValueError: there is no such framework or option, or a value is out of range.
    """
    model = framework_class(name)(encoder, decoder, patch_shape, make_options(name, options or {}))
    for module in model.modules():
        if isinstance(module, Blocks):
            module.are_recomputed = checkpoint_activations
        elif isinstance(module, Positions):
            module.order = position_order
    return model


@lru_cache(maxsize=64)
def outline(
    name: str, encoder: Size, decoder: Size, patch_shape: tuple[int, int], options: tuple[tuple[str, Any], ...] = ()
) -> Framework:
    """The framework on torch's meta device, with shapes but no weights: to count, and to ask which encoders it has.

    Args:
        name: as `make_framework`, and so the others.
        encoder: its size.
        decoder: its size.
        patch_shape: (freq, time) of a patch.
        options: the items of the framework's options.
    """
    with torch.device("meta"):
        return make_framework(name, encoder, decoder, patch_shape, dict(options))
