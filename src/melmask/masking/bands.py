"""How much of DWM is its frequency bands: weights freed of them, and masks that know nothing else."""

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from melmask.masking.base import Needs
from melmask.masking.dispersion import Dispersion, check_exponent, successive_order
from melmask.masking.statistics import Statistic, dispersion
from melmask.types import PatchGrid

# Mean absolute deviation of log-mel values of white noise in each row of 16 x 16 patches, lowest first. Low bands are
# narrow, a few periodogram bins wide, and so they flutter: DWM masks them more often with no event present.
WHITE_NOISE = (0.848, 0.795, 0.648, 0.508, 0.383)


def band_profile(
    patches: Float[Tensor, "b n p"],
    grid: PatchGrid,
    statistic: Statistic = "mad",
    valid: Bool[Tensor, "b n"] | None = None,
    patch_time: int = 0,
) -> Float[Tensor, " freq"]:
    """The mean dispersion of each row of patches, from the lowest band to the highest; padding is left out.

    Args:
        patches: of any number of samples.
        grid: their layout.
        statistic: as for `dispersion`.
        valid: False for padding.
        patch_time: as for `dispersion`.

    Returns:
        One mean a row; zero where all is padding.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    weight = dispersion(patches, statistic, patch_time)
    return _row_means(weight, grid, torch.ones_like(weight) if valid is None else valid.to(weight))


def _row_means(weight: Float[Tensor, "b n"], grid: PatchGrid, counted: Float[Tensor, "b n"]) -> Float[Tensor, " freq"]:
    rows = (weight * counted).view(-1, grid.freq, grid.time).sum(dim=(0, 2))
    return rows / counted.view(-1, grid.freq, grid.time).sum(dim=(0, 2)).clamp(min=1)


def per_patch(profile: Float[Tensor, " band"], grid: PatchGrid) -> Float[Tensor, " n"]:
    """A profile of any length laid over the grid's rows, linearly between the bands' centres."""
    rows = interpolate(profile[None, None], size=grid.freq, mode="linear", align_corners=False)[0, 0]
    return rows.repeat_interleave(grid.time)


def check_profile(profile: tuple[float, ...]) -> None:
    """Raise ValueError unless a profile has weights, none negative or infinite, and not all of them zero."""
    if not all(0.0 <= weight < math.inf for weight in profile) or not any(profile):
        raise ValueError(f"a profile needs finite weights of at least 0, some of them above, got {profile}")


@dataclass(frozen=True)
class BandDispersion(Dispersion):
    """Per-band DWM: each patch's dispersion is divided by the mean of its frequency row. Input-dependent.

    The rows of a log-mel spectrogram differ in dispersion whatever is heard: white noise alone makes DWM mask low bands
    more often. Divided by what is usual in its row, a weight says how unusual the patch is. A row that was silent so
    far counts as the least that float32 can tell from the busiest, so that the first sound in it is masked first.
    Costs one pass over the patches, and with "running" another one to learn.

    Args:
        bands: whose means: "running" takes those of ``profile``, which a run learns as it goes; "batch" those of the
            samples drawn together, padding included, which lowers all rows alike. Only "batch" masks depend on the
            neighbours, and on nothing of them but these means.
        profile: mean weight of each row from the lowest band to the highest, any number of them; white noise's, until
            `learn` is called.

    Other options as for `Dispersion`.

    Raises:
        ValueError: an option is out of range; the guide is missing or not finite.

    Source: melmask's own.
    """

    bands: Literal["running", "batch"] = "running"
    profile: tuple[float, ...] = WHITE_NOISE

    def __post_init__(self) -> None:
        super().__post_init__()
        check_profile(self.profile)
        if self.bands not in ("running", "batch"):
            raise ValueError(f'dwm_band has bands "running" or "batch", got {self.bands!r}')

    def learn(self, profile: Float[Tensor, " band"]) -> "BandDispersion":
        """The same strategy with that profile, such as a `band_profile` or an average of them.

        Raises:
            ValueError: a weight is negative or not finite, or all are zero.
        """
        return dataclasses.replace(self, profile=tuple(profile.tolist()))

    def weight(self, patches: Float[Tensor, "b n p"], grid: PatchGrid) -> Float[Tensor, "b n"]:
        weight = dispersion(patches, self.statistic, self.patch_time)
        if self.bands == "batch":
            profile = _row_means(weight, grid, torch.ones_like(weight))
        else:
            profile = torch.tensor(self.profile, device=weight.device)
        usual = per_patch(profile, grid)
        limits = torch.finfo(torch.float32)
        return self.raised(weight / usual.clamp(min=max(limits.eps * float(profile.max()), limits.tiny)))


@dataclass(frozen=True)
class FreqProfile:
    """A fixed frequency profile, the control: DWM's taste for some bands and nothing else of it. Data-independent.

    Successive sampling with one weight a frequency row, the same for every sample, that a run measures once on its
    training data. If this helps as much as `Dispersion` does, it is the bands that help and not where things happen.
    Costs up to twice `Random`.

    Args:
        profile: mean weight of each row from the lowest band to the highest, any number of them; white noise's, until
            `learn` is called.
        exponent: α, to which the weights are raised: 0 is random masking, inf masks whole rows, the busiest first.

    Raises:
        ValueError: an option is out of range.

    Source: melmask's own control.
    """

    profile: tuple[float, ...] = WHITE_NOISE
    exponent: float = 1.0
    needs: ClassVar[Needs] = "nothing"

    def __post_init__(self) -> None:
        check_profile(self.profile)
        check_exponent("freq_profile", self.exponent)

    def learn(self, profile: Float[Tensor, " band"]) -> "FreqProfile":
        """The same strategy with that profile, such as a `band_profile`.

        Raises:
            ValueError: a weight is negative or not finite, or all are zero.
        """
        return dataclasses.replace(self, profile=tuple(profile.tolist()))

    def priority(
        self, batch_size: int, grid: PatchGrid, num_masked: int, rng: Generator, guide: Tensor | None
    ) -> Float[Tensor, "b n"]:
        weight = per_patch(torch.tensor(self.profile, device=rng.device), grid)
        return successive_order(weight.expand(batch_size, -1), self.exponent, rng)
