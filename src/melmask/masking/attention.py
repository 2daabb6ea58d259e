"""Masks guided by the class token's attention."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from melmask.masking.base import MaskingStrategy, Needs, break_ties, num_hints_of, top, uniform
from melmask.masking.selfguided import EncoderChoice, check_encoder, check_finite
from melmask.types import PatchGrid


@dataclass(frozen=True)
class AttentionGuided(MaskingStrategy):
    """Attention-guided masking (AttMask): the patches that matter most, or least, to the class token are masked.

    Patches are ranked by the attention that the class token pays to them in the encoder's last block, on the unmasked
    input, averaged over heads. "high" masks the most attended, the hard task; "low" the least attended, the easy one;
    "hint" masks the most attended but shows a uniformly random floor(m shown) of them, in whose place the next in rank
    are masked. Except for ties, the ranking is deterministic. Model-dependent; costs one more
    encoder pass over all patches.

    Args:
        mode: "high", "low" or "hint".
        shown: the share of the most attended patches that "hint" shows, in [0, 1].
        encoder: whose attention: the "online" encoder's, or that of the "ema" that M2D keeps of it.

    Raises:
        ValueError: an option is out of range; the guide is missing or not finite.

    Source: arXiv 2203.12719. Deviates: the class token here is not trained by a loss of its own; the default encoder
    is the online one, which every framework has, and not the teacher; ``shown`` counts patches of the masked set, not
    of the input, and defaults to 0.1 of it. The hints of `draw` are something else: they show patches of any rank.
    """

    mode: Literal["high", "low", "hint"] = "high"
    shown: float = 0.1
    encoder: EncoderChoice = "online"

    @property
    def needs(self) -> Needs:
        return Needs("attention", self.encoder)

    def __post_init__(self) -> None:
        if self.mode not in ("high", "low", "hint"):
            raise ValueError(f'attention has the modes "high", "low" and "hint", got {self.mode!r}')
        if not 0.0 <= self.shown <= 1.0:
            raise ValueError(f"attention shows a share in [0, 1] of the most attended patches, got shown {self.shown}")
        check_encoder("attention", self.encoder)

    def priority(
        self, batch_size: int, grid: PatchGrid, num_masked: int, rng: Generator, guide: Tensor | None
    ) -> Float[Tensor, "b n"]:
        assert guide is not None  # draw() has checked it
        attention = guide.float().mean(dim=2)
        check_finite(attention[:, :, None], "the attention weights")
        rank = break_ties(-attention if self.mode == "low" else attention, rng)
        if self.mode != "hint":
            return rank
        # Only as many can be shown as there are others to be masked in their place.
        num_shown = min(num_hints_of(num_masked, self.shown), grid.num_patches - num_masked)
        noise = uniform((batch_size, grid.num_patches), rng).to(rank.device)
        is_shown = top(noise + top(rank, num_masked), num_shown)
        lowest, highest = rank.aminmax(dim=1, keepdim=True)
        return torch.where(is_shown, rank - (highest - lowest) - 1.0, rank)  # below all others
