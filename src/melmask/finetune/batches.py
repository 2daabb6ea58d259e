"""Labelled clips of a store -> augmented training batches; each is a pure function of (seed, step)."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from melmask.data.loader import random_state
from melmask.data.store import Store
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.finetune.augment import Lines, draw_lines, hide_stripes, mixup, resized_crop
from melmask.finetune.recipe import FinetuneRecipe
from melmask.patches import grid_of, patchify
from melmask.types import PatchGrid

T = TypeVar("T")


@dataclass(frozen=True)
class SubBatch:
    """Clips of a batch with the same number of patches, so that none is padded.

    Args:
        patches: all patches of each clip.
        grid: their layout; along time it divides into the fewest equal chunks that the encoder accepts.
        lines: the visible rows and columns, the same in each chunk; None for all.
        flags: each clip's shares of the classes.
    """

    patches: Float[Tensor, "b n p"]
    grid: PatchGrid
    lines: Lines | None
    flags: Float[Tensor, "b num_classes"]


class ClipBatches:
    """Augmented batches of random crops of labelled clips; an epoch visits every clip once, in random order.

    A clip shorter than the excerpt is not padded: a batch is divided into sub-batches of equal length. Only the last
    patch of a clip is filled up with silence, as in evaluation. A clip longer than the encoder's input loses a few time
    steps, so that it divides into equal chunks.

    Args:
        store: the packed data set.
        rows: of its table, to train on.
        flags: the classes of each of these clips.
        recipe: batch size and augmentation.
        encoder: whose normalisation, patches and maximum input length the batches are made for.
        seed: of order, crops and augmentation.
    """

    def __init__(
        self,
        store: Store,
        rows: Int[np.ndarray, " clip"],
        flags: Float[Tensor, "clip num_classes"],
        recipe: FinetuneRecipe,
        encoder: PretrainedEncoder,
        seed: int,
    ) -> None:
        self.store, self.rows, self.flags, self.recipe, self.seed = store, rows, flags, recipe, seed
        self.front_end, self.patch_shape = encoder.front_end, encoder.encoder.patch_shape
        self.max_steps = encoder.crop_frames // self.patch_shape[1]
        self.max_excerpt_steps = max(self.max_steps, recipe.excerpt_frames // self.patch_shape[1])
        self.steps_per_epoch = -(-len(rows) // recipe.batch_size)

    def batch(self, step: int) -> list[SubBatch]:
        """The batch of a step, in sub-batches of ascending length."""
        epoch, number = divmod(step, self.steps_per_epoch)
        order = random_state(self.seed, 0, epoch).permutation(len(self.rows))
        chosen = order[number * self.recipe.batch_size : (number + 1) * self.recipe.batch_size]
        rng = random_state(self.seed, 1, step)
        clips = [self._crop(int(row), rng) for row in self.rows[chosen]]
        flags = self.flags[torch.from_numpy(chosen)]
        if self.recipe.mixup:
            clips, flags = mixup(clips, flags, alpha=self.recipe.mixup, silence=self.store.spec.silence, rng=rng)
        columns = np.array([-(-len(clip) // self.patch_shape[1]) for clip in clips])
        sub_batches = []
        for num_columns in np.unique(columns):
            members = np.flatnonzero(columns == num_columns)
            log_mel = self._stack([clips[i] for i in members], int(num_columns) * self.patch_shape[1])
            sub_batches.append(self._sub_batch(log_mel, flags[torch.from_numpy(members)], rng))
        return sub_batches

    def _crop(self, row: int, rng: np.random.Generator) -> Float[Tensor, "frame mel"]:
        num_frames, step = int(self.store.clips.num_frames[row]), self.patch_shape[1]
        num_steps = min(-(-num_frames // step), self.max_excerpt_steps)
        length = min(num_frames, step * equal_chunks(num_steps, self.max_steps)[1])
        start = int(rng.integers(num_frames - length + 1))
        return torch.from_numpy(self.store.log_mel(row, start, start + length).astype(np.float32))

    def _stack(self, clips: Sequence[Tensor], num_frames: int) -> Float[Tensor, "b mel frame"]:
        log_mel = torch.full((len(clips), num_frames, self.store.spec.num_mels), self.store.spec.silence)
        for i, clip in enumerate(clips):
            log_mel[i, : len(clip)] = clip
        return log_mel.transpose(1, 2)

    def _sub_batch(self, log_mel: Float[Tensor, "b mel frame"], flags: Tensor, rng: np.random.Generator) -> SubBatch:
        recipe = self.recipe
        if recipe.resized_crop:
            log_mel = resized_crop(log_mel, silence=self.store.spec.silence, rng=rng)
        log_mel = (log_mel - self.front_end.mean) / self.front_end.std
        if recipe.max_hidden_bands or recipe.max_hidden_frames:
            log_mel = hide_stripes(
                log_mel, max_bands=recipe.max_hidden_bands, max_frames=recipe.max_hidden_frames, rng=rng
            )
        grid = grid_of(log_mel, self.patch_shape)
        chunk = replace(grid, time=grid.time // equal_chunks(grid.time, self.max_steps)[0])
        lines = draw_lines(len(log_mel), chunk, recipe.patch_mask_ratio, rng) if recipe.patch_mask_ratio else None
        return SubBatch(patchify(log_mel, self.patch_shape), grid, lines, flags)


def equal_chunks(num_steps: int, max_steps: int) -> tuple[int, int]:
    """The smallest number of equal chunks for a sequence of time steps, and the number of steps that they hold.

    >>> equal_chunks(32, 13), equal_chunks(30, 13), equal_chunks(7, 13)
    ((3, 30), (3, 30), (1, 7))
    """
    num_chunks = -(-num_steps // max_steps)
    return (num_chunks, num_steps) if num_steps % num_chunks == 0 else equal_chunks(num_steps - 1, max_steps)


def prefetch(make: Callable[[int], T], steps: range) -> Iterator[T]:
    """``make(step)`` for each step, computed one step ahead in a background thread."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="melmask-crops") as reader:
        waiting = [reader.submit(make, step) for step in steps[:1]]
        for step in steps:
            ready = waiting.pop().result()
            waiting += [reader.submit(make, following) for following in (step + 1,) if following in steps]
            yield ready
