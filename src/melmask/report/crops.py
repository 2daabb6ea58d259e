"""A run on crops of its own data: its guides, how often it masks each band, and its errors."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from melmask.data.manifest import Clip
from melmask.data.store import Store
from melmask.frameworks import Framework
from melmask.logmel import LogMelSpec
from melmask.masking import draw
from melmask.patches import grid_of, patchify, valid_patches
from melmask.study.runs import Run, random_masks
from melmask.types import Batch, PatchGrid
from melmask.viz.predictions import Stage
from melmask.viz.spectrogram import Spectrogram

NUM_CROPS = 64
SYNTHESISED = Clip(Path("synthesised"), None, None, None, "procedural")  # in place of the clip of such a crop
BATCH_SIZE = 16
MASKS_PER_CROP, DRAWS_PER_CROP = 2, 8


@dataclass(frozen=True)
class Crops:
    """Crops of a run's data.

    Args:
        log_mel: normalised crops of the run's length.
        patches: of the crops.
        valid: False for patches of padding.
        grid: the patches' layout.
        names: label of each crop's recording, or its file's stem.
        files: the file of each crop.
        shown: the crops that are shown singly.
        clip: row of each crop's recording in the store.
        start_frame: where each crop starts in it.
    """

    log_mel: Float[Tensor, "b mel frame"]
    patches: Float[Tensor, "b n p"]
    valid: Bool[Tensor, "b n"]
    grid: PatchGrid
    names: tuple[str, ...]
    files: tuple[str, ...]
    shown: tuple[int, ...]
    clip: Int[Tensor, " b"]
    start_frame: Int[Tensor, " b"]

    def spectrograms(self, spec: LogMelSpec) -> list[Spectrogram]:
        """The crops that are shown singly, with their front end."""
        return [Spectrogram(self.log_mel[i], spec, self.grid.patch, self.names[i]) for i in self.shown]

    @property
    def shown_files(self) -> str:
        """The files of the crops that are shown singly, as a sentence."""
        return f"Recordings, from the top: {', '.join(self.files[i] for i in self.shown)}."


def crops_of(run: Run, store: Store, num_shown: int, seed: int = 0) -> Crops:
    """Random crops as in training; those to be shown are the first without silence and padding.

    Args:
        run: for its crop length, patches and exclusions.
        store: its data.
        num_shown: crops to be shown.
        seed: of the choice; runs of equal crop length on one store get the same crops.
    """
    recipe = run.recipe
    batch = dataclasses.replace(recipe, batch_size=NUM_CROPS, seed=seed).make_loader(store).part(0)
    grid = grid_of(batch.log_mel, recipe.patch_shape)
    clips = [store.clips[int(row)].clip if row >= 0 else SYNTHESISED for row in batch.clip]
    return Crops(
        log_mel=batch.log_mel,
        patches=patchify(batch.log_mel, recipe.patch_shape),
        valid=valid_patches(batch.num_valid_frames, grid),
        grid=grid,
        names=tuple(_readable(clip.label or clip.path.stem) for clip in clips),
        files=tuple(_readable(clip.path.name) for clip in clips),
        shown=_without_silence(batch, store, num_shown),
        clip=batch.clip,
        start_frame=batch.start_frame,
    )


def _readable(name: str) -> str:
    """A name that can be encoded; file names that are not UTF-8 hold bytes that cannot."""
    return name.encode("utf-8", "replace").decode()


def _without_silence(batch: Batch, store: Store, num_shown: int) -> tuple[int, ...]:
    """The first crops of different recordings with the least silence and padding."""
    silence = (store.spec.silence - store.mean) / store.std
    silent = (batch.log_mel.amax(dim=1) < silence + 1e-2).float().mean(dim=1)
    first = {int(clip) if clip >= 0 else -1 - i: i for i, clip in reversed(list(enumerate(batch.clip)))}
    order = sorted(first.values(), key=lambda i: (float(silent[i]), i))
    return tuple(order[:num_shown])


def band_frequency(run: Run, crops: Crops, seed: int = 0) -> Float[Tensor, " freq"]:
    """How often the patches of each frequency band are masked at the end of the schedules.

    Averaged over all crops, time and draws; patches of padding are left out.
    """
    grid, masker, rng = crops.grid, run.masker, torch.Generator().manual_seed(seed)
    num_masked = torch.zeros(crops.valid.shape)
    for part in torch.arange(NUM_CROPS).split(BATCH_SIZE):
        guide = guide_of(run, crops, part)
        valid = crops.valid[part].repeat_interleave(DRAWS_PER_CROP, dim=0)
        mask = draw(
            masker.strategy(1.0),
            grid=grid,
            batch_size=len(valid),
            mask_ratio=run.recipe.mask_ratio,
            rng=rng,
            guide=None if guide is None else guide.repeat_interleave(DRAWS_PER_CROP, dim=0),
            hint_ratio=masker.hints(1.0),
            valid=valid,
        )
        num_masked[part] = mask.as_bool().float().reshape(len(part), DRAWS_PER_CROP, -1).mean(dim=1)
    counted = crops.valid.float()
    by_band = (len(counted), grid.freq, grid.time)
    return (num_masked * counted).reshape(by_band).sum(dim=(0, 2)) / counted.reshape(by_band).sum(dim=(0, 2))


def stages_of(run: Run) -> list[Stage]:
    """The moments of a run's schedules at which masks are shown; without a schedule, one moment or three draws."""
    recipe, masker = run.recipe, run.masker
    changes = recipe.exponent_power is not None or (recipe.takes_hints and recipe.hint_constant is None)
    moments = {"throughout": 1.0}
    if changes:
        moments = {"start": 0.0, "middle": 0.5, "end": 1.0}
    elif not recipe.takes_hints:
        moments = {"draw 1": 1.0, "draw 2": 1.0, "draw 3": 1.0}
    return [
        Stage(name, masker.strategy(progress), masker.hints(progress) if recipe.takes_hints else None)
        for name, progress in moments.items()
    ]


def guide_of(run: Run, crops: Crops, part: Int[Tensor, " k"]) -> Float[Tensor, "k n d"] | None:
    """The guide of the run's strategy for some of the crops, by the model as last saved."""
    patches, clip, start_frame = crops.patches[part], crops.clip[part], crops.start_frame[part]
    return run.masker.guide({} if run.model is None else run.model.encoders(), patches, clip, start_frame)


@torch.no_grad()
def error_by_patch(run: Run, model: Framework, crops: Crops, seed: int = 0) -> Float[Tensor, " n"]:
    """The error at every patch of the grid, averaged over crops and random masks without padding.

    NaN where no valid patch was masked.
    """
    total, count = torch.zeros(crops.grid.num_patches), torch.zeros(crops.grid.num_patches)
    for part in torch.arange(NUM_CROPS).repeat(MASKS_PER_CROP).split(BATCH_SIZE):
        seed += 1
        mask = random_masks(run, crops.grid, len(part), seed)
        error = model(crops.patches[part], crops.grid, mask).per_patch
        counted = crops.valid[part].gather(1, mask.masked).float()
        total.index_add_(0, mask.masked.flatten(), (error * counted).flatten())
        count.index_add_(0, mask.masked.flatten(), counted.flatten())
    return total / count
