"""Estimate what a run will take: operations, memory, storage and time."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from melmask.data.loader import crops_of_epoch
from melmask.logmel import LogMelSpec
from melmask.masking import STRATEGIES, make_strategy
from melmask.masking.base import can_mask
from melmask.plan.devices import Device, gemm_ceiling
from melmask.plan.flops import StepFlops, guide_parts, step_flops
from melmask.plan.memory import FLOAT32, Footprint, Setting, footprint, part_size
from melmask.plan.trial import Trial, try_steps
from melmask.runtime import computes_in_bf16, describe, memory_of, this_device
from melmask.train.recipe import Recipe

STORED = 2  # bytes of a log-mel value in a store: float16
USABLE = 0.8  # share of a device's memory for a step; drivers, libraries and fragmentation take the rest
TRIAL_S, TRIAL_STEP_S = 6.0, 2.0  # length of a trial, and the longest that one step of it should take
SHORT_STEP_S = 0.02  # by its products alone; what else it does may then take longer
GUESSED_SHARE = 0.4  # of the ceiling, to choose the batch size of the trial


def notes_on_short_steps(step_s: float) -> list[str]:
    """What an estimate by a data sheet leaves out of steps that are so short; nothing if they are not.

    Args:
        step_s: seconds of a step by its matrix products.
    """
    if step_s >= SHORT_STEP_S:
        return []
    return [
        f"{1000 * step_s:.2g} ms a step are its products alone: launching its operations one by one and reading crops "
        "are not counted, and may take longer. Measure it there: melmask plan"
    ]


@dataclass(frozen=True)
class Data:
    """The recordings to train on.

    Args:
        num_clips: number of recordings.
        clip_s: length of each, in seconds.
        spec: the front end.

    Raises:
        ValueError: there are none, or they have no length.
    """

    num_clips: int
    clip_s: float = 10.0
    spec: LogMelSpec = LogMelSpec()  # noqa: RUF009 - it is frozen

    def __post_init__(self) -> None:
        if self.num_clips < 1 or self.clip_s <= 0:
            raise ValueError(
                f"num_clips must be at least 1 and clip_s positive: got {self.num_clips} clips of {self.clip_s} s"
            )

    @property
    def clip_frames(self) -> int:
        """Log-mel frames of each recording."""
        return self.spec.num_frames(round(self.clip_s * self.spec.sample_rate_hz))

    @property
    def store_bytes(self) -> int:
        """Bytes of the packed log-mels; tables and file headers add about 100 bytes a clip."""
        return self.num_clips * self.clip_frames * self.spec.num_mels * STORED

    def cropped(self, recipe: Recipe) -> Recipe:
        """The recipe with crops no longer than these clips, as the loader pads clips to whole patches only.

        Raises:
            ValueError: even a full crop is too short for the mask ratio.
        """
        freq, frames = recipe.grid(self.spec.num_mels).freq, recipe.patch_shape[1]
        columns = -(-self.clip_frames // frames)
        while columns * frames < recipe.crop_frames and not can_mask(columns * freq, recipe.mask_ratio):
            columns += 1
        return dataclasses.replace(recipe, crop_frames=min(columns * frames, recipe.crop_frames))

    def crops_per_clip(self, recipe: Recipe) -> int:
        """Crops that an epoch takes of each clip: the recipe's, or one for each crop length in it, at least one."""
        return recipe.crops_per_clip or max(1, round(self.clip_frames / recipe.crop_frames))


AUDIOSET = Data(2_042_985, 10.0)  # its unbalanced set, by the number of clips that AudioSet's site states


@dataclass(frozen=True)
class Speed:
    """How fast a device computes.

    Args:
        name: of the device.
        ceiling_flops: largest speed, in operations a second: by data sheet, or of measured products.
        utilisation: share of it that a step reaches: assumed, or measured.
        memory: of the device, in bytes.
        source: of the ceiling.
        trial: the measured steps; None if the utilisation is assumed.
        others: mean number of busy processes on the machine before it was measured.
    """

    name: str
    ceiling_flops: float
    utilisation: float
    memory: int
    source: str
    trial: Trial | None = None
    others: float = 0.0

    @property
    def flops(self) -> float:
        """Operations a second, in training."""
        return self.ceiling_flops * self.utilisation


@dataclass(frozen=True)
class Plan:
    """What a run will take.

    Args:
        recipe: every setting of the run.
        data: the training data.
        flops: of a step, on all devices together.
        footprint: memory of a step, on each device.
        setting: number and kind of the devices, which are assumed to share the work without loss.
        speed: of each device.
    """

    recipe: Recipe
    data: Data
    flops: StepFlops
    footprint: Footprint
    setting: Setting
    speed: Speed

    @property
    def num_devices(self) -> int:
        return self.setting.num_devices

    @property
    def crops_per_epoch(self) -> int:
        num_crops = self.data.num_clips * self.data.crops_per_clip(self.recipe)
        return crops_of_epoch(num_crops, self.recipe.batch_size, self.recipe.crops_per_clip)

    @property
    def num_steps(self) -> int:
        return self.recipe.num_steps(self.crops_per_epoch)

    @property
    def step_s(self) -> float:
        """Seconds a step. The optimiser is excluded: its time depends on memory bandwidth, not on operations."""
        return self.flops.per_sample * self.recipe.batch_size / (self.num_devices * self.speed.flops)

    @property
    def run_s(self) -> float:
        return self.num_steps * self.step_s

    @property
    def device_hours(self) -> float:
        return self.num_devices * self.run_s / 3600

    @property
    def fits(self) -> bool:
        """Whether a step fits into the device's memory."""
        return self.footprint.peak <= USABLE * self.speed.memory


def make_plan(
    recipe: Recipe, data: Data, device: Device | None = None, num_devices: int = 1, utilisation: float | None = None
) -> Plan:
    """Plan a run, on devices with a known data sheet or on this machine, which is measured.

    Args:
        recipe: every setting.
        data: the training data.
        device: one of `DEVICES`; None measures this machine by matrix products and a few real steps.
        num_devices: number of devices.
        utilisation: share of the peak that training reaches, in place of the assumed or measured one.

    Raises:
        ValueError: a number is out of range, the batch does not divide by the devices, or a crop has no patches.
    """
    if num_devices < 1:
        raise ValueError(f"a run needs at least one device, got {num_devices}")
    if utilisation is not None and not 0.0 < utilisation <= 1.0:
        raise ValueError(f"utilisation is a share of the peak in (0, 1], got {utilisation}")
    cropped, num_mels = data.cropped(recipe), data.spec.num_mels
    flops = step_flops(cropped, num_mels)
    part_size(recipe, num_devices)
    if device is None:
        here = this_device()
        in_bf16 = recipe.precision == "bf16" or (recipe.precision == "auto" and computes_in_bf16(here))
        speed = measured_speed(recipe, data, flops, in_bf16, num_devices)
        if utilisation is not None:
            speed = dataclasses.replace(speed, utilisation=utilisation)
    else:
        here, in_bf16 = torch.device("cuda"), device.computes_in_bf16(recipe.precision)
        share = device.utilisation(recipe.precision) if utilisation is None else utilisation
        speed = Speed(device.name, device.peak_flops(recipe.precision), share, device.memory, device.source)
    setting = Setting(num_devices, in_bf16, on_gpu=here.type == "cuda")
    return Plan(recipe, data, flops, footprint(cropped, num_mels, setting), setting, speed)


def measured_speed(recipe: Recipe, data: Data, flops: StepFlops, in_bf16: bool, num_devices: int = 1) -> Speed:
    """Measure this machine: its ceiling, and the share of it that a few real steps reach.

    Args:
        recipe: to take steps of, with a smaller batch if a step would take more than seconds.
        data: for the length of the clips.
        flops: of a step of the recipe.
        in_bf16: whether the recipe computes in bf16 here.
        num_devices: that will share its batch.
    """
    device, others = this_device(), os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    ceiling = gemm_ceiling(device, torch.bfloat16 if in_bf16 else torch.float32)
    affordable, share = int(GUESSED_SHARE * ceiling * TRIAL_STEP_S / flops.per_sample), recipe.batch_size // num_devices
    if affordable >= share:
        tried = dataclasses.replace(recipe, batch_size=share)
    else:
        batch_size = min(max(affordable, 1), part_size(recipe, num_devices))
        tried = dataclasses.replace(recipe, batch_size=batch_size, accumulate=1)
    trial = try_steps(tried, data.spec, data.clip_s, TRIAL_S)
    reached = flops.per_sample / trial.sample_s
    products = f"products of large {'bf16' if in_bf16 else 'float32'} matrices, measured now"
    return Speed(describe(device), ceiling, reached / ceiling, memory_of(device), products, trial, others)


@dataclass(frozen=True)
class StrategyCost:
    """What a masking strategy takes more than random masking, in the same framework.

    Args:
        name: in `STRATEGIES`, or "package.module:Class".
        needs: its guide.
        pass_flops: operations of the encoder pass that it needs, for one sample.
        ranking_flops: operations of ranking the patches of one sample.
        share: both, as a share of a step with random masking.
        history_bytes: of the recorded losses.
    """

    name: str
    needs: str
    pass_flops: int
    ranking_flops: int
    share: float
    history_bytes: int


def strategy_costs(recipe: Recipe, data: Data) -> list[StrategyCost]:
    """The cost of every registered strategy, and of the recipe's own with its options, in the recipe's framework."""
    recipe = data.cropped(recipe)
    grid = recipe.grid(data.spec.num_mels)
    plain = dataclasses.replace(
        recipe, strategy="random", strategy_options={}, guidance=(), exponent_power=None, hint_strategies="informed"
    )
    step = step_flops(plain, data.spec.num_mels).per_sample
    costs = []
    for name in dict.fromkeys([*STRATEGIES, recipe.strategy]):
        options: Mapping[str, bool | int | float | str] = recipe.strategy_options if name == recipe.strategy else {}
        strategy = make_strategy(name, options)
        flops = {part.name: part.total for part in guide_parts(strategy, recipe, grid)}
        # A loss is recorded for each patch of a recording, not of each crop.
        columns = max(round(data.clip_frames / recipe.patch_shape[1]), grid.time)
        history_bytes = FLOAT32 * data.num_clips * columns * grid.freq if strategy.needs.guide == "loss" else 0
        guide, ranking = flops.get("guide pass", 0), flops.get("ranking", 0)
        costs.append(StrategyCost(name, strategy.needs.guide, guide, ranking, (guide + ranking) / step, history_bytes))
    return costs


def remedies(plan: Plan) -> list[str]:
    """Changes of the recipe with which a step that does not fit would; empty if it fits.

    Returns:
        Command-line options; each item alone is enough.
    """
    if plan.fits:
        return []
    recipe, found = plan.recipe, []
    changes: tuple[dict[str, Any], ...] = ({}, {"checkpoint_activations": True})
    for change in changes:
        for accumulate in _divisors(recipe.batch_size // plan.num_devices):
            changed = dataclasses.replace(recipe, accumulate=accumulate, **change)
            if accumulate >= recipe.accumulate and _fits(changed, plan):
                words = ["--checkpoint-activations"] if change else []
                words += [f"--accumulate {accumulate}"] if accumulate > recipe.accumulate else []
                found.append(" ".join(words))
                break
    return found


def _divisors(number: int) -> list[int]:
    return [i for i in range(1, number + 1) if number % i == 0]


def _fits(recipe: Recipe, plan: Plan) -> bool:
    return (
        footprint(plan.data.cropped(recipe), plan.data.spec.num_mels, plan.setting).peak <= USABLE * plan.speed.memory
    )
