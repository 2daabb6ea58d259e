"""DWM and frequency bands: weights normalised per band, and a fixed frequency profile as the control."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from melmask.masking.base import MaskingStrategy, Seen
from melmask.masking.dispersion import Dispersion, check_exponent, successive_order
from melmask.masking.statistics import Statistic, dispersion
from melmask.types import PatchGrid

PROFILE_CROPS = 1024  # of the training data, to measure a frequency profile on before the first step
PROFILE_DECAY = 0.99  # of a running profile, per step

# Mean absolute deviation of log-mel values of white noise in each row of 16 x 16 patches, lowest first. Low bands are
# narrow, a few periodogram bins wide, and so they fluctuate: DWM masks them more often with no event present.
WHITE_NOISE = (0.848, 0.795, 0.648, 0.508, 0.383)


def band_profile(
    patches: Float[Tensor, "b n p"],
    grid: PatchGrid,
    statistic: Statistic = "mad",
    valid: Bool[Tensor, "b n"] | None = None,
) -> Float[Tensor, " freq"]:
    """The mean dispersion of each row of patches, from the lowest band to the highest; padding is left out.

    Args:
        patches: of any number of samples.
        grid: their layout.
        statistic: as for `dispersion`.
        valid: False for padding.

    Returns:
        One mean a row; zero where all is padding.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    weight = dispersion(patches, statistic, grid.patch)
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

    The rows of a log-mel spectrogram differ in dispersion whatever the sound: white noise alone makes DWM mask low
    bands more often. Divided by what is usual in its row, a weight says how unusual the patch is. A row without
    dispersion so far counts as float32's epsilon of the largest, so that the first sound in it is masked first. Costs
    one pass over the patches, and with "running" another one to learn.

    Args:
        bands: whose means: "running" takes those of ``profile``, which a run learns as it goes; "batch" those of the
            samples drawn together, padding included, which lowers all rows alike. Only "batch" masks depend on the
            neighbours, and on nothing of them but these means.
        profile: mean weight of each row from the lowest band to the highest, any number of them; white noise's, until
            `start` or `with_profile` replaces it.

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

    @property
    def num_sample_crops(self) -> int:
        return PROFILE_CROPS if self.bands == "running" else 0

    def with_profile(self, profile: Float[Tensor, " band"]) -> "BandDispersion":
        """The same strategy with that profile, such as a `band_profile` or an average of them.

        Raises:
            ValueError: a weight is negative or not finite, or all are zero.
        """
        return dataclasses.replace(self, profile=tuple(profile.tolist()))

    def start(self, sample: Seen) -> "BandDispersion":
        """With the profile of the sample."""
        return self.with_profile(band_profile(sample.patches, sample.grid, self.statistic, sample.valid))

    def measure(self, seen: Seen) -> Float[Tensor, " freq"] | None:
        """The profile of a part of a batch; None if bands are those of the batch."""
        return band_profile(seen.patches, seen.grid, self.statistic, seen.valid) if self.bands == "running" else None

    def learn(self, measured: Float[Tensor, "k freq"]) -> "BandDispersion":
        """With the profile moved by 1 - `PROFILE_DECAY` towards the mean of all parts."""
        return self.with_profile(
            PROFILE_DECAY * torch.tensor(self.profile) + (1 - PROFILE_DECAY) * measured.cpu().mean(dim=0)
        )

    def state(self) -> dict[str, Tensor]:
        return {"profile": torch.tensor(self.profile)} if self.bands == "running" else {}

    def restore(self, state: Mapping[str, Tensor]) -> "BandDispersion":
        return self.with_profile(state["profile"]) if self.bands == "running" else self

    def weight(self, patches: Float[Tensor, "b n p"], grid: PatchGrid) -> Float[Tensor, "b n"]:
        weight = dispersion(patches, self.statistic, grid.patch)
        if self.bands == "batch":
            profile = _row_means(weight, grid, torch.ones_like(weight))
        else:
            profile = torch.tensor(self.profile, device=weight.device)
        usual = per_patch(profile, grid)
        limits = torch.finfo(torch.float32)
        return self.raised(weight / usual.clamp(min=max(limits.eps * float(profile.max()), limits.tiny)))


@dataclass(frozen=True)
class FreqProfile(MaskingStrategy):
    """A fixed frequency profile, the control: DWM's preference for some bands, the same for every input.
    Data-independent.

    Successive sampling with one weight a frequency row, the same for every sample, that a run measures once on its
    training data. If this helps as much as `Dispersion` does, the preferred bands explain the gain and not the content.
    Costs up to twice `Random`.

    Args:
        profile: mean weight of each row from the lowest band to the highest, any number of them; white noise's, until
            `start` or `with_profile` replaces it.
        exponent: α, to which the weights are raised: 0 is random masking, inf masks whole rows, the largest first.

    Raises:
        ValueError: an option is out of range.

    Source: melmask's own control.
    """

    profile: tuple[float, ...] = WHITE_NOISE
    exponent: float = 1.0

    def __post_init__(self) -> None:
        check_profile(self.profile)
        check_exponent("freq_profile", self.exponent)

    @property
    def num_sample_crops(self) -> int:
        return PROFILE_CROPS

    def with_profile(self, profile: Float[Tensor, " band"]) -> "FreqProfile":
        """The same strategy with that profile, such as a `band_profile`.

        Raises:
            ValueError: a weight is negative or not finite, or all are zero.
        """
        return dataclasses.replace(self, profile=tuple(profile.tolist()))

    def start(self, sample: Seen) -> "FreqProfile":
        """With the profile of the sample, which stays for the whole run."""
        return self.with_profile(band_profile(sample.patches, sample.grid, valid=sample.valid))

    def state(self) -> dict[str, Tensor]:
        return {"profile": torch.tensor(self.profile)}

    def restore(self, state: Mapping[str, Tensor]) -> "FreqProfile":
        return self.with_profile(state["profile"])

    def priority(
        self, batch_size: int, grid: PatchGrid, num_masked: int, rng: Generator, guide: Tensor | None
    ) -> Float[Tensor, "b n"]:
        weight = per_patch(torch.tensor(self.profile, device=rng.device), grid)
        return successive_order(weight.expand(batch_size, -1), self.exponent, rng)
