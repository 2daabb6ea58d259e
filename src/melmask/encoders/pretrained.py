"""A trained encoder behind its own front end: recordings in, features of clips and of time steps out."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from melmask.data.store import Store
from melmask.encoders.base import Allocate, Progress, in_memory, no_progress
from melmask.encoders.features import DEFAULT_SETTINGS, UNSTATED, FeatureSettings, Pool, loudness, stated_by
from melmask.encoders.frames import ReadFrames, delayed_frames, frames_of, padded, stored_frames
from melmask.encoders.readings import averaged, delays, shifted_up, shifts
from melmask.encoders.recordings import Audio, grouped, is_one, log_mels
from melmask.encoders.timesteps import TimeSteps, finite, half
from melmask.logmel import LogMelSpec
from melmask.nn.encoder_file import ENCODER, EncoderFile, FrontEnd
from melmask.nn.foreign import is_foreign
from melmask.nn.shipped import shipped_file
from melmask.nn.time_steps import Whitening, time_steps
from melmask.nn.vit import Encoder, random_encoder
from melmask.patches import grid_of, patchify
from melmask.runtime import autocast_for, keep_freed_memory, this_device
from melmask.threads import following_load
from melmask.train.run_folder import kept_encoder, split_step

TOKENS_PER_BATCH = 8192
CLIPS_AT_ONCE = 1024  # more would batch no better, and their sums in float64 be larger than the embeddings

# (clip, first step) of some chunks; "b time d" of each layer; their log-mel, "b frame mel", not normalised
Encoded = tuple[list[tuple[int, int]], list[Tensor], np.ndarray]


class PretrainedEncoder:
    """An encoder with all that stands between it and a recording: resampling, log-mel front end and normalisation.

    A clip is cut into the fewest nearly equal chunks no longer than the length the encoder was trained on. Per chunk
    the class token is dropped and the patches of one time step are stacked over frequency (freq x dim), layer by layer.
    Embeddings pool all time steps of the clip, whichever chunks they are from. Chunks are only ever batched with others
    of the same length, so a clip's features do not depend on the other clips, but for the last bits of a float.

    Log-mels are rounded to half precision, as stores keep them, wherever they come from: `embed` of files gives what
    `embed_store` gives of a store of these files.

    Args:
        encoder: the network.
        front_end: log-mel settings, mean and std it was trained with.
        crop_frames: the length it was trained on.
        settings: layers, pooling and precision to read it with.
        called: its name.
        stated: the layers, pooling and whitening that "auto" stands for.
        whitening: of the time steps of the stated layers, if there is one.
        run: the folder of the run that trained it, if any.
        step: of that run, for an encoder that was kept along it; None for its last.
        has_untrained: False for one with random weights, which needs no untrained form as a baseline.

    Raises:
        ValueError: the encoder lacks a layer asked for.

    Source: M2D, arXiv 2404.06095, and its evaluation protocol. Deviates: nearly equal chunks instead of full ones and
    a short, mostly padded rest; layers and pooling to choose from.
    """

    has_time_steps = True

    def __init__(
        self,
        encoder: Encoder,
        front_end: FrontEnd,
        crop_frames: int,
        settings: FeatureSettings = DEFAULT_SETTINGS,
        called: str = "encoder",
        *,
        stated: FeatureSettings = UNSTATED,
        whitening: Whitening | None = None,
        run: Path | None = None,
        step: int | None = None,
        has_untrained: bool = True,
    ) -> None:
        keep_freed_memory()
        self.encoder = encoder.eval().to(this_device())
        self.front_end, self.crop_frames = front_end, crop_frames
        self.settings, self.stated, self.called = settings.resolved(stated, self.device), stated, called
        self.run, self.step, self.has_untrained = run, step, has_untrained
        self.layers = self.settings.numbers(encoder.size.depth)
        self._shifts = shifts(encoder.patch_shape[0], self.spec.num_mels, self.settings.pooling)
        self.whitening = whitening.to(self.device) if whitening and self.settings.whitened == "yes" else None

    @staticmethod
    def load(path: str | Path, settings: FeatureSettings = DEFAULT_SETTINGS) -> "PretrainedEncoder":
        """The encoder of a run folder, named after it, of an encoder file, or of weights that others published.

        Args:
            path: the folder, RUN@STEP for an encoder that was kept along a run, the file, or as a str the name of an
                encoder that comes with melmask (`melmask.nn.shipped`).
            settings: layers and pooling.

        Raises:
            ValueError: there is none, it is damaged, or it lacks a layer asked for.
        """
        path, step = split_step(shipped_file(path) or Path(path))
        run = path if path.is_dir() and not is_foreign(path) else None
        file = path / ENCODER if run or not path.exists() else path
        called = file.resolve().parent.name if file.name == ENCODER or file.stem.startswith("checkpoint") else file.stem
        if run and step is not None:
            file, called = kept_encoder(run, step), f"{called}@{step}"
        saved = EncoderFile.load(file)
        form, stated = (saved.encoder, saved.front_end, saved.crop_frames), stated_by(saved, file)
        return PretrainedEncoder(*form, settings, called, stated=stated, whitening=saved.whitening, run=run, step=step)

    def untrained(self, seed: int = 0) -> "PretrainedEncoder":
        """The same form with random weights, and without whitening: the baseline that shows what training added.

        Raises:
            ValueError: it has random weights itself.
        """
        if not self.has_untrained:
            raise ValueError(f"{self.name} has random weights itself: compare it with log-mel statistics")
        fresh = random_encoder(self.encoder.size, self.encoder.patch_shape, seed, self.encoder.positions.order)
        form, called = (fresh, self.front_end, self.crop_frames), f"{self.called} untrained"
        settings, stated = (replace(one, whitened="no") for one in (self.settings, self.stated))
        return PretrainedEncoder(*form, settings, called, stated=stated, has_untrained=False)

    def as_file(self) -> EncoderFile:
        """What its file holds, with the layers and pooling that are read now as those that it states."""
        read = {"layers": self.settings.layers, "pooling": self.settings.pooling, "whitening": self.whitening}
        return EncoderFile(self.encoder, self.front_end, self.crop_frames, **read)  # type: ignore[arg-type]

    def to(self, device: torch.device | str) -> "PretrainedEncoder":
        """This encoder, its weights moved to another device; log-mels are computed on the CPU wherever it is."""
        self.encoder.to(device)
        self.whitening = self.whitening.to(device) if self.whitening else None
        return self

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.encoder.parameters()).device

    @property
    def name(self) -> str:
        """What it is called, and its settings where they are not those that its file states."""
        return self.called if self.settings == self.stated else f"{self.called} ({self.settings})"

    @property
    def identity(self) -> str:
        """Hash of all that embeddings depend on but the recordings: weights, form, front end, crop and settings."""
        encoder, order = self.encoder, self.encoder.positions.order
        other = () if order == "freq-time" else (order,)  # so that encoders of before there was another keep their hash
        form = (encoder.size, encoder.patch_shape, self.crop_frames, self.layers, self.settings.pooling, *other)
        digest = hashlib.sha256(repr((self.front_end, form)).encode())
        if "quarters" in self.settings.pooling:
            digest.update(b"short clips at several offsets")  # which earlier versions read once
        if self.settings.precision != "float32":
            digest.update(self.settings.precision.encode())
        for name, tensor in sorted(encoder.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        for tensor in (self.whitening.mean, self.whitening.matrix) if self.whitening else ():
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def spec(self) -> LogMelSpec:
        """The log-mel settings of its front end."""
        return self.front_end.spec

    @property
    def sample_rate_hz(self) -> int:
        """The rate that recordings are resampled to."""
        return self.spec.sample_rate_hz

    @property
    def num_step_dims(self) -> int:
        """Length of the features of one time step."""
        return len(self.layers) * (self.spec.num_mels // self.encoder.patch_shape[0]) * self.encoder.size.dim

    @property
    def num_dims(self) -> int:
        """Length of an embedding."""
        return self.num_step_dims * self.settings.num_vectors

    @property
    def step_s(self) -> float:
        """From one time step to the next, in seconds."""
        return self.encoder.patch_shape[1] / self.spec.frames_per_s

    def embed(
        self, audio: Audio, sample_rate_hz: int | float | None = None
    ) -> Float32[np.ndarray, "clip dim"] | Float32[np.ndarray, " dim"]:
        """One vector for each recording, or one vector for a single recording.

        Args:
            audio: a file, a waveform [sample], or several: a list of files and waveforms of any lengths, or an array or
                tensor [clip, sample]. Average the channels of a stereo waveform first: an array of two dimensions is
                always clips. Samples are floats in -1..1, or PCM of type int16 or int32.
            sample_rate_hz: of the waveforms, which are resampled as files are; files have their own.

        Returns:
            [clip, dim] for several recordings, [dim] for one; of files, to the bit what `melmask embed` writes of them.

        Raises:
            ValueError: a file cannot be read, or is silent; a waveform comes without its rate, is empty, not finite, or
                of another type of numbers; or the columns of an array are channels.
        """
        groups = grouped(log_mels(audio, sample_rate_hz, self.spec), CLIPS_AT_ONCE)
        vectors = [self._pooled([len(clip) for clip in group], frames_of(group)) for group in groups]
        return finite(np.concatenate(vectors), self.name)[0 if is_one(audio) else slice(None)]

    def embed_frames(
        self, audio: Audio, sample_rate_hz: int | float | None = None
    ) -> tuple[Float32[np.ndarray, "time dim"], Float64[np.ndarray, " time"]]:
        """Features of each time step of one recording of any length, and the steps' centres in seconds.

        Args:
            audio, sample_rate_hz: a single recording, see `embed`.

        Raises:
            ValueError: several recordings, or see `embed`.
        """
        if not is_one(audio):
            raise ValueError("embed_frames takes one recording, a path or a waveform [sample]: call it for each")
        [log_mel] = log_mels(audio, sample_rate_hz, self.spec)
        return self.frames(log_mel)

    def frames(
        self, log_mel: Float[np.ndarray, "frame mel"]
    ) -> tuple[Float32[np.ndarray, "time dim"], Float64[np.ndarray, " time"]]:
        """Features of the time steps of one clip of any length, and the steps' centres in seconds.

        Args:
            log_mel: natural-log mel frames, not normalised, as they lie in a store.

        Raises:
            ValueError: no frames, or another number of mel bands than the encoder's.
        """
        if not len(log_mel) or log_mel.shape[1] != self.spec.num_mels:
            raise ValueError(f"log-mel of {log_mel.shape}: at least one frame of {self.spec.num_mels} bands is needed")
        steps = np.empty((self.num_steps(len(log_mel)), self.num_step_dims), np.float32)
        for chunks, layers, _ in self._encoded([len(log_mel)], frames_of([log_mel])):
            for (_, step), of_chunk in zip(chunks, torch.cat(layers, dim=2).cpu().numpy(), strict=True):
                steps[step : step + len(of_chunk)] = of_chunk
        return steps, self.timestamps_s(len(steps), len(log_mel))

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
        num_frames = [int(store.clips.num_frames[row]) for row in rows]
        report = self._counting([n + d for n in num_frames for d in self._delays(n)] * len(self._shifts), progress)
        embeddings = np.empty((len(rows), self.num_dims), np.float32)
        for first in range(0, len(rows), CLIPS_AT_ONCE):
            some = slice(first, first + CLIPS_AT_ONCE)
            embeddings[some] = self._pooled(num_frames[some], stored_frames(store, rows[some]), report)
        return finite(embeddings, self.name, lambda row: store.clips[rows[row]].clip.path)

    def time_steps(
        self,
        store: Store,
        rows: Sequence[int] | None = None,
        progress: Progress = no_progress,
        allocate: Allocate = in_memory,
    ) -> TimeSteps:
        """Features of every time step of a store's clips, in half precision; pooling does not matter.

        Args:
            store, rows, progress: as of `embed_store`.
            allocate: makes the float16 array of the shape [step, dim] that is filled, such as a map of a file.

        Raises:
            ValueError: the store was made with other log-mel settings, or a feature is beyond half precision.
        """
        rows = self._rows(store, rows)
        num_frames = [int(store.clips.num_frames[row]) for row in rows]
        report = self._counting(num_frames, progress)
        length = np.array([self.num_steps(frames) for frames in num_frames])
        start = np.cumsum(length) - length
        steps = allocate((int(length.sum()), self.num_step_dims))
        for chunks, layers, _ in self._encoded(num_frames, stored_frames(store, rows)):
            what = f"features of {store.clips[rows[chunks[0][0]]].clip.path}, or of a clip of as many frames,"
            features = half(torch.cat(layers, dim=2).cpu().numpy(), what)
            for (i, step), of_chunk in zip(chunks, features, strict=True):
                steps[start[i] + step : start[i] + step + len(of_chunk)] = of_chunk
            report(len(chunks))
        return TimeSteps(steps, start, length)

    def num_steps(self, num_frames: int) -> int:
        """Time steps of a clip of so many frames; the last step may be padded with silence."""
        return -(-num_frames // self.encoder.patch_shape[1])

    def timestamps_s(self, num_steps: int, num_frames: int | None = None) -> Float64[np.ndarray, " time"]:
        """The mean of the instants that each step's frames are centred on, in seconds; of ``num_frames`` in all."""
        step = self.encoder.patch_shape[1]
        first = np.arange(num_steps) * step
        last = first + step - 1 if num_frames is None else np.minimum(first + step, num_frames) - 1
        return (first + last) / 2 / self.spec.frames_per_s

    def _rows(self, store: Store, rows: Sequence[int] | None) -> Sequence[int]:
        if store.spec != self.spec:
            raise ValueError(
                f"{store.folder} was made with {store.spec}, the encoder with {self.spec}: prepare it anew"
            )
        return range(len(store.clips)) if rows is None else rows

    def _counting(self, num_frames: Sequence[int], progress: Progress) -> Callable[[int], None]:
        """A function of the number of chunks just done, which reports their sum and the total."""
        total, done = sum(len(self._edges(frames)) - 1 for frames in num_frames), 0

        def report(num_chunks: int) -> None:
            nonlocal done
            done += num_chunks
            progress(done, total)

        return report

    def _pooled(
        self, num_frames: Sequence[int], read: ReadFrames, report: Callable[[int], None] = lambda num_chunks: None
    ) -> Float32[np.ndarray, "clip dim"]:
        """Embeddings of some clips; arguments as of `_encoded`, and ``report`` takes the number of chunks just done."""
        readings = [self._delays(frames) for frames in num_frames]
        num_steps = [[self.num_steps(n + delay) for delay in own] for n, own in zip(num_frames, readings, strict=True)]
        most = max(readings, key=len)  # which begins with those of all others
        vectors = []
        for shift in self._shifts:
            pool = Pool(num_steps, self.num_step_dims, self.settings.pooling)
            for reading, delay in enumerate(most):
                clips = [clip for clip, own in enumerate(readings) if reading < len(own)]
                delayed = delayed_frames(read, clips, delay, self.spec.silence)
                for chunks, layers, log_mel in self._encoded([num_frames[c] + delay for c in clips], delayed, shift):
                    weight = loudness(log_mel, self.encoder.patch_shape[1]) if pool.is_weighted else None
                    pool.add([(clips[i], step) for i, step in chunks], layers, reading, weight)
                    report(len(chunks))
            vectors.append(pool.pooled())
        return averaged(vectors, 2 * self.num_step_dims)

    def _delays(self, num_frames: int) -> tuple[int, ...]:
        """The frames of silence before a clip, each time that it is read to be pooled."""
        return delays(self.num_steps(num_frames), self.encoder.patch_shape[1], self.settings.pooling)

    def _encoded(self, num_frames: Sequence[int], read: ReadFrames, shift: int = 0) -> Iterator[Encoded]:
        """All chunks of all clips, in batches of one length: (clip, first step) of each, its features and log-mel.

        Args:
            num_frames: of each clip.
            read: gives the frames of a clip from a start to a stop.
            shift: mel bands that the encoder reads them shifted by; the log-mel is not.
        """
        chunks = defaultdict(list)
        for i, frames in enumerate(num_frames):
            for first, last in pairwise(self._edges(frames)):
                chunks[last - first].append((i, first))
        step, num_rows = self.encoder.patch_shape[1], self.spec.num_mels // self.encoder.patch_shape[0]
        with following_load(self.device) as threads:
            for length in sorted(chunks):
                size = max(1, TOKENS_PER_BATCH // (num_rows * length))
                for first in range(0, len(chunks[length]), size):
                    batch = chunks[length][first : first + size]
                    with threads.step(work=len(batch) * length):
                        stops = [min((column + length) * step, num_frames[i]) for i, column in batch]
                        crops = [read(i, column * step, stop) for (i, column), stop in zip(batch, stops, strict=True)]
                        log_mel = np.stack([padded(crop, length * step, self.spec.silence) for crop in crops])
                        encoded = self._encode(shifted_up(log_mel, shift) if shift else log_mel)
                    yield batch, encoded, log_mel

    def _edges(self, num_frames: int) -> list[int]:
        """Where a clip is cut, in time steps, from 0 to its end."""
        num_steps = self.num_steps(num_frames)
        num_chunks = -(-num_steps // (self.crop_frames // self.encoder.patch_shape[1]))
        return np.linspace(0, num_steps, num_chunks + 1).round().astype(int).tolist()

    @torch.inference_mode()
    def _encode(self, log_mel: Float32[np.ndarray, "b frame mel"]) -> list[Float[Tensor, "b time d"]]:
        """Features of the time steps of each chunk, of one layer after the other."""
        normalised = (log_mel - self.front_end.mean) / self.front_end.std
        tensor = torch.from_numpy(normalised.swapaxes(1, 2)).to(self.device)
        grid = grid_of(tensor, self.encoder.patch_shape)
        patches = patchify(tensor, self.encoder.patch_shape)
        with autocast_for(self.settings.precision, self.device)():
            layers = time_steps(self.encoder, patches, grid, self.layers)
        return [self.whitening(torch.cat(layers, dim=2))] if self.whitening else layers
