"""Recordings -> clip embeddings, by a frozen encoder."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from melmask.data.store import Store
from melmask.logmel import LogMelSpec
from melmask.patches import grid_of, patchify
from melmask.train.checkpoint import ENCODER, FrontEnd, load_encoder
from melmask.types import PatchGrid
from melmask.vit import Encoder

TOKENS_PER_BATCH = 8192


class FrozenEncoder:
    """An encoder with its front end, turning log-mels of any length into clip embeddings.

    A clip is cut into the fewest nearly equal chunks no longer than the length the encoder was trained on. Per chunk
    the class token is dropped and the patches of one time step are stacked over frequency (freq x dim); the embedding
    is the mean over all time steps of the clip. Chunks are only ever batched with others of the same length, so a
    clip's embedding does not depend on its company.

    Args:
        encoder: the network.
        front_end: log-mel settings, mean and std it was trained with.
        crop_frames: the length it was trained on.

    Source: M2D, arXiv 2404.06095, and its evaluation protocol. Deviates: nearly equal chunks instead of full ones and
    a short, mostly padded rest.
    """

    def __init__(self, encoder: Encoder, front_end: FrontEnd, crop_frames: int) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.encoder = encoder.eval().to(self.device)
        self.front_end, self.crop_frames = front_end, crop_frames

    @staticmethod
    def load(run: Path) -> "FrozenEncoder":
        """The encoder of a run folder, or of an encoder file.

        Raises:
            ValueError: there is none, or it is damaged.
        """
        return FrozenEncoder(*load_encoder(run / ENCODER if run.is_dir() or not run.exists() else run))

    def untrained(self, seed: int) -> "FrozenEncoder":
        """The same form with fresh weights: the floor that shows what training added."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = Encoder(self.encoder.size, self.encoder.patch_shape)
        return FrozenEncoder(fresh, self.front_end, self.crop_frames)

    @property
    def spec(self) -> LogMelSpec:
        return self.front_end.spec

    @property
    def num_dims(self) -> int:
        return self.spec.num_mels // self.encoder.patch_shape[0] * self.encoder.size.dim

    def embed(
        self,
        store: Store,
        rows: Sequence[int] | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Float[np.ndarray, "clip dim"]:
        """Embeddings of a store's clips.

        Args:
            store: packed log-mels, made with this encoder's log-mel settings.
            rows: of the store's table; None for all.
            progress: called with the number of chunks done and in total.

        Raises:
            ValueError: the store was made with other log-mel settings.
        """
        if store.spec != self.spec:
            raise ValueError(
                f"{store.folder} was made with {store.spec}, the encoder with {self.spec}: prepare it anew"
            )
        rows = range(len(store.clips)) if rows is None else rows
        chunks = self._chunks_by_length(store, rows)
        total, done = sum(map(len, chunks.values())), 0
        sums = np.zeros((len(rows), self.num_dims), dtype=np.float64)
        num_steps = np.zeros(len(rows), dtype=np.int64)
        for length in sorted(chunks):
            for batch in self._batches(chunks[length], length):
                log_mel = np.stack([self._chunk(store, rows[i], start, length) for i, start in batch])
                index = [i for i, _ in batch]
                summed, steps = self._encode(torch.from_numpy(log_mel))
                np.add.at(sums, index, summed)
                np.add.at(num_steps, index, steps)
                done += len(batch)
                progress(done, total)
        return (sums / num_steps[:, None]).astype(np.float32)

    def _chunks_by_length(self, store: Store, rows: Sequence[int]) -> dict[int, list[tuple[int, int]]]:
        """Length in frames -> (position in rows, first frame) of all chunks of that length."""
        step, chunks = self.encoder.patch_shape[1], defaultdict(list)
        per_chunk = self.crop_frames // step
        for i, row in enumerate(rows):
            num_columns = -(-store.clips[row].num_frames // step)
            num_chunks = -(-num_columns // per_chunk)
            edges = np.linspace(0, num_columns, num_chunks + 1).round().astype(int)
            for first, last in pairwise(edges):
                chunks[int(last - first) * step].append((i, int(first) * step))
        return chunks

    def _batches(self, chunks: list[tuple[int, int]], length: int) -> Iterator[list[tuple[int, int]]]:
        """Chunks in groups of about as many tokens whatever their length."""
        size = max(1, TOKENS_PER_BATCH // self._grid(length).num_patches)
        return (chunks[i : i + size] for i in range(0, len(chunks), size))

    def _chunk(self, store: Store, row: int, start: int, length: int) -> Float[np.ndarray, "mel frame"]:
        """One normalised chunk; frames after the clip's end have the value of silence."""
        crop = store.log_mel(row, start, min(start + length, store.clips[row].num_frames))
        padded = np.full((length, self.spec.num_mels), self.spec.silence, dtype=np.float32)
        padded[: len(crop)] = crop
        return ((padded - self.front_end.mean) / self.front_end.std).T

    @torch.inference_mode()
    def _encode(self, log_mel: Float[Tensor, "b mel frame"]) -> tuple[Float[np.ndarray, "b dim"], int]:
        """The summed features of all time steps of each chunk, and how many steps they have."""
        grid = grid_of(log_mel, self.encoder.patch_shape)
        patches = patchify(log_mel.to(self.device), self.encoder.patch_shape)
        features = self.encoder(patches, grid)[:, 1:].float()
        stacked = features.reshape(len(features), grid.freq, grid.time, -1).sum(dim=2)
        return stacked.flatten(1).cpu().numpy(), grid.time

    def _grid(self, length: int) -> PatchGrid:
        freq, time = self.encoder.patch_shape
        return PatchGrid(self.spec.num_mels // freq, length // time)
