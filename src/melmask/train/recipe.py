"""Every setting of one training, with named defaults."""

import dataclasses
import math
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from melmask.data.loader import Loader
from melmask.data.store import Store
from melmask.demo.procedural.stream import CPU, ProceduralCrops
from melmask.fields import make
from melmask.files import read_json, write_json
from melmask.frameworks import Framework, make_framework, make_options, outline
from melmask.masking import ExponentSchedule, GuidanceSchedule, HintSchedule, MaskingStrategy, make_strategy
from melmask.masking.base import can_mask, num_masked_of, num_visible_of
from melmask.masking.schedule import HintShape, Schedule, check_points
from melmask.nn.vit import SIZES, Size
from melmask.patches import PositionOrder
from melmask.train.earlier import update_recipe
from melmask.train.ranges import COUNTS, NUMBERS, check_ranges
from melmask.types import PatchGrid

LENGTH = ("steps", "epochs", "decay")  # settings in which a run of the schedule "wsd" may change
REMEDY = "restore it from a copy; a run without a checkpoint can be started anew in another folder"
CHOICES = {"optimiser": ("adamw", "muon"), "schedule": ("cosine", "wsd"), "precision": ("auto", "float32", "bf16")}
ROUNDING, MAX_PATCH = 1e-9, 4096
# Not dict, of which tyro would make a flag for each key of the default value.
Options = MutableMapping[str, bool | int | float | str]


@dataclass(frozen=True)
class Recipe:
    """Every setting of one training. Recipe, store and number of processes together reproduce a run.

    Args:
        framework: how to learn from masks, a name in `melmask.frameworks.FRAMEWORKS` or "package.module:Class".
        framework_options: the framework's own settings; when changed, they replace all of the recipe's.
        size: width and depth of the encoder, a name in `melmask.nn.vit.SIZES`.
        patch_shape: (freq, time) of a patch, in mel bands and frames.
        position_order: which axis the first half of the positions says: "time-freq" in the weights that M2D and MSM-MAE
            publish.
        crop_frames: length of the random crops, in frames.
        decoder_dim: width of the network that predicts masked patches.
        decoder_depth: number of its blocks.
        decoder_heads: number of its attention heads.
        strategy: what to mask, a name in `melmask.masking.STRATEGIES`, or "package.module:Class".
        strategy_options: settings of the strategy.
        mask_ratio: share of patches that are masked.
        hint_strategies: which strategies take hints: "informed" ones, which need a guide, or "all".
        hint_shape: how the hint ratio h falls from 1 to 0: as 1 - progress^k, as a cosine, or "delayed" until
            hint_start and then at once, which leaves the strategy alone.
        hint_power: k of that power.
        hint_start: share of the run, from its start, with h = 1: random masks.
        hint_constant: a constant h in place of a schedule.
        guidance: (progress, λ) points, interpolated linearly: the guidance to reach by hints, in place of h.
        exponent_power: k with which the weights' exponent rises from 0 to the strategy's own, as progress^k; None
            for that exponent throughout. Hints are given besides, unless hint_constant is 0.
        steps: optimiser steps; 0 to count in epochs.
        epochs: passes over the store, counted in crops; 0 to count in steps.
        crops_per_clip: crops that an epoch takes of each recording, and then whole batches only, as the papers count
            epochs; 0 for as many crops as the recording is long, and epochs that may end within a batch.
        batch_size: crops in one optimiser step, over all processes and accumulated parts.
        accumulate: parts into which a process splits its share of the batch, by length: takes less memory, and pads
            short recordings less.
        optimiser: "adamw", or "muon" (`melmask.train.muon`) for matrices of transformer blocks, AdamW for the rest.
        muon_iterations: by which Muon orthogonalises an update; more are more exact and take longer.
        learning_rate: peak of the schedule, for this batch size.
        schedule: of the learning rate after warm-up: a "cosine" to zero, or "wsd" (warm-up, stable, decay): constant,
            and then to zero as 1 - sqrt(progress). A run of "wsd" can be extended and ended early
            (`melmask.train.extension`).
        warmup: share of the run, from its start, in which the learning rate rises linearly. In twice that share, after
            a start from other weights, networks that have none there are trained alone (`melmask.train.new_networks`).
        decay: share of the run, to its end, in which the rate of "wsd" falls.
        weight_decay: AdamW's and Muon's, on matrices only.
        betas: AdamW's.
        grad_clip: largest norm of the gradient.
        weights_ema: decay of an exponential moving average of the encoder's weights, of which the encoder file is
            written (`melmask.train.average`); 0 for the weights themselves.
        whitening_crops: crops that the encoder file's whitening (`melmask.nn.time_steps`) is learned from; 0 for none.
        checkpoint_activations: keep only the input of each transformer block and compute the rest again in the backward
            pass: less memory, about a third more time, the same results.
        precision: "float32", "bf16" autocast, or "auto" for bf16 where the hardware computes in it.
        procedural_share: share of the crops of each batch that are synthesised, in [0, 1] (`melmask docs procedural`).
        mixed_share: share of the crops into which another one of the batch is mixed at -20 to 6 dB, in [0, 1].
        stretched_share: share of the recorded crops that are read at another speed and pitch, in [0, 1].
        exclude: clips of the store that are not trained on, as "SOURCE" or "SOURCE:FOLD".
        seed: of the weights, the crops and the masks.
        log_every: steps between two entries of the log.
        save_every: steps between two checkpoints.
        keep_every: steps between two encoders that are kept along the run, for `melmask evaluate RUN@STEP`; 0 for none.
    """

    framework: str = "m2d"
    framework_options: Options = field(default_factory=dict)
    size: str = "base"
    patch_shape: tuple[int, int] = (16, 16)
    position_order: PositionOrder = "freq-time"
    crop_frames: int = 608
    decoder_dim: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    strategy: str = "random"
    strategy_options: Options = field(default_factory=dict)
    mask_ratio: float = 0.7
    hint_strategies: Literal["informed", "all"] = "informed"
    hint_shape: HintShape = "power"
    hint_power: float = 2.0
    hint_start: float = 1 / 6
    hint_constant: float | None = None
    guidance: tuple[tuple[float, float], ...] = ()
    exponent_power: float | None = None
    steps: int = 0
    epochs: float = 0.0
    crops_per_clip: int = 0
    batch_size: int = 2048
    accumulate: int = 1
    optimiser: Literal["adamw", "muon"] = "adamw"
    muon_iterations: int = 3
    learning_rate: float = 2.4e-3
    schedule: Literal["cosine", "wsd"] = "cosine"
    warmup: float = 1 / 15
    decay: float = 0.2
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    grad_clip: float = 3.0
    weights_ema: float = 0.0
    whitening_crops: int = 0
    checkpoint_activations: bool = False
    precision: Literal["auto", "float32", "bf16"] = "auto"
    procedural_share: float = 0.0
    mixed_share: float = 0.0
    stretched_share: float = 0.0
    exclude: tuple[str, ...] = ()
    seed: int = 0
    log_every: int = 20
    save_every: int = 500
    keep_every: int = 0

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ValueError(f"no size {self.size!r}; there are: {', '.join(SIZES)}")
        if self.position_order not in get_args(PositionOrder):
            raise ValueError(f'position_order is "freq-time" or "time-freq", got {self.position_order!r}')
        if (self.steps > 0) == (self.epochs > 0):
            raise ValueError(f"set one of steps and epochs, the other to 0: got {self.steps} and {self.epochs}")
        check_ranges(self, {**COUNTS, **NUMBERS})
        for name, there_are in CHOICES.items():
            if getattr(self, name) not in there_are:
                raise ValueError(f"{name} is one of {', '.join(there_are)}, got {getattr(self, name)!r}")
        self._check_shares()
        if not all(1 <= side <= MAX_PATCH for side in self.patch_shape) or len(self.patch_shape) != 2:
            raise ValueError(
                f"patch_shape is two numbers from 1 to {MAX_PATCH}, in bands and frames, got {self.patch_shape}"
            )
        if self.crop_frames < self.patch_shape[1]:
            raise ValueError(f"crop_frames {self.crop_frames} is shorter than a patch, {self.patch_shape[1]} frames")
        make_options(self.framework, self.framework_options)
        for check in (self._check_strategy, self._check_hints, self.exponent, lambda: self.decoder_size):
            check()

    def _check_shares(self) -> None:
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError(f"betas must be decays in [0, 1), such as 0.9 0.95, got {self.betas}")
        if not 0.0 <= self.warmup < 1.0:
            raise ValueError(f"warmup is a share of the run in [0, 1), got {self.warmup}")
        if not 0.0 <= self.decay <= 1.0:
            raise ValueError(f"decay is a share of the run in [0, 1], got {self.decay}")
        if self.schedule == "wsd" and self.warmup + self.decay > 1.0 + ROUNDING:
            raise ValueError(f"warmup {self.warmup} and decay {self.decay} are shares of one run: together at most 1")
        if not 0.0 <= self.weights_ema < 1.0:
            raise ValueError(f"weights_ema is a decay in [0, 1), such as 0.999, or 0 for none, got {self.weights_ema}")

    def _check_strategy(self) -> None:
        strategy = self.make_strategy()
        encoder = strategy.needs.encoder
        if encoder != "online" and encoder not in self.outline().encoders():
            there_are = ", ".join(self.outline().encoders())
            raise ValueError(
                f'{self.framework} has no "{encoder}" encoder to guide {self.strategy}; it has: {there_are}'
            )
        if strategy.needs.guide == "loss" and not self.outline().predicts_all:
            raise ValueError(
                f"{self.strategy} learns from the error of every masked patch, and {self.framework} with these options "
                "predicts a part of them: set decoded_share 1"
            )

    def _check_hints(self) -> None:
        self._hint_schedule()
        if self.hint_strategies not in ("informed", "all"):
            raise ValueError(f'hints are for "informed" strategies or for "all", got {self.hint_strategies!r}')
        if self.guidance:
            check_points(self.guidance)
            if self.hint_constant is not None:
                raise ValueError("guidance and hint_constant both set the hint ratio: set one of them")
            if not self.takes_hints:
                raise ValueError(
                    f"{self.strategy} needs no guide and so takes no hints, by which guidance is set: "
                    'set hint_strategies "all"'
                )

    @property
    def encoder_size(self) -> Size:
        """Width, depth and heads of the encoder."""
        return SIZES[self.size]

    @property
    def decoder_size(self) -> Size:
        """Width, depth and heads of the network that predicts masked patches."""
        return Size(self.decoder_dim, self.decoder_depth, self.decoder_heads)

    @property
    def patch_values(self) -> int:
        """Log-mel values in one patch."""
        return math.prod(self.patch_shape)

    def make_strategy(self) -> MaskingStrategy:
        """The strategy with its options."""
        return make_strategy(self.strategy, self.strategy_options)

    def make_model(self) -> Framework:
        """The framework with freshly initialised weights."""
        sizes = (self.encoder_size, self.decoder_size, self.patch_shape)
        settings = (self.framework_options, self.checkpoint_activations, self.position_order)
        return make_framework(self.framework, *sizes, *settings)

    def outline(self) -> Framework:
        """The framework with shapes but no weights, on torch's meta device."""
        sizes = (self.encoder_size, self.decoder_size, self.patch_shape)
        return outline(self.framework, *sizes, tuple(sorted(self.framework_options.items())))

    @property
    def takes_hints(self) -> bool:
        """Whether the schedule of hints applies to the strategy."""
        return self.hint_strategies == "all" or self.make_strategy().needs.guide != "nothing"

    def hints(self, grid: PatchGrid) -> Schedule:
        """The hint ratio over the run, on crops of that grid; 0 throughout for a strategy that takes no hints."""
        if not self.takes_hints:
            return HintSchedule(constant=0.0)
        if self.guidance:
            num_masked = num_masked_of(grid.num_patches, self.mask_ratio)
            return GuidanceSchedule(self.guidance, grid.num_patches, num_masked)
        return self._hint_schedule()

    def _hint_schedule(self) -> HintSchedule:
        return HintSchedule(self.hint_power, self.hint_start, self.hint_constant, self.hint_shape)

    def exponent(self) -> ExponentSchedule | None:
        """The exponent of the strategy's weights over the run; None if it is not annealed.

        Raises:
            ValueError: exponent_power is set and the strategy has no exponent.
        """
        if self.exponent_power is None:
            return None
        strategy = self.make_strategy()
        if strategy.exponent is None:
            raise ValueError(f"{self.strategy} has no exponent that exponent_power could anneal: leave it out")
        return ExponentSchedule(strategy.exponent, self.exponent_power)

    def grid(self, num_mels: int) -> PatchGrid:
        """The grid of a training crop.

        Raises:
            ValueError: the crop is smaller than a patch, or the mask ratio leaves no patch visible or none masked.
        """
        freq, time = self.patch_shape
        grid = PatchGrid(num_mels // freq, self.crop_frames // time, self.patch_shape)
        num_visible_of(grid.num_patches, self.mask_ratio)
        return grid

    def on(self, store: Store) -> "Recipe":
        """The recipe as it runs on that store: without recordings, all crops are synthesised.

        Raises:
            ValueError: it counts epochs, which sound without end has none of.
        """
        if len(store):
            return self
        if not self.steps:
            raise ValueError(f"{store.place} sound has no epochs: set --steps to a number, and --epochs to 0")
        return dataclasses.replace(self, procedural_share=1.0)

    def make_loader(self, store: Store, device: torch.device = CPU) -> Loader:
        """A loader of the run's batches, each part long enough for one visible and one masked patch.

        Args:
            store: of the recordings.
            device: to synthesise on.

        Raises:
            ValueError: as `grid`, or as `trainable_rows`.
        """
        grid = self.grid(store.spec.num_mels)
        columns = range(1, grid.time)
        return Loader(
            store,
            crop_frames=self.crop_frames,
            batch_size=self.batch_size,
            seed=self.seed,
            exclude=self.exclude,
            crops_per_clip=self.crops_per_clip,
            column_frames=self.patch_shape[1],
            min_columns=next((n for n in columns if can_mask(n * grid.freq, self.mask_ratio)), grid.time),
            maker=ProceduralCrops(store.spec, self.seed, device) if self.procedural_share else None,
            made_share=self.procedural_share,
            mixed_share=self.mixed_share,
            stretched_share=self.stretched_share,
        )

    def num_steps(self, crops_per_epoch: int) -> int:
        """Optimiser steps of the run on a store with that many crops."""
        return self.steps or max(1, round(self.epochs * crops_per_epoch / self.batch_size))

    def save(self, path: Path) -> None:
        """Write all settings to a JSON file."""
        write_json(path, dataclasses.asdict(self))

    @staticmethod
    def load(path: Path) -> "Recipe":
        """Read a recipe, as this or an earlier version saved it.

        Raises:
            ValueError: the file is damaged, is no recipe, or one of a later version; it names the file and the setting.
        """
        needed = {"patch_shape": list, "betas": list, "exclude": list, "strategy_options": dict}
        saved = read_json(path, "recipe of this version of melmask", needed, REMEDY)
        try:
            update_recipe(saved)
            return make(Recipe, saved)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RuntimeError) as error:
            raise ValueError(f"{path} is no recipe of this version of melmask: {error}; {REMEDY}") from error


def as_text(value: Any) -> str:
    """A setting as text.

    >>> as_text({"statistic": "mad"}), as_text((0.9, 0.99995)), as_text(1 / 6), as_text(())
    ('statistic = mad', '0.9, 0.99995', '0.166667', '–')
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{name} = {as_text(item)}" for name, item in value.items()) or "–"
    if isinstance(value, (tuple, list)):
        return ", ".join(map(as_text, value)) or "–"
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


_PAPER = Recipe(
    position_order="time-freq", epochs=300.0, crops_per_clip=1, framework_options={"target": "blocks"},
)  # fmt: skip
# Chosen with random masking, on folds that no reported score uses (LOG.md). Shallower than the papers' networks;
# M2D's targets are standardised over the batch, so that its EMA can be fast enough for some thousand steps.
_TINY = Recipe(
    size="shallow", crop_frames=208, decoder_dim=192, decoder_depth=2, decoder_heads=3, steps=20_000, batch_size=32,
    learning_rate=5e-4, warmup=0.05,
    whitening_crops=512, framework_options={"ema_start": 0.999, "ema_end": 0.9999, "standardise": "batch"},
)  # fmt: skip
_MICRO = Recipe(
    size="micro", crop_frames=96, decoder_dim=32, decoder_depth=1, decoder_heads=2, steps=100, batch_size=16,
    learning_rate=1e-3, warmup=0.1, framework_options={"ema_start": 0.99, "ema_end": 0.999}, precision="float32",
    log_every=5, save_every=50,
)  # fmt: skip

# A target that moves by .999 and more stays near its random start for a thousand steps (LOG.md).
_FAST_EMA: Options = {"ema_start": 0.99, "ema_end": 0.999, "standardise": "batch"}
_HALF_BY_CROSS_ATTENTION: Options = {"decoder": "cross", "decoded_share": 0.5}


def _msm_mae(recipe: Recipe, **changes: Any) -> Recipe:
    settings = {"framework": "msm-mae", "framework_options": {}, "mask_ratio": 0.75, **changes}
    return dataclasses.replace(recipe, **settings)


_CROSS_AND_MIXED = {"framework_options": _HALF_BY_CROSS_ATTENTION, "decoder_depth": 1, "mixed_share": 0.5}

RECIPES: dict[str, Recipe] = {
    "micro-m2d": _MICRO,
    "micro-msm-mae": _msm_mae(_MICRO),
    "quick-msm-mae": _msm_mae(_TINY, steps=1200, learning_rate=3e-4, **_CROSS_AND_MIXED),
    "quick-m2d": dataclasses.replace(
        _TINY, steps=1200, optimiser="muon", learning_rate=1e-3, framework_options=_FAST_EMA
    ),
    "tiny-m2d": _TINY,
    "tiny-msm-mae": _msm_mae(
        _TINY, batch_size=64, accumulate=2, optimiser="muon", learning_rate=1e-3, **_CROSS_AND_MIXED
    ),
    "small-m2d": dataclasses.replace(_PAPER, size="small"),
    "small-msm-mae": _msm_mae(_PAPER, size="small", decoder_dim=384, decoder_depth=4, decoder_heads=6),
    "base-m2d": _PAPER,
    "base-msm-mae": _msm_mae(_PAPER, decoder_dim=384, decoder_depth=4, decoder_heads=6),
    # The base recipes with the paper's strategy: `melmask.train.paper` gives them the schedule of any other.
    "paper-m2d": dataclasses.replace(_PAPER, strategy="dwm"),
    "paper-msm-mae": _msm_mae(_PAPER, strategy="dwm", decoder_dim=384, decoder_depth=4, decoder_heads=6),
}
