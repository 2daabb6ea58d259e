"""What to mask: strategies that rank patches, and `draw`, which everything uses to turn a ranking into a `Mask`."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from melmask.masking.attention import AttentionGuided
from melmask.masking.bands import BandDispersion, FreqProfile
from melmask.masking.base import MaskingStrategy, num_masked_of, num_valid_masked_of, split, with_hints, within_valid
from melmask.masking.blocks import Blockwise, InverseBlock
from melmask.masking.clusters import Cluster
from melmask.masking.dispersion import Dispersion, DispersionBlock, InverseDispersion
from melmask.masking.hard import Hard
from melmask.masking.lines import FreqLines, TimeFreqLines, TimeLines, TimeProduct
from melmask.masking.multiblock import MultiBlock
from melmask.masking.noise import ColouredNoise
from melmask.masking.random import Random
from melmask.masking.schedule import ExponentSchedule, GuidanceSchedule, HintSchedule
from melmask.masking.selfguided import SelfGuided
from melmask.masking.spans import Spans
from melmask.registry import lookup
from melmask.types import Mask, PatchGrid

__all__ = [
    "STRATEGIES",
    "ExponentSchedule",
    "GuidanceSchedule",
    "HintSchedule",
    "MaskingStrategy",
    "draw",
    "make_strategy",
    "split",
    "with_hints",
]

GROUP = "melmask.strategies"  # of the entry points by which an installed package offers strategies
STRATEGIES: dict[str, type[MaskingStrategy]] = {
    "random": Random,
    "time": TimeLines,
    "freq": FreqLines,
    "time_freq": TimeFreqLines,
    "time_product": TimeProduct,
    "spans": Spans,
    "block": Blockwise,
    "ibm": InverseBlock,
    "cluster": Cluster,
    "multiblock": MultiBlock,
    "noise": ColouredNoise,
    "freq_profile": FreqProfile,
    "dwm": Dispersion,
    "dwm_inverse": InverseDispersion,
    "dwm_ibm": DispersionBlock,
    "dwm_band": BandDispersion,
    "sgim": SelfGuided,
    "attention": AttentionGuided,
    "hard": Hard,
}


def make_strategy(name: str, options: Mapping[str, Any] | None = None) -> MaskingStrategy:
    """The strategy of that name with its options set.

    Args:
        name: a key of `STRATEGIES`, a name that an installed package offers, or "package.module:Class" for a
            `MaskingStrategy` from elsewhere.
        options: arguments of the class.

    Raises:
        ValueError: no such strategy, or an option that it does not have.
    """
    made = lookup(name, STRATEGIES, "masking strategy", GROUP)
    known = signature(made).parameters
    for option in options or {}:
        if option not in known:
            raise ValueError(f"{name} has no option {option!r}; it has: {', '.join(sorted(known)) or 'none'}")
    return made(**(options or {}))


def draw(
    strategy: str | MaskingStrategy,
    *,
    grid: PatchGrid,
    batch_size: int,
    mask_ratio: float,
    rng: Generator,
    guide: Float[Tensor, "b n d"] | None = None,
    hint_ratio: float = 0.0,
    valid: Bool[Tensor, "b n"] | None = None,
) -> Mask:
    """Draw a mask for every sample of a batch.

    Args:
        strategy: a name in `STRATEGIES` or an instance.
        grid: the samples' patches.
        batch_size: samples.
        mask_ratio: share of patches to mask, in (0, 1).
        rng: the only source of randomness; on a CPU generator the masks are the same whatever the guide's device.
        guide: what ``strategy.needs`` says, such as the patches for dwm or the encoder's features for sgim; else None.
        hint_ratio: share of the strategy's choice that is replaced at random, in [0, 1]; at 1 every strategy is random.
        valid: False for padding, which then takes its proportional part of both roles and never more.

    Returns:
        The mask, on the guide's device (without a guide, the generator's), with the same counts in every sample.

    Raises:
        ValueError: a setting is out of range, or the guide is missing, of the wrong shape or not finite.

    >>> mask = draw("random", grid=PatchGrid(5, 38), batch_size=2, mask_ratio=0.7, rng=torch.Generator())
    >>> mask.visible.shape, mask.masked.shape
    (torch.Size([2, 57]), torch.Size([2, 133]))
    """
    if isinstance(strategy, str):
        strategy = make_strategy(strategy)
    if strategy.needs.guide != "nothing":
        if guide is None:
            raise ValueError(f"{type(strategy).__name__} needs the {strategy.needs.guide} as its guide")
        if guide.shape[:2] != (batch_size, grid.num_patches):
            raise ValueError(f"the guide is {tuple(guide.shape)}, not [{batch_size}, {grid.num_patches}, ...]")
    if valid is not None and valid.shape != (batch_size, grid.num_patches):
        raise ValueError(f"valid is {tuple(valid.shape)}, not [{batch_size}, {grid.num_patches}]")
    num_masked = num_masked_of(grid.num_patches, mask_ratio)
    # Autocast would rank by products rounded to bfloat16, and so mask otherwise than without it.
    with torch.autocast((rng if guide is None else guide).device.type, enabled=False):
        priority = strategy.priority(batch_size, grid, num_masked, rng, guide)
    if valid is not None:
        valid = None if bool(valid.all()) else valid.to(priority.device)
    if valid is None:
        return split(with_hints(priority, num_masked, hint_ratio, rng), num_masked)
    # Hints are drawn among valid patches only, so that padding neither takes nor gives any.
    sound = priority.masked_fill(~valid, -torch.inf)
    sound = with_hints(sound, num_valid_masked_of(valid, num_masked), hint_ratio, rng)
    return split(within_valid(sound, valid, num_masked, rng), num_masked)
