"""Recordings -> features of clips and of time steps, by a frozen encoder."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor
from torch.nn import functional as F

from melmask.data.store import Store
from melmask.encoders.features import FeatureSettings, Pool
from melmask.encoders.timesteps import TimeSteps, half
from melmask.logmel import LogMelSpec
from melmask.nn.encoder_file import ENCODER, FrontEnd, load_encoder
from melmask.nn.vit import LAYER_NORM_EPS, Encoder
from melmask.patches import grid_of, patchify
from melmask.runtime import keep_freed_memory
from melmask.types import PatchGrid

TOKENS_PER_BATCH = 8192
CLIPS_AT_ONCE = 1024  # more would batch no better, and their sums in float64 be larger than the embeddings

Progress = Callable[[int, int], None]
Encoded = tuple[list[tuple[int, int]], list[Tensor]]  # (clip, first step) of some chunks; b time d of each layer


def no_progress(done: int, total: int) -> None:
    """Show nothing."""


DEFAULT_SETTINGS = FeatureSettings()


class PretrainedEncoder:
    """An encoder with its front end, turning log-mels of any length into features.

    A clip is cut into the fewest nearly equal chunks no longer than the length the encoder was trained on. Per chunk
    the class token is dropped and the patches of one time step are stacked over frequency (freq x dim), layer by layer.
    Embeddings pool all time steps of the clip, whichever chunks they are from. Chunks are only ever batched with others
    of the same length, so a clip's features do not depend on its company.

    Args:
        encoder: the network.
        front_end: log-mel settings, mean and std it was trained with.
        crop_frames: the length it was trained on.
        settings: layers and pooling.
        called: what people call it.

    Raises:
        ValueError: the encoder lacks a layer asked for.

    Source: M2D, arXiv 2404.06095, and its evaluation protocol. Deviates: nearly equal chunks instead of full ones and
    a short, mostly padded rest; layers and pooling to choose from.
    """

    def __init__(
        self,
        encoder: Encoder,
        front_end: FrontEnd,
        crop_frames: int,
        settings: FeatureSettings = DEFAULT_SETTINGS,
        called: str = "encoder",
    ) -> None:
        keep_freed_memory()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.encoder = encoder.eval().to(self.device)
        self.front_end, self.crop_frames = front_end, crop_frames
        self.settings, self.called = settings, called
        self.layers = settings.numbers(encoder.size.depth)

    @staticmethod
    def load(run: Path, settings: FeatureSettings = DEFAULT_SETTINGS) -> "PretrainedEncoder":
        """The encoder of a run folder, named after it, or of an encoder file.

        Raises:
            ValueError: there is none, it is damaged, or it lacks a layer asked for.
        """
        path = run / ENCODER if run.is_dir() or not run.exists() else run
        called = path.resolve().parent.name if path.name == ENCODER else path.stem
        return PretrainedEncoder(*load_encoder(path), settings, called)

    def untrained(self, seed: int) -> "PretrainedEncoder":
        """The same form with fresh weights: the floor that shows what training added."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = Encoder(self.encoder.size, self.encoder.patch_shape)
        return PretrainedEncoder(fresh, self.front_end, self.crop_frames, self.settings, f"{self.called} untrained")

    @property
    def name(self) -> str:
        """For reports: what it is called, and its settings where they are not the usual ones."""
        return self.called if self.settings == DEFAULT_SETTINGS else f"{self.called} ({self.settings})"

    @property
    def identity(self) -> str:
        """Hash of all that embeddings depend on but the recordings: weights, form, front end, crop and settings."""
        form = (self.encoder.size, self.encoder.patch_shape, self.crop_frames, self.layers, self.settings.pooling)
        digest = hashlib.sha256(repr((self.front_end, form)).encode())
        for name, tensor in sorted(self.encoder.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def spec(self) -> LogMelSpec:
        return self.front_end.spec

    @property
    def num_step_dims(self) -> int:
        """Length of the features of one time step."""
        return len(self.layers) * (self.spec.num_mels // self.encoder.patch_shape[0]) * self.encoder.size.dim

    @property
    def num_dims(self) -> int:
        """Length of an embedding."""
        return self.num_step_dims * len(self.settings.pooling.split("+"))

    def embed_store(
        self, store: Store, rows: Sequence[int] | None = None, progress: Progress = no_progress
    ) -> Float32[np.ndarray, "clip dim"]:
        """Embeddings of a store's clips.

        Args:
            store: packed log-mels, made with this encoder's log-mel settings.
            rows: of the store's table; None for all.
            progress: called with the number of chunks done and in total.

        Raises:
            ValueError: the store was made with other log-mel settings.
        """
        rows = self._rows(store, rows)
        total, done = sum(len(self._edges(store.clips[row].num_frames)) - 1 for row in rows), 0
        embeddings = np.empty((len(rows), self.num_dims), np.float32)
        for first in range(0, len(rows), CLIPS_AT_ONCE):
            some = rows[first : first + CLIPS_AT_ONCE]
            pool = Pool(len(some), self.num_step_dims, self.settings.pooling)
            for chunks, layers in self._encoded_clips(store, some):
                pool.add([i for i, _ in chunks], layers)
                done += len(chunks)
                progress(done, total)
            embeddings[first : first + len(some)] = pool.pooled()
        return embeddings

    def time_steps(
        self,
        store: Store,
        rows: Sequence[int] | None = None,
        progress: Progress = no_progress,
        allocate: Callable[[tuple[int, int]], np.ndarray] = lambda shape: np.empty(shape, np.float16),
    ) -> TimeSteps:
        """Features of every time step of a store's clips, in half precision; pooling does not matter.

        Args:
            store, rows, progress: as of `embed_store`.
            allocate: makes the float16 array of the shape [step, dim] that is filled, such as a map of a file.

        Raises:
            ValueError: the store was made with other log-mel settings, or a feature is beyond half precision.
        """
        rows = self._rows(store, rows)
        num_frames = [store.clips[row].num_frames for row in rows]
        total, done = sum(len(self._edges(frames)) - 1 for frames in num_frames), 0
        length = np.array([self.num_steps(frames) for frames in num_frames])
        start = np.cumsum(length) - length
        steps = allocate((int(length.sum()), self.num_step_dims))
        for chunks, layers in self._encoded_clips(store, rows):
            what = f"features of {store.clips[rows[chunks[0][0]]].clip.path}, or of a clip of as many frames,"
            features = half(torch.cat(layers, dim=2).cpu().numpy(), what)
            for (i, step), of_chunk in zip(chunks, features, strict=True):
                steps[start[i] + step : start[i] + step + len(of_chunk)] = of_chunk
            done += len(chunks)
            progress(done, total)
        return TimeSteps(steps, start, length)

    def frames(
        self, log_mel: Float[np.ndarray, "frame mel"]
    ) -> tuple[Float32[np.ndarray, "time dim"], Float64[np.ndarray, " time"]]:
        """Features of the time steps of one clip of any length, and when they are.

        Args:
            log_mel: natural-log mel frames, not normalised, as they lie in a store.

        Returns:
            Features of each time step, and its centre in seconds, see `timestamps_s`.

        Raises:
            ValueError: no frames, or another number of mel bands than the encoder's.
        """
        if not len(log_mel) or log_mel.shape[1] != self.spec.num_mels:
            raise ValueError(f"log-mel of {log_mel.shape}: at least one frame of {self.spec.num_mels} bands is needed")
        steps = np.empty((self.num_steps(len(log_mel)), self.num_step_dims), np.float32)
        for chunks, layers in self._encoded([len(log_mel)], lambda _, start, stop: log_mel[start:stop]):
            for (_, step), of_chunk in zip(chunks, torch.cat(layers, dim=2).cpu().numpy(), strict=True):
                steps[step : step + len(of_chunk)] = of_chunk
        return steps, self.timestamps_s(len(steps))

    @property
    def step_s(self) -> float:
        """From one time step to the next."""
        return self.encoder.patch_shape[1] / self.spec.frames_per_s

    def num_steps(self, num_frames: int) -> int:
        """Time steps of a clip; the last may be filled up with silence."""
        return -(-num_frames // self.encoder.patch_shape[1])

    def timestamps_s(self, num_steps: int) -> Float64[np.ndarray, " time"]:
        """The centre of each time step in seconds: the mean of the instants its frames are centred on.

        The last step of a clip may reach beyond its end, and is then centred as if it were whole.
        """
        step = self.encoder.patch_shape[1]
        return (np.arange(num_steps) * step + (step - 1) / 2) / self.spec.frames_per_s

    def _rows(self, store: Store, rows: Sequence[int] | None) -> Sequence[int]:
        if store.spec != self.spec:
            raise ValueError(
                f"{store.folder} was made with {store.spec}, the encoder with {self.spec}: prepare it anew"
            )
        return range(len(store.clips)) if rows is None else rows

    def _encoded_clips(self, store: Store, rows: Sequence[int]) -> Iterator[Encoded]:
        num_frames = [store.clips[row].num_frames for row in rows]
        return self._encoded(num_frames, lambda i, start, stop: store.log_mel(rows[i], start, stop))

    def _encoded(
        self, num_frames: Sequence[int], read: Callable[[int, int, int], Float[np.ndarray, "frame mel"]]
    ) -> Iterator[Encoded]:
        """All chunks of all clips, in batches of one length: (clip, first step) of each, and their features by layer.

        Args:
            num_frames: of each clip.
            read: gives the frames of a clip from a start to a stop.
        """
        chunks = defaultdict(list)
        for i, frames in enumerate(num_frames):
            for first, last in pairwise(self._edges(frames)):
                chunks[last - first].append((i, first))
        step, num_rows = self.encoder.patch_shape[1], self.spec.num_mels // self.encoder.patch_shape[0]
        for length in sorted(chunks):
            size = max(1, TOKENS_PER_BATCH // (num_rows * length))
            for first in range(0, len(chunks[length]), size):
                batch = chunks[length][first : first + size]
                stops = [min((column + length) * step, num_frames[i]) for i, column in batch]
                crops = [read(i, column * step, stop) for (i, column), stop in zip(batch, stops, strict=True)]
                yield batch, self._encode(np.stack([self._normalised(crop, length * step) for crop in crops]))

    def _edges(self, num_frames: int) -> list[int]:
        """Where a clip is cut, in time steps, from 0 to its end."""
        num_steps = self.num_steps(num_frames)
        num_chunks = -(-num_steps // (self.crop_frames // self.encoder.patch_shape[1]))
        return np.linspace(0, num_steps, num_chunks + 1).round().astype(int).tolist()

    def _normalised(self, crop: Float[np.ndarray, "frame mel"], length: int) -> Float32[np.ndarray, "mel length"]:
        """One normalised chunk; frames after the clip's end have the value of silence."""
        padded = np.full((length, self.spec.num_mels), self.spec.silence, dtype=np.float32)
        padded[: len(crop)] = crop
        return ((padded - self.front_end.mean) / self.front_end.std).T

    @torch.inference_mode()
    def _encode(self, log_mel: Float32[np.ndarray, "b mel frame"]) -> list[Float[Tensor, "b time d"]]:
        """Features of the time steps of each chunk, of one layer after the other."""
        tensor = torch.from_numpy(log_mel).to(self.device)
        grid = grid_of(tensor, self.encoder.patch_shape)
        patches = patchify(tensor, self.encoder.patch_shape)
        depth, dim = self.encoder.size.depth, self.encoder.size.dim
        if self.layers == (depth,):
            return [_by_step(self.encoder(patches, grid), grid)]
        outputs = self.encoder.layers(patches, grid)
        normed = [F.layer_norm(output, (dim,), eps=LAYER_NORM_EPS) for output in outputs[:-1]]
        normed.append(self.encoder.norm(outputs[-1]))
        return [_by_step(normed[number - 1], grid) for number in self.layers]


def _by_step(tokens: Float[Tensor, "b t d"], grid: PatchGrid) -> Float[Tensor, "b time d2"]:
    """Features of each time step, frequencies side by side; the class token is dropped."""
    patches = tokens[:, 1:].float().unflatten(1, (grid.freq, grid.time))
    return patches.transpose(1, 2).flatten(2)
