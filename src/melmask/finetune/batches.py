"""Labelled clips of a store -> augmented training batches, a pure function of (seed, step)."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from melmask.data.loader import random_state
from melmask.data.store import Store
from melmask.finetune.augment import Lines, draw_lines, hide_stripes, mixup, resized_crop
from melmask.finetune.recipe import FinetuneRecipe
from melmask.nn.encoder_file import FrontEnd
from melmask.patches import patchify
from melmask.types import PatchGrid

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """Clips of a batch that have the same number of patches, so that none needs padding.

    Args:
        patches: all patches of each clip.
        grid: their layout; it can be cut along time into the fewest equal chunks that the encoder takes.
        lines: the rows and columns of patches to look at, alike in each chunk; None for all.
        flags: each clip's shares of the classes.
    """

    patches: Float[Tensor, "b n p"]
    grid: PatchGrid
    lines: Lines | None
    flags: Float[Tensor, "b num_classes"]


class Crops:
    """Random crops of labelled clips, augmented; an epoch visits every clip once, in an order drawn anew.

    A clip shorter than the excerpt stays as short as it is: a batch is handed out in groups of equal length. Only the
    frames that a clip's last patch lacks are filled up with silence, as in evaluation. What is longer than the encoder
    takes loses a few time steps, so that it can be cut into equal chunks.

    Args:
        store: the packed data set.
        rows: of its table, to train on.
        flags: the classes of each of them.
        recipe: batch size and augmentation.
        front_end: mean and standard deviation that the encoder expects.
        patch_shape: (freq, time) of a patch.
        crop_frames: the longest chunk.
        seed: of order, crops and augmentation.
    """

    def __init__(
        self,
        store: Store,
        rows: Int[np.ndarray, " clip"],
        flags: Float[Tensor, "clip num_classes"],
        recipe: FinetuneRecipe,
        front_end: FrontEnd,
        patch_shape: tuple[int, int],
        crop_frames: int,
        seed: int,
    ) -> None:
        self.store, self.rows, self.flags, self.recipe, self.front_end = store, rows, flags, recipe, front_end
        self.patch_shape, self.seed = patch_shape, seed
        self.max_steps = crop_frames // patch_shape[1]
        self.max_excerpt_steps = max(self.max_steps, recipe.excerpt_frames // patch_shape[1])
        self.steps_per_epoch = -(-len(rows) // recipe.batch_size)

    def batch(self, step: int) -> list[Group]:
        """The groups of the batch of that step, the shortest clips first."""
        epoch, number = divmod(step, self.steps_per_epoch)
        order = random_state(self.seed, 0, epoch).permutation(len(self.rows))
        chosen = order[number * self.recipe.batch_size : (number + 1) * self.recipe.batch_size]
        rng = random_state(self.seed, 1, step)
        clips = [self._crop(int(row), rng) for row in self.rows[chosen]]
        flags = self.flags[torch.from_numpy(chosen)]
        if self.recipe.mixup:
            clips, flags = mixup(clips, flags, alpha=self.recipe.mixup, silence=self.store.spec.silence, rng=rng)
        columns = np.array([-(-len(clip) // self.patch_shape[1]) for clip in clips])
        groups = []
        for num_columns in np.unique(columns):
            members = np.flatnonzero(columns == num_columns)
            log_mel = self._stack([clips[i] for i in members], int(num_columns) * self.patch_shape[1])
            groups.append(self._group(log_mel, flags[torch.from_numpy(members)], rng))
        return groups

    def _crop(self, row: int, rng: np.random.Generator) -> Float[Tensor, "frame mel"]:
        num_frames, step = self.store.clips[row].num_frames, self.patch_shape[1]
        num_steps = min(-(-num_frames // step), self.max_excerpt_steps)
        length = min(num_frames, step * evenly_cut(num_steps, self.max_steps)[1])
        start = int(rng.integers(num_frames - length + 1))
        return torch.from_numpy(self.store.log_mel(row, start, start + length).astype(np.float32))

    def _stack(self, clips: Sequence[Tensor], num_frames: int) -> Float[Tensor, "b mel frame"]:
        log_mel = torch.full((len(clips), num_frames, self.store.spec.num_mels), self.store.spec.silence)
        for i, clip in enumerate(clips):
            log_mel[i, : len(clip)] = clip
        return log_mel.transpose(1, 2)

    def _group(self, log_mel: Float[Tensor, "b mel frame"], flags: Tensor, rng: np.random.Generator) -> Group:
        recipe = self.recipe
        if recipe.resized_crop:
            log_mel = resized_crop(log_mel, silence=self.store.spec.silence, rng=rng)
        log_mel = (log_mel - self.front_end.mean) / self.front_end.std
        if recipe.max_hidden_bands or recipe.max_hidden_frames:
            log_mel = hide_stripes(
                log_mel, max_bands=recipe.max_hidden_bands, max_frames=recipe.max_hidden_frames, rng=rng
            )
        grid = PatchGrid(log_mel.shape[1] // self.patch_shape[0], log_mel.shape[2] // self.patch_shape[1])
        chunk = PatchGrid(grid.freq, grid.time // evenly_cut(grid.time, self.max_steps)[0])
        lines = draw_lines(len(log_mel), chunk, recipe.patch_mask_ratio, rng) if recipe.patch_mask_ratio else None
        return Group(patchify(log_mel, self.patch_shape), grid, lines, flags)


def evenly_cut(num_steps: int, max_steps: int) -> tuple[int, int]:
    """The fewest chunks that time steps can be cut into, and how many steps are left when these are to be equal.

    >>> evenly_cut(32, 13), evenly_cut(30, 13), evenly_cut(7, 13)
    ((3, 30), (3, 30), (1, 7))
    """
    num_chunks = -(-num_steps // max_steps)
    return (num_chunks, num_steps) if num_steps % num_chunks == 0 else evenly_cut(num_steps - 1, max_steps)


def read_ahead(make: Callable[[int], T], steps: range) -> Iterator[T]:
    """What ``make`` makes of each step, the next one already being made in a background thread."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="melmask-crops") as reader:
        waiting = [reader.submit(make, step) for step in steps[:1]]
        for step in steps:
            ready = waiting.pop().result()
            waiting += [reader.submit(make, following) for following in (step + 1,) if following in steps]
            yield ready
